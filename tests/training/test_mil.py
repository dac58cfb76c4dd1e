"""A run on features: what it makes, that it resumes, what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from tests.support.featured import WIDTH, a_bank, make_features
from training.bank import controlled, load_bank
from training.cli import main
from training.clips import TrainingError
from training.head_run import HEAD_FILE, HEAD_WEIGHTS, load_head, load_run
from training.logs import CURVES, read_curves
from training.manifest import Row, load_manifest, write_manifest
from training.mil import SNAPSHOT, Places, Progress, train_head, window_scores
from training.mil_data import Texts, load_data
from training.mil_recipe import BUILT_IN, MilRecipe, load_mil_recipe

SMALL: dict[str, object] = {
    "name": "small",
    "text": "none",
    "direct": True,
    "hidden": [8],
    "half_life_windows": 16.0,
    "windows": "contiguous",
    "context": 32,
    "lead": 4,
    "each": 4,
    "steps": 30,
    "learning_rate": 0.01,
    "validation_share": 0.3,
    "held_out_share": 0.2,
    "validate_every": 5,
    "objective": {"k": 2, "select": "score", "magnitude": 0.0},
}


def recipe_of(**changes: object) -> MilRecipe:
    return MilRecipe.model_validate(SMALL | changes)


def write_recipe(path: Path, **changes: object) -> Path:
    path.write_text(yaml.safe_dump(SMALL | changes))
    return path


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_features(tmp_path_factory.mktemp("features"), synthetic=8)


def test_a_planted_anomaly_is_found_and_the_best_head_is_kept(
    manifest: Path, tmp_path: Path
) -> None:
    found = train_head(Places(manifest, tmp_path), recipe_of(steps=60))
    assert found.auc is not None
    assert found.auc > 0.9
    curves = read_curves(tmp_path)
    judged = [auc for auc in curves["validation_auc"] if auc == auc]
    assert len(judged) == 60 // 5
    assert found.auc == pytest.approx(max(judged), rel=1e-6)
    assert curves["step"] == list(range(60))
    again = load_head(tmp_path)
    visual = torch.randn(2, 1, 9, WIDTH)
    with torch.no_grad():
        assert torch.equal(again(visual).scores, found.head(visual).scores)
    described = json.loads((tmp_path / HEAD_FILE).read_text())
    assert described["encoder"] == "tiny"
    assert described["seed"] == 0
    assert described["videos"]["judge"] > 0


@pytest.mark.parametrize(
    "changes",
    [
        {"scaling": {"kind": "meta"}},
        {"scaling": {"kind": "uncertainty", "value": 0.5, "rate": 0.05}},
        {
            "windows": "segments",
            "half_life_windows": None,
            "direct": False,
            "scaling": {"kind": "learnable", "value": 0.1, "rate": 0.001},
        },
    ],
)
def test_a_stopped_run_goes_on_to_the_same_weights(
    changes: dict[str, object], manifest: Path, tmp_path: Path
) -> None:
    recipe = recipe_of(**changes)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train_head(Places(manifest, whole), recipe)

    def stop(step: int, figures: dict[str, float]) -> None:
        if step == 17:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_head(Places(manifest, stopped), recipe, Progress(step=stop))
    assert not (stopped / HEAD_WEIGHTS).exists()
    train_head(Places(manifest, stopped), recipe)
    for name in (HEAD_WEIGHTS, CURVES):
        assert (stopped / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.long
def test_a_run_killed_at_any_moment_goes_on_to_the_same_weights(
    manifest: Path, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", steps=200, scaling={"kind": "meta"})
    whole, killed = tmp_path / "whole", tmp_path / "killed"

    def command(out: Path) -> list[str]:
        arguments = ["--manifest", str(manifest), "--recipe", str(recipe), "--out", str(out)]
        return [sys.executable, "-m", "training", "train", *arguments]

    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command(whole), check=True, env=environment, timeout=120)
    random, kills = np.random.default_rng(3), 0
    while not (killed / HEAD_WEIGHTS).exists():
        run = subprocess.Popen(command(killed), env=environment)
        try:
            # The last tries are left alone: a run may be too slow for the next snapshot.
            run.wait(float(random.uniform(3, 8)) if kills < 4 else 120)
        except subprocess.TimeoutExpired:
            run.send_signal(signal.SIGKILL)
            run.wait()
            kills += 1
    for name in (HEAD_WEIGHTS, CURVES):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_recipe_trains(name: str, tmp_path: Path) -> None:
    recipe = load_mil_recipe(name)
    manifest = make_features(
        tmp_path / "features", videos=12, crops=2, captions=recipe.text == "caption", synthetic=4
    )
    np.save(tmp_path / "prompts.npy", np.eye(WIDTH, dtype=np.float32)[:2])
    few = {"steps": 2, "each": 2, "validation_share": 0.2, "held_out_share": 0.2}
    recipe = recipe.model_copy(update=few | {"hidden": (8, 4)})
    texts = Texts(tmp_path / "prompts.npy", a_bank(tmp_path / "bank.safetensors"))
    found = train_head(Places(manifest, tmp_path / "run", texts), recipe)
    assert found.head.spec.causal == name.startswith("lap-")
    assert found.step >= 1


def test_a_head_is_of_its_bank(manifest: Path, tmp_path: Path) -> None:
    recipe = recipe_of(text="clip_bank", steps=5)
    assert "give --bank FILE" in refused(Places(manifest, tmp_path / "r"), recipe)
    wide = a_bank(tmp_path / "wide.safetensors", width=16)
    found = refused(Places(manifest, tmp_path / "r", Texts(bank=wide)), recipe)
    assert "the bank's vectors have 16 numbers and the features 8" in found
    path = a_bank(tmp_path / "bank.safetensors")
    train_head(Places(manifest, tmp_path / "r", Texts(bank=path)), recipe)
    bank = load_bank(path)
    head = load_head(tmp_path / "r", bank)
    assert head.semantic is not None
    assert head.semantic.mean_feature.any()
    with pytest.raises(TrainingError, match="was trained on bank"):
        load_head(tmp_path / "r", controlled(bank, "shuffled", 0))
    another = controlled(bank, "random", 0)
    another.save(path)
    again = refused(Places(manifest, tmp_path / "r", Texts(bank=path)), recipe)
    assert "another manifest or recipe" in again


def test_the_threshold_is_what_a_tenth_of_normal_validation_windows_reach(
    manifest: Path, tmp_path: Path
) -> None:
    recipe = recipe_of(false_positive_rate=0.25)
    head = train_head(Places(manifest, tmp_path), recipe).head
    run = load_run(tmp_path)
    assert run.threshold is not None
    data = load_data(load_manifest(manifest), recipe, Texts())
    normal = [bag for bag in data.judge if bag.row.label == "normal"]
    scores = torch.cat([window_scores(head, bag) for bag in normal])
    share = float((scores >= run.threshold).double().mean())
    assert share == pytest.approx(0.25, abs=1 / len(scores))
    assert f"25 % of {len(scores)} windows of {len(normal)} normal" in run.threshold_rule


def test_without_validation_there_is_no_threshold(manifest: Path, tmp_path: Path) -> None:
    train_head(Places(manifest, tmp_path), recipe_of(validation_share=0.0, steps=2))
    assert load_run(tmp_path).threshold is None


def test_the_released_choice_is_made_on_test_videos(manifest: Path, tmp_path: Path) -> None:
    changes: dict[str, object] = {
        "windows": "segments",
        "half_life_windows": None,
        "released": True,
        "steps": 10,
    }
    found = train_head(Places(manifest, tmp_path), recipe_of(**changes))
    tests = [row for row in load_manifest(manifest).rows if row.split == "test"]
    described = json.loads((tmp_path / HEAD_FILE).read_text())
    assert described["videos"]["judge"] == len(tests)
    assert found.auc is not None


def test_the_command_says_what_was_chosen(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml")
    arguments = ["--manifest", str(manifest), "--recipe", str(recipe), "--out", str(tmp_path / "r")]
    assert main(["train", *arguments]) == 0
    assert "small: the head of step" in capsys.readouterr().out


def refused(places: Places, recipe: MilRecipe) -> str:
    with pytest.raises(TrainingError) as caught:
        train_head(places, recipe)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_of_another_run_is_left_as_it_is(manifest: Path, tmp_path: Path) -> None:
    train_head(Places(manifest, tmp_path), recipe_of(steps=5))
    before = (tmp_path / SNAPSHOT).read_bytes()
    assert "another manifest or recipe" in refused(Places(manifest, tmp_path), recipe_of(steps=6))
    assert (tmp_path / SNAPSHOT).read_bytes() == before


def test_features_made_anew_are_another_run(tmp_path: Path) -> None:
    manifest = make_features(tmp_path / "features", videos=12)
    run = tmp_path / "run"
    train_head(Places(manifest, run), recipe_of(steps=5))
    for file in manifest.parent.glob("*.npy"):
        np.save(file, np.load(file) * 2)
    assert "another manifest or recipe" in refused(Places(manifest, run), recipe_of(steps=5))


def test_data_that_does_not_fit_is_refused_before_anything_is_written(
    manifest: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    prompts = recipe_of(objective={"k": 2, "pal": 0.001})
    assert "give --prompts FILE.npy" in refused(Places(manifest, out), prompts)
    np.save(tmp_path / "p.npy", np.ones((3, 5), np.float32))
    found = refused(Places(manifest, out, Texts(tmp_path / "p.npy")), prompts)
    assert "prompts have 5 numbers" in found
    captions = recipe_of(text="caption", half_life_windows=None, windows="segments")
    assert "has no captions" in refused(Places(manifest, out), captions)
    rows = [r.model_copy(update={"label": "normal", "anomalous": None}) for r in rows_of(manifest)]
    write_manifest(manifest.parent / "one-label.jsonl", rows)
    single = refused(Places(manifest.parent / "one-label.jsonl", out), recipe_of())
    assert "both labels are needed" in single
    odd = make_features(tmp_path / "odd", videos=12)
    for file in odd.parent.glob("*.npy"):
        np.save(file, np.load(file)[:, :7])
    said = refused(Places(odd, out), recipe_of())
    assert "no head for features of 7 numbers: width (7) must be a multiple of 8" in said
    assert not out.exists()


def rows_of(manifest: Path) -> tuple[Row, ...]:
    return load_manifest(manifest).rows


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"colour": "red"}, "colour: Extra inputs"),
        ({"objective": {"k": 2, "colour": 1}}, "unknown key 'colour'"),
        ({"objective": {"k": 99}}, "k must be at most context"),
        ({"windows": "segments"}, "needs windows: contiguous"),
        ({"scaling": {"kind": "meta", "value": 2.5}}, "between 0 and limit"),
        ({"half_life_windows": None, "released": True, "context": 20}, "context of 32 or 64"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(
    changes: dict[str, object], said: str, tmp_path: Path
) -> None:
    path = write_recipe(tmp_path / "recipe.yaml", **changes)
    with pytest.raises(TrainingError, match=said) as caught:
        load_mil_recipe(str(path))
    assert "\n" not in str(caught.value)


def test_a_recipe_that_is_not_there_is_refused_with_the_names_that_are() -> None:
    with pytest.raises(TrainingError, match="neither a file nor one of rtfm, tevad"):
        load_mil_recipe("gone")


def test_a_checkpoint_of_another_head_is_refused(manifest: Path, tmp_path: Path) -> None:
    train_head(Places(manifest, tmp_path), recipe_of(steps=5))
    path = tmp_path / HEAD_FILE
    described = json.loads(path.read_text())
    described["head"]["feature_dim"] = 16
    path.write_text(json.dumps(described))
    with pytest.raises(TrainingError, match="is of another head"):
        load_head(tmp_path)
    described["fingerprint"] = "else"
    path.write_text(json.dumps(described))
    with pytest.raises(TrainingError, match="is of another run"):
        load_head(tmp_path)
    (tmp_path / HEAD_WEIGHTS).write_bytes(b"spoiled")
    with pytest.raises(TrainingError, match="cannot be read"):
        load_head(tmp_path)
    path.unlink()
    with pytest.raises(TrainingError, match="folder of a finished run"):
        load_head(tmp_path)
