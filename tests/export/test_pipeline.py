"""Extract, train, export, verify on footage made here: the way that makes every bundle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from export.cli import main as export
from export.verify import STEPS, TOLERANCE, feature_streams, moving_windows
from server.bundle import Bundle, load_bundle
from server.engine.onnxruntime import EngineOptions, OnnxDetector
from tests.support.footage import make_footage, write_recipe
from training.checkpoint import WEIGHTS, load_checkpoint
from training.cli import main as train
from training.head import HeadStep

pytestmark = pytest.mark.long


class Made:
    """What one run left: its folders."""

    def __init__(self, folder: Path) -> None:
        self.windows = folder / "windows"
        self.run = folder / "run"
        self.bundle = folder / "bundle"
        self.recipe = write_recipe(folder / "recipe.yaml")

    def train(self, out: Path, workers: int) -> int:
        arguments = ["train", "--windows", str(self.windows), "--out", str(out)]
        return train([*arguments, "--recipe", str(self.recipe), "--workers", str(workers)])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("pipeline")
    data = make_footage(folder / "data")
    made = Made(folder)
    assert train(["render", str(data), "--out", str(made.windows)]) == 0
    assert made.train(made.run, 1) == 0
    assert export(["bundle", "--checkpoint", str(made.run), "--out", str(made.bundle)]) == 0
    return made


@pytest.fixture(scope="module")
def bundle(made: Made) -> Bundle:
    return load_bundle(made.bundle)


def test_the_bundle_verifies_against_its_checkpoint(
    made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["verify", str(made.bundle), "--checkpoint", str(made.run), "--json"]
    assert export(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["feature_error"] <= TOLERANCE
    assert found["score_error"] <= TOLERANCE
    assert found["bundle_id"] == load_bundle(made.bundle).bundle_id


def test_a_thousand_steps_of_state_equal_torch_in_double(made: Made, bundle: Bundle) -> None:
    """Against fp64, so that the error of the graph is not hidden by the same one in torch."""
    engine = OnnxDetector(bundle, EngineOptions(threads=1))
    streams = feature_streams(engine.encode(moving_windows(bundle)))
    head = load_checkpoint(made.run).detector.head.double()
    step = HeadStep(head)
    state = engine.zero_state()
    state = {name: np.repeat(zero, streams.shape[1], axis=0) for name, zero in state.items()}
    exact = [torch.from_numpy(state[name]).double() for name in head.spec.states]
    worst = 0.0
    assert len(streams) == STEPS == 1000
    with torch.inference_mode():
        for feature in streams:
            found = engine.step(np.ascontiguousarray(feature), state)
            scores, state = found.scores, found.state
            expected, *exact = step(torch.from_numpy(feature).double(), *exact)
            worst = max(worst, float(np.abs(expected.numpy() - scores).max()))
    assert worst <= TOLERANCE


def test_a_stream_scores_alike_alone_and_among_others(bundle: Bundle) -> None:
    engine = OnnxDetector(bundle, EngineOptions(threads=1))
    windows = moving_windows(bundle)
    alone = np.concatenate([engine.encode(window[None]) for window in windows])
    np.testing.assert_allclose(alone, engine.encode(windows), rtol=0, atol=1e-5)


def test_the_manifest_says_what_was_trained_on(made: Made, bundle: Bundle) -> None:
    index = json.loads((made.windows / "windows.json").read_text())
    training = bundle.manifest.training
    assert training.clips == sorted({clip["sha256"] for clip in index["clips"]})
    assert training.seeds == [300, 301, 399]
    assert 0 <= training.metrics["oof_head_frame_auc"] <= 1
    assert "out-of-fold" in bundle.manifest.threshold.chosen


@pytest.mark.long
def test_the_same_commands_make_the_same_bundle(made: Made, tmp_path: Path) -> None:
    """Also with other workers: nothing but data, recipe and code decides the outcome."""
    assert made.train(tmp_path / "run", 2) == 0
    for name in (WEIGHTS, "metrics.json", "checkpoint.json"):
        assert (tmp_path / "run" / name).read_bytes() == (made.run / name).read_bytes()
    again = tmp_path / "again"
    assert export(["bundle", "--checkpoint", str(tmp_path / "run"), "--out", str(again)]) == 0
    assert load_bundle(again).bundle_id == load_bundle(made.bundle).bundle_id


def test_a_run_goes_on_where_it_stopped(made: Made, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(made.run, run)
    (run / "fold-0.json").unlink()
    kept = (run / "fold-1.json").stat().st_mtime_ns, (run / WEIGHTS).stat().st_mtime_ns
    assert made.train(run, 1) == 0
    assert (run / "fold-0.json").read_bytes() == (made.run / "fold-0.json").read_bytes()
    assert kept == ((run / "fold-1.json").stat().st_mtime_ns, (run / WEIGHTS).stat().st_mtime_ns)


def test_no_fold_judges_a_source_that_it_saw(made: Made) -> None:
    """Held-out clips of the folds are disjoint in source, and all clips are judged once."""
    sources = []
    for fold in range(2):
        content = json.loads((made.run / f"fold-{fold}.json").read_text())
        sources.append({clip["clip"][-5] for clip in content["clips"]})
    assert not sources[0] & sources[1]
    assert sources[0] | sources[1] == set("0123")


@pytest.mark.parametrize("name", ["encoder.onnx", "head.onnx"])
def test_a_changed_byte_is_found(
    made: Made, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(made.bundle, copy)
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    assert export(["verify", str(copy)]) == 2
    assert "does not match its manifest" in capsys.readouterr().err


def test_a_bundle_of_another_checkpoint_is_found(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "run"
    shutil.copytree(made.run, other)
    checkpoint = load_checkpoint(other)
    with torch.no_grad():
        checkpoint.detector.head.direct.bias += 0.1
    checkpoint.detector.save(other / WEIGHTS, "other")
    assert export(["verify", str(made.bundle), "--checkpoint", str(other)]) == 2
    assert "scores against the checkpoint differ" in capsys.readouterr().err


@pytest.mark.long
def test_nothing_is_left_where_something_else_stands(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "note.txt").write_text("mine")
    assert export(["bundle", "--checkpoint", str(made.run), "--out", str(taken)]) == 2
    assert "is no bundle" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
    assert [path.name for path in taken.iterdir()] == ["note.txt"]


def test_a_folder_without_checkpoint_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["bundle", "--checkpoint", str(tmp_path), "--out", str(tmp_path / "out")]
    assert export(arguments) == 2
    assert "holds no checkpoint.json" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_without_bundle_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(["verify", str(tmp_path)]) == 2
    assert "is not a bundle" in capsys.readouterr().err
