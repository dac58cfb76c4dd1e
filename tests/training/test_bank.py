"""Making a bank with a real, small text tower; reading it; its controls."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from tests.support.clip_model import write_clip_model
from training.bank import Bank, controlled, load_bank
from training.cli import main
from training.clips import TrainingError
from training.sentences import SURVEILLANCE
from training.text_tower import load_tower

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model's JSON and its weights."""
    return write_clip_model(tmp_path_factory.mktemp("tower"))


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    content = yaml.safe_load(SURVEILLANCE.read_text())
    content |= {"anomalous": content["anomalous"][:2], "normal": content["normal"][:2]}
    path = tmp_path_factory.mktemp("sentences") / "few.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def make(tower: tuple[Path, Path], sentences: Path, out: Path, *more: str) -> Bank:
    arguments = ["--model", str(tower[0]), "--pretrained", str(tower[1])]
    arguments += ["--sentences", str(sentences), "--out", str(out), *more]
    assert main(["bank", *arguments]) == 0
    return load_bank(out)


def test_a_bank_holds_unit_vectors_of_every_text(
    tower: tuple[Path, Path],
    sentences: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bank = make(tower, sentences, tmp_path / "bank.safetensors", "--json")
    assert json.loads(capsys.readouterr().out)["sha256"] == bank.sha256
    assert bank.vectors.sentences.shape == (len(bank.wording.sentences), 16)
    assert (len(bank.vectors.anomalies), len(bank.vectors.normals)) == (30, 30)
    for part in (bank.vectors.sentences, bank.vectors.anomalies, bank.vectors.normals):
        torch.testing.assert_close(part.norm(dim=1), torch.ones(len(part)))
    assert bank.weights != str(tower[1])
    assert len(bank.weights) == 64


def test_a_vector_is_the_mean_over_the_templates(
    tower: tuple[Path, Path], sentences: Path, tmp_path: Path
) -> None:
    bank = make(tower, sentences, tmp_path / "bank.safetensors")
    text = bank.wording.sentences[3].text
    encode = load_tower(str(tower[0]), str(tower[1])).encode
    turns = [encode([template.format(text)])[0] for template in bank.wording.templates]
    expected = sum(turn / turn.norm() for turn in turns)
    torch.testing.assert_close(bank.vectors.sentences[3], expected / expected.norm())


def test_the_same_command_makes_the_same_bank(
    tower: tuple[Path, Path], sentences: Path, tmp_path: Path
) -> None:
    first, second = (make(tower, sentences, tmp_path / f"{n}.safetensors") for n in range(2))
    assert first.sha256 == second.sha256


def test_controls_know_nothing_and_have_a_hash_of_their_own(
    tower: tuple[Path, Path], sentences: Path, tmp_path: Path
) -> None:
    bank = make(tower, sentences, tmp_path / "bank.safetensors")
    shuffled = make(
        tower, sentences, tmp_path / "s.safetensors", "--control", "shuffled", "--seed", "3"
    )
    random = controlled(bank, "random", 3)
    assert len({bank.sha256, shuffled.sha256, random.sha256}) == 3
    everything = [
        torch.cat([b.vectors.sentences, b.vectors.anomalies, b.vectors.normals])
        for b in (bank, shuffled, random)
    ]
    rows = [sorted(map(tuple, part.tolist())) for part in everything]
    assert rows[0] == rows[1]  # the same vectors, of other texts
    assert (everything[0] != everything[1]).any(1).double().mean() > 0.9
    assert rows[0] != rows[2]
    assert controlled(bank, "none", 3) is bank
    assert shuffled.control == "shuffled-3"


def test_a_changed_bank_is_refused(
    tower: tuple[Path, Path], sentences: Path, tmp_path: Path
) -> None:
    path = tmp_path / "bank.safetensors"
    bank = make(tower, sentences, path)
    tensors = load_file(path)
    tensors["normals"] = tensors["normals"].flip(0)
    notes = json.dumps({"sha256": bank.sha256, "bank": bank._notes()})
    save_file({name: t.contiguous() for name, t in tensors.items()}, path, {"bank": notes})
    with pytest.raises(TrainingError, match="does not match its hash"):
        load_bank(path)
    replace(bank, model="another").save(path)
    assert load_bank(path).sha256 != bank.sha256
    later = bank._notes().replace('"schema": 1', '"schema": 2')
    save_file(tensors, path, {"bank": json.dumps({"sha256": "", "bank": later})})
    with pytest.raises(TrainingError, match="schema 2"):
        load_bank(path)
    for content in (b"none", b""):
        path.write_bytes(content)
        with pytest.raises(TrainingError, match="cannot be read as a bank"):
            load_bank(path)


@pytest.mark.parametrize(
    ("model", "pretrained", "said"),
    [
        ("no-such-model", "openai", "is no model of open_clip"),
        ("ViT-B-32", "no-such-tag", "is neither a file nor a tag of ViT-B-32"),
        ("gone.json", "openai", "cannot be read as JSON"),
        ("ViT-B-32", str(SURVEILLANCE), "cannot be loaded with"),
    ],
)
def test_a_tower_that_cannot_be_had_is_refused(
    model: str, pretrained: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bank.safetensors"
    arguments = ["--model", model, "--pretrained", pretrained, "--out", str(out)]
    assert main(["bank", *arguments]) == 2
    err = capsys.readouterr().err
    assert said in err.splitlines()[-1]
    assert "Traceback" not in err
    assert not out.exists()
