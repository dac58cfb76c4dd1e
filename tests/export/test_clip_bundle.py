"""A tower of CLIP to a served bundle: extract, train, export, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
import yaml

from export.cli import main as export
from export.flops import graph_flops
from server.bundle import load_bundle
from server.engine.onnxruntime import EngineOptions, OnnxDetector
from server.ingest.video import file_windows
from tests.support.clip_model import CONTENT, TWO_LAYERS, write_clip_model
from tests.support.disk import largest_file
from tests.support.footage import make_footage
from training.cli import main as train
from training.encoders import CLIP_FEATURE_SCALE, ClipEncoder
from training.head_run import HEAD_FILE, HEAD_WEIGHTS
from training.manifest import load_manifest

FRAMES = 2


@dataclass
class Made:
    """A model, footage, its features, and a head on them."""

    data: Path
    model: Path
    weights: Path
    features: Path
    run: Path

    @property
    def arguments(self) -> list[str]:
        encoder = ["--encoder", str(self.model), "--pretrained", str(self.weights)]
        return ["bundle", *encoder, "--frames", str(FRAMES), "--head", str(self.run)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("clip")
    data = make_footage(folder / "data", sources=4)
    model, weights = write_clip_model(folder)
    found = Made(data, model, weights, folder / "features", folder / "run")
    arguments = ["--model", str(model), "--pretrained", str(weights), "--frames", str(FRAMES)]
    arguments += ["--out", str(found.features), "--workers", "1"]
    assert train(["extract", str(data), *arguments]) == 0
    recipe = folder / "recipe.yaml"
    built_in = yaml.safe_load(Path("training/recipes/lap-causal.yaml").read_text())
    few = {"steps": 4, "each": 2, "hidden": [8], "validate_every": 2, "validation_share": 0.3}
    recipe.write_text(yaml.safe_dump(built_in | few | {"held_out_share": 0.3}))
    manifest = ["--manifest", str(found.features / "manifest.jsonl"), "--recipe", str(recipe)]
    assert train(["train", *manifest, "--out", str(found.run)]) == 0
    return found


@pytest.fixture(scope="module")
def bundle(made: Made) -> Path:
    out = made.data.parent / "bundle"
    assert export([*made.arguments, "--out", str(out)]) == 0
    return out


def served(made: Made, bundle: Path, video: str) -> np.ndarray:
    """What the server would make of a video."""
    found = load_bundle(bundle)
    windows = file_windows(made.data / video, found.manifest.window, found.manifest.preprocess)
    engine = OnnxDetector(found, EngineOptions(threads=1))
    return engine.encode(np.stack([one.images for one in windows]))


def reckoned(made: Made, bundle: Path, video: str) -> np.ndarray:
    """The same of a graph as it stands, also where the server's own engine refuses it."""
    found = load_bundle(bundle)
    windows = file_windows(made.data / video, found.manifest.window, found.manifest.preprocess)
    session = ort.InferenceSession(str(found.encoder_path), providers=["CPUExecutionProvider"])
    features: np.ndarray
    [features] = session.run(None, {"images": np.stack([one.images for one in windows])})
    return features


@pytest.mark.long
def test_the_bundle_makes_the_features_that_the_head_was_trained_on(
    made: Made, bundle: Path
) -> None:
    manifest = load_manifest(made.features / "manifest.jsonl")
    for row in manifest.rows[:3]:
        assert row.features is not None
        expected = np.load(manifest.file(row.features))
        np.testing.assert_allclose(served(made, bundle, row.id), expected, atol=1e-4)


def test_the_bundle_says_what_it_is_made_of(made: Made, bundle: Path) -> None:
    manifest = load_bundle(bundle).manifest
    encoder = manifest.encoder
    assert encoder.name.startswith("gvvad-tiny (")
    assert encoder.feature_scale == CLIP_FEATURE_SCALE
    assert (encoder.graph.file, encoder.graph.precision) == ("encoder.onnx", "fp32")
    assert (manifest.window.sampled_frames, manifest.window.fps) == (FRAMES, None)
    assert manifest.preprocess.view == "letterbox"
    run = json.loads((made.run / HEAD_FILE).read_text())
    assert manifest.training.clips == sorted(run["clips"])
    assert manifest.training.manifest_sha256 == run["fingerprint"]


def test_it_verifies_against_its_tower_in_torch(
    made: Made, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(bundle, tmp_path / "copy")
    model = ["--model", str(made.model), "--pretrained", str(made.weights)]
    assert export(["verify", str(copy), *model, "--backtest", str(made.data), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["compared"]
    assert found["reference"].startswith("torch")
    ran = found["engines"][0]
    assert all(one["mean_cosine"] > 0.9999 for one in ran["parity"])
    assert "real" in (copy / "verify.md").read_text()


@pytest.mark.long
@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning"
)  # torch's compiler uses what it deprecates
def test_it_is_measured_beside_its_tower_in_torch(
    made: Made, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ["--model", str(made.model), "--pretrained", str(made.weights)]
    few = ["--batch", "1", "--rounds", "1", "--seconds", "0.01", "--threads", "1"]
    assert export(["bench", str(bundle), *model, *few, "--json"]) == 0
    told = capsys.readouterr()
    names = [one["name"] for one in json.loads(told.out)["figures"]]
    assert names[:3] == ["bundle", "plain ONNX Runtime", "torch"]
    # Compiling needs a C++ compiler; where there is none it says so.
    assert names[3:] == ["torch, compiled"] or "left out torch, compiled" in told.err


def test_the_bundle_scores(bundle: Path) -> None:
    engine = OnnxDetector(load_bundle(bundle), EngineOptions(threads=1))
    engine.warm_up(3)
    images = np.full((3, FRAMES, 32, 32, 3), 200, np.uint8)
    state = {name: np.repeat(zero, 3, axis=0) for name, zero in engine.zero_state().items()}
    scores = engine.step(engine.encode(images), state).scores
    assert scores.shape == (3,)


@pytest.mark.long
@pytest.mark.parametrize(
    ("asked", "engine", "file", "precision"),
    [
        ("int8", "onnxruntime", "encoder.int8-cpu.onnx", "int8"),
        ("int8", "tensorrt", "encoder.int8-trt.onnx", "int8-symmetric"),
        ("fp8", "tensorrt", "encoder.fp8.onnx", "fp8"),
    ],
)
def test_eight_bits_are_found_by_footage_and_stay_near(
    made: Made,
    bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    asked: str,
    engine: str,
    file: str,
    precision: str,
) -> None:
    arguments = ["--precision", asked, "--engine", engine, "--calibrate", str(made.data)]
    out = tmp_path / "bundle"
    assert export([*made.arguments, *arguments, "--out", str(out)]) == 0
    graph = load_bundle(out).manifest.encoder.graph
    assert (graph.file, graph.precision) == (file, precision)
    assert graph_flops(out / file) == graph_flops(load_bundle(bundle).encoder_path)
    assert "multiplications in 8 bits, cosine 0.99" in capsys.readouterr().out
    video = load_manifest(made.features / "manifest.jsonl").rows[0].id
    one, two = reckoned(made, out, video), served(made, bundle, video)
    assert ((one * two).sum(1) / CLIP_FEATURE_SCALE**2).min() > 0.99
    assert {path.name for path in tmp_path.iterdir()} == {"bundle"}


@pytest.mark.long
def test_half_precision_scores_in_the_server(made: Made, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "half"
    assert export([*made.arguments, "--precision", "fp16", "--out", str(out)]) == 0
    graph = load_bundle(out).manifest.encoder.graph
    assert (graph.file, graph.precision) == ("encoder.fp16.onnx", "fp16")
    video = load_manifest(made.features / "manifest.jsonl").rows[0].id
    np.testing.assert_allclose(served(made, out, video), served(made, bundle, video), atol=0.05)


def refused(arguments: list[str], out: Path, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert export([*arguments, "--out", str(out / "never")]) == 2
    assert not list(out.glob("*never*"))
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("gvvad-export: ")
    return said


def test_a_head_of_other_features_is_refused(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one_frame = [*made.arguments, "--frames", "1"]
    assert "was trained on features of encoder" in refused(one_frame, tmp_path, capsys)
    other = write_clip_model(tmp_path, "gvvad-other", TWO_LAYERS)
    encoder = ["--encoder", str(other[0]), "--pretrained", str(other[1])]
    said = refused([*made.arguments, *encoder], tmp_path, capsys)
    assert "gvvad-other (" in said
    assert "give the encoder that the features were extracted with" in said


def test_a_head_of_another_width_is_refused(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As when a manifest was written by hand and names an encoder that it is not of."""
    content = json.loads((made.run / HEAD_FILE).read_text())
    wide = write_clip_model(tmp_path, "gvvad-wide", CONTENT | {"embed_dim": 24})
    content["encoder"] = ClipEncoder(str(wide[0]), str(wide[1]), 1).id
    run = tmp_path / "run"
    run.mkdir()
    (run / HEAD_FILE).write_text(json.dumps(content))
    (run / HEAD_WEIGHTS).write_bytes((made.run / HEAD_WEIGHTS).read_bytes())
    given = ["bundle", "--encoder", str(wide[0]), "--pretrained", str(wide[1]), "--head", str(run)]
    said = refused(given, tmp_path, capsys)
    assert "holds a head for features 16 wide, gvvad-wide (" in said
    assert "makes them 24 wide" in said


def test_weights_of_another_architecture_are_refused(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, other = write_clip_model(tmp_path, "gvvad-other", TWO_LAYERS)
    said = refused([*made.arguments, "--pretrained", str(other)], tmp_path, capsys)
    assert "gvvad-tiny cannot be loaded with" in said
    torch.save({"nothing": torch.zeros(1)}, tmp_path / "nothing.pt")
    given = [*made.arguments, "--pretrained", str(tmp_path / "nothing.pt")]
    assert "gvvad-tiny cannot be loaded with" in refused(given, tmp_path, capsys)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--precision", "bf16"], "--engine onnxruntime has no bf16; there are: onnxruntime fp32"),
        (["--precision", "fp8"], "--engine onnxruntime has no fp8; there are: onnxruntime fp32"),
        (["--precision", "int8"], "--precision int8 needs --calibrate CLIPS"),
        (["--engine", "tensorrt", "--precision", "fp8"], "--precision fp8 needs --calibrate CLIPS"),
        (["--calibrate", "clips"], "--calibrate goes with --precision int8 or fp8"),
        (["--min-cosine", "0.9"], "--min-cosine goes with --precision int8 or fp8"),
        (["--frames", "17"], "--frames (17) must be 1 to 16"),
        (["--encoder", "ViT-L-41"], "'ViT-L-41' is no model of open_clip; did you mean ViT-L-1"),
        (["--pretrained", "openia"], "'openia' is neither a file nor a tag of gvvad-tiny"),
    ],
)
def test_mistakes_get_a_sentence(
    made: Made,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    expected: str,
) -> None:
    assert expected in refused([*made.arguments, *arguments], tmp_path, capsys)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--encoder", "B", "--engine", "tensorrt"], "--engine goes with --encoder MODEL"),
        (["--encoder", "B", "--frames", "2"], "a bundle's encoder is taken as it is"),
        (["--encoder", "ViT-L-14"], "--encoder ViT-L-14 is no folder; give a bundle's, or with"),
    ],
)
def test_what_a_tower_needs_means_nothing_to_a_bundle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    assert expected in refused(["bundle", "--head", "R", *arguments], tmp_path, capsys)


@pytest.mark.long
def test_a_disk_that_fills_leaves_nothing(
    made: Made, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with largest_file(load_bundle(bundle).encoder_path.stat().st_size - 1):
        said = refused(made.arguments, tmp_path, capsys)
    assert "File too large" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_a_disk_that_fills_leaves_the_older_bundle(
    made: Made, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = load_bundle(bundle)
    with largest_file(before.encoder_path.stat().st_size // 2):
        assert export([*made.arguments, "--out", str(bundle)]) == 2
    assert "File too large" in capsys.readouterr().err
    assert load_bundle(bundle).bundle_id == before.bundle_id
    assert not list(bundle.parent.glob(".*"))
