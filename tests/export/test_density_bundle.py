"""A density from clips to a served bundle: what it finds, and that a head may keep no memory."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from export.cli import main as export
from export.verify import TOLERANCE, moving_windows
from server.alerts import AlertPolicy
from server.bundle import load_bundle
from server.engine.onnxruntime import EngineOptions, OnnxDetector
from server.replay import replay
from tests.support.clips import write_clip
from tests.support.footage import FPS, HEIGHT, WIDTH, frames
from training.cli import main as train
from training.motion_cells import CHANNELS, CellEncoder, CellSpec

pytestmark = pytest.mark.long

SPEC = CellSpec(HEIGHT, WIDTH, cell=16, stride=8)
LENGTH = 48


@dataclass
class Made:
    """Clips of one scene, the encoder's bundle, and the run and bundle of each recipe."""

    calm: list[Path]
    wild: Path
    encoder: Path
    run: Path
    bundle: Path
    smooth: Path
    smooth_bundle: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("density")
    data = folder / "data"
    data.mkdir()
    truth = {"frames": LENGTH, "fps": FPS, "anomalous": []}
    names = [f"calm{number}.mp4" for number in range(8)]
    for number, name in enumerate(names):
        write_clip(data / name, walk(number), fps=FPS)
    content = {name: truth | {"split": "testing" if name > "calm5" else None} for name in names}
    (data / "ground_truth.json").write_text(json.dumps(content))
    wild = write_clip(folder / "wild.mp4", frames(0, LENGTH, wild=True), fps=FPS)
    sizes = [f"--{name}={getattr(SPEC, name)}" for name in ("height", "width", "cell", "stride")]
    found = Made(
        [data / name for name in names[6:]],
        wild,
        folder / "encoder",
        *(folder / name for name in ("run", "bundle", "smooth", "smooth-bundle")),
    )
    arguments = ["encoder", *sizes, "--out", str(found.encoder)]
    assert export(arguments) == 0
    encoder = ["--encoder", str(found.encoder)]
    assert train(["extract", str(data), *encoder, "--out", str(folder / "features")]) == 0
    for out, bundle, half_life in (
        (found.run, found.bundle, None),
        (found.smooth, found.smooth_bundle, 2.0),
    ):
        fit(folder / "features" / "manifest.jsonl", out, half_life)
        assert export(["bundle", "--head", str(out), *encoder, "--out", str(bundle)]) == 0
    return found


def walk(start: int) -> list[np.ndarray]:
    """One scene: its square walks on from another place in every clip."""
    return frames(0, LENGTH + 6 * start, wild=False)[6 * start :]


def fit(manifest: Path, out: Path, half_life: float | None) -> None:
    recipe = out.with_suffix(".yaml")
    content = {"detector": "density", "name": "walkway", "cells": SPEC.cells, "top": 2}
    recipe.write_text(yaml.safe_dump(content | {"half_life_windows": half_life}))
    arguments = ["--manifest", str(manifest), "--recipe", str(recipe), "--out", str(out)]
    assert train(["train", *arguments]) == 0


def served(bundle: Path, clips: list[Path]) -> list[tuple[float, ...]]:
    found = load_bundle(bundle)
    policy = AlertPolicy(found.manifest.threshold.value, 0.01, 0.0)
    engine = OnnxDetector(found, EngineOptions(threads=1))
    return [clip.scores for clip in replay(clips, found, engine, policy)]


@pytest.mark.parametrize("name", ["bundle", "smooth_bundle"])
def test_the_server_scores_an_odd_clip_over_normal_ones_that_it_never_saw(
    made: Made, name: str
) -> None:
    *calm, wild = served(getattr(made, name), [*made.calm, made.wild])
    assert len(wild) == LENGTH // 16
    assert min(wild) > 0.5
    assert max(score for scores in calm for score in scores) < min(wild)


def test_a_density_without_smoothing_keeps_no_memory(made: Made) -> None:
    head = load_bundle(made.bundle).manifest.head
    assert (head.name, head.half_life_windows, head.states) == ("density", None, {})
    smooth = load_bundle(made.smooth_bundle).manifest.head
    assert (smooth.half_life_windows, list(smooth.states)) == (2.0, ["sum", "count"])
    forwards = served(made.bundle, [made.wild])[0]
    engine = OnnxDetector(load_bundle(made.bundle), EngineOptions(threads=1))
    assert engine.zero_state() == {}
    assert len(set(forwards)) > 1


@pytest.mark.parametrize("name", ["bundle", "smooth_bundle"])
def test_the_bundle_verifies_against_its_run(
    made: Made, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = made.run if name == "bundle" else made.smooth
    assert export(["verify", str(getattr(made, name)), "--head", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["score_error"] <= TOLERANCE


def test_another_run_does_not_verify(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(["verify", str(made.bundle), "--head", str(made.smooth)]) == 2
    assert "scores against the checkpoint differ by" in capsys.readouterr().err


def test_the_encoder_computes_in_onnx_what_it_does_in_torch(made: Made) -> None:
    bundle = load_bundle(made.encoder)
    windows = moving_windows(bundle)
    found = OnnxDetector(bundle, EngineOptions(threads=1)).encode(windows)
    expected = CellEncoder(SPEC)(torch.from_numpy(windows)).numpy()
    assert found.shape == (8, SPEC.cells * CHANNELS)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_encoder_s_own_bundle_scores_how_much_moves(made: Made) -> None:
    calm, wild = served(made.encoder, [made.calm[0], made.wild])
    assert max(calm) < min(wild)
    manifest = load_bundle(made.encoder).manifest
    assert manifest.training.clips == []
    assert manifest.encoder_id() == load_bundle(made.bundle).manifest.encoder_id()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--cell", "10"], "--cell (10) must be a multiple of 4"),
        (["--height", "16", "--cell", "24"], "--cell (24) must fit into the image (16x360)"),
        (["--stride", "4"], "at most 65536"),
    ],
)
def test_a_grid_that_does_not_fit_is_refused(
    tmp_path: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "never"
    assert export(["encoder", *arguments, "--out", str(out)]) == 2
    assert said in capsys.readouterr().err
    assert not out.exists()
