"""A head on features to a bundle that is served: parity, words, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from export.cli import main as export
from export.head_bundle import BundleSource, HeadParts, export_head_bundle
from export.verify import TOLERANCE, feature_streams, moving_windows
from server.bundle import DEFAULT_BUNDLE, Bundle, load_bundle
from server.cli import main as serve
from server.engine.onnxruntime import EngineOptions, OnnxDetector
from tests.support.featured import a_bank
from tests.support.footage import make_footage
from tests.support.tiny_bundle import make_tiny_bundle
from training.bank import controlled, load_bank
from training.cli import main as train
from training.clips import TrainingError
from training.head import HeadState, HeadStep
from training.head_run import HEAD_FILE, load_run

pytestmark = pytest.mark.long

WIDTH = 48  # of the default bundle's features


@dataclass
class Made:
    """Folders of one run with a bank and one without."""

    data: Path
    features: Path
    banked: Path
    plain: Path
    bank: Path
    bundle: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("heads")
    data = make_footage(folder / "data", sources=6)
    found = Made(
        data,
        folder / "features",
        folder / "banked",
        folder / "plain",
        a_bank(folder / "bank.safetensors", WIDTH),
        folder / "bundle",
    )
    encoder = ["--encoder", str(DEFAULT_BUNDLE)]
    assert train(["extract", str(data), *encoder, "--out", str(found.features)]) == 0
    fit(found, found.banked, "lap-bank", ["--bank", str(found.bank)])
    fit(found, found.plain, "lap-causal", [])
    arguments = ["bundle", "--head", str(found.banked), *encoder, "--bank", str(found.bank)]
    assert export([*arguments, "--out", str(found.bundle)]) == 0
    return found


def fit(made: Made, out: Path, name: str, more: list[str]) -> None:
    built_in = yaml.safe_load((Path("training/recipes") / f"{name}.yaml").read_text())
    few = {"steps": 8, "each": 2, "hidden": [8], "validate_every": 4, "validation_share": 0.3}
    recipe = out.with_suffix(".yaml")
    recipe.write_text(yaml.safe_dump(built_in | few | {"held_out_share": 0.3}))
    manifest = ["--manifest", str(made.features / "manifest.jsonl"), "--recipe", str(recipe)]
    assert train(["train", *manifest, "--out", str(out), *more]) == 0


@pytest.fixture(scope="module")
def bundle(made: Made) -> Bundle:
    return load_bundle(made.bundle)


def test_the_bundle_verifies_against_its_run(
    made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(["verify", str(made.bundle), "--head", str(made.banked), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["score_error"] <= TOLERANCE
    assert found["feature_error"] is None


def test_another_run_s_head_does_not_verify(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(["verify", str(made.bundle), "--head", str(made.plain)]) == 2
    assert "scores against the checkpoint differ by" in capsys.readouterr().err


def test_it_names_the_sentences_that_torch_names(made: Made, bundle: Bundle) -> None:
    engine = OnnxDetector(bundle, EngineOptions(threads=1))
    head, bank = load_run(made.banked).head, load_bank(made.bank)
    features = feature_streams(engine.encode(moving_windows(bundle)))[0]
    batch = len(features)
    state = {k: np.repeat(v, batch, axis=0) for k, v in engine.zero_state().items()}
    told = engine.step(features, state).explanations
    with torch.no_grad():
        zero = HeadState.zero(head.spec, batch, torch.empty(0)).tensors()
        *_, indices, weights = HeadStep(head)(torch.from_numpy(features), *zero)
    for explanation, index, weight in zip(told, indices, weights, strict=True):
        expected = [bank.wording.sentences[i] for i in index[:3].tolist()]
        assert [(near.text, near.anomalous) for near in explanation] == [
            (sentence.text, sentence.anomalous) for sentence in expected
        ]
        np.testing.assert_allclose([near.weight for near in explanation], weight[:3], atol=1e-5)


def test_the_bundle_says_where_it_comes_from(made: Made, bundle: Bundle) -> None:
    run, source = load_run(made.banked), load_bundle(DEFAULT_BUNDLE).manifest
    manifest = bundle.manifest
    assert manifest.bank is not None
    assert manifest.bank.bank_sha256 == run.bank == load_bank(made.bank).sha256
    assert manifest.encoder_id() == source.encoder_id() == run.encoder
    assert len(run.clips) == 12
    assert set(run.clips) < set(manifest.training.clips)
    assert set(source.training.clips) < set(manifest.training.clips)
    assert manifest.threshold.value == run.threshold
    assert "normal validation videos" in manifest.threshold.chosen


def test_a_backtest_runs_with_it_and_marks_what_it_saw(
    made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    assert serve(["backtest", str(made.data), "--bundle", str(made.bundle), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["bundle"] == load_bundle(made.bundle).bundle_id
    assert [clip["seen"] for clip in found["clips"].values()] == [True] * 12


def test_a_head_without_a_bank_is_exported_with_a_threshold_of_its_own(
    made: Made, tmp_path: Path
) -> None:
    parts = HeadParts(made.plain, BundleSource(DEFAULT_BUNDLE), threshold=0.25)
    found = export_head_bundle(parts, tmp_path / "bundle")
    assert found.manifest.bank is None
    assert found.manifest.threshold.model_dump() == {"value": 0.25, "chosen": "given at export"}


def refused(made: Made, **changes: object) -> str:
    encoder = BundleSource(DEFAULT_BUNDLE)
    parts = {"run": made.banked, "encoder": encoder, "bank": load_bank(made.bank)}
    with pytest.raises(TrainingError) as found:
        export_head_bundle(HeadParts(**(parts | changes)), made.data.parent / "never")  # type: ignore[arg-type]
    assert not (made.data.parent / "never").exists()
    return str(found.value)


def test_another_bank_is_refused(made: Made) -> None:
    other = controlled(load_bank(made.bank), "shuffled", 0)
    assert "was trained on bank" in refused(made, bank=other)
    assert "give it by --bank" in refused(made, bank=None)
    assert "was trained on bank None, not" in refused(made, run=made.plain)


def test_another_encoder_is_refused(made: Made, tmp_path: Path) -> None:
    tiny = make_tiny_bundle(tmp_path / "tiny").directory
    said = refused(made, encoder=BundleSource(tiny))
    assert "give the encoder that the features were extracted with" in said


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda c: c["head"].update(half_life_windows=None), "sees the future"),
        (lambda c: c.update(threshold=None), "give --threshold"),
    ],
)
def test_a_run_that_cannot_be_served_is_refused(
    made: Made,
    tmp_path: Path,
    change: Callable[[dict[str, dict[str, object]]], None],
    expected: str,
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for file in made.banked.iterdir():
        if file.is_file():
            (run / file.name).write_bytes(file.read_bytes())
    content = json.loads((run / HEAD_FILE).read_text())
    change(content)
    (run / HEAD_FILE).write_text(json.dumps(content))
    assert expected in refused(made, run=run)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--head", "R"], "--head needs --encoder BUNDLE"),
        (["--head", "R", "--encoder", "B", "--threshold", "2"], "must be over 0 and at most 1"),
        (["--checkpoint", "R", "--encoder", "B"], "--encoder goes with --head alone"),
    ],
)
def test_mistakes_get_a_sentence(
    capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    assert export(["bundle", *arguments, "--out", "never"]) == 2
    told = capsys.readouterr().err
    assert expected in told
    assert told.count("\n") == 1
