"""Videos to features: the windows of service, kept, resumed, refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from server.bundle import DEFAULT_BUNDLE, load_bundle
from server.engine.onnxruntime import EngineOptions, OnnxDetector
from server.ingest.video import file_windows
from tests.support.clip_model import write_clip_model
from tests.support.clips import write_clip
from tests.support.footage import frames, make_footage
from tests.support.tiny_bundle import make_tiny_bundle
from training.bags import Contents, open_bags
from training.cli import main
from training.clip import load_clip
from training.clips import TrainingError
from training.crew import Crew
from training.draw import Contiguous, Drawer
from training.encoders import ClipEncoder, EncoderChoice
from training.features import ALONE, MANIFEST, Outcome, Work, extract
from training.manifest import Row, clip_rows, load_manifest
from training.mil_data import whole

DEFAULT = EncoderChoice(DEFAULT_BUNDLE)
# Ray leaves warnings of its own behind.
RAY = (pytest.mark.long, pytest.mark.timeout(240), pytest.mark.filterwarnings("ignore"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("footage")
    make_footage(folder, sources=2)
    write_clip(folder / "scenes" / "calm0.mp4", frames(0, 40, wild=False), fps=10)
    truth = json.loads((folder / "scenes" / "ground_truth.json").read_text())
    truth["calm0.mp4"]["frames"] = 40
    (folder / "scenes" / "ground_truth.json").write_text(json.dumps(truth))
    return folder


def extracted(data: Path, folder: Path, crops: bool = False, crew: Crew = ALONE) -> Outcome:
    return extract(clip_rows(data), data, Work(folder, DEFAULT, crops), crew)


def test_features_are_those_of_the_windows_that_the_server_cuts(data: Path, tmp_path: Path) -> None:
    manifest = load_manifest(extracted(data, tmp_path).manifest)
    bundle = load_bundle(DEFAULT_BUNDLE)
    engine = OnnxDetector(bundle, EngineOptions(threads=1))
    spec = bundle.manifest
    for row in manifest.rows:
        windows = list(file_windows(data / row.id, spec.window, spec.preprocess))
        expected = engine.encode(np.stack([window.images for window in windows]))
        assert row.features is not None
        assert row.spans is not None
        np.testing.assert_array_equal(np.load(manifest.file(row.features)), expected)
        spans = [[window.first_frame, window.end_frame] for window in windows]
        assert np.load(manifest.file(row.spans)).tolist() == spans
        assert row.encoder == spec.encoder_id()
        assert (manifest.file(str(row.video))).resolve() == (data / row.id).resolve()
    assert [row.frames for row in manifest.rows] == [40, 20, 20, 20]
    assert [row.group for row in manifest.rows] == [f"scenes/camera{n}" for n in (0, 1, 0, 1)]


@pytest.mark.parametrize("ray", [False, pytest.param(True, marks=RAY)])
def test_whoever_extracts_changes_nothing(data: Path, tmp_path: Path, ray: bool) -> None:
    one = extracted(data, tmp_path / "1")
    two = extracted(data, tmp_path / "2", crew=Crew(2, ray))
    assert one.manifest.read_bytes() == two.manifest.read_bytes()
    for file in (tmp_path / "1" / "features").iterdir():
        assert file.read_bytes() == (tmp_path / "2" / "features" / file.name).read_bytes()


def test_what_is_there_is_kept(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = extracted(data, tmp_path).manifest.read_bytes()
    lost, *kept = sorted((tmp_path / "features").glob("*[0-9a-f].npy"))
    lost.unlink()
    times = {file: file.stat().st_mtime_ns for file in kept}
    assert extracted(data, tmp_path).manifest.read_bytes() == first
    assert lost.exists()
    assert times == {file: file.stat().st_mtime_ns for file in kept}


def test_a_video_that_cannot_be_read_is_skipped_with_its_reason(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    (copy / "scenes" / "calm1.mp4").write_bytes(b"no video")
    (copy / "scenes" / "wild0.mp4").unlink()
    out = tmp_path / "out"
    arguments = ["extract", str(copy), "--encoder", str(DEFAULT_BUNDLE), "--out", str(out)]
    assert main([*arguments, "--workers", "1"]) == 0
    told = capsys.readouterr()
    assert "2 of 4 videos" in told.out
    assert "skipped scenes/calm1.mp4: " in told.err
    reasons = json.loads((out / "skipped.json").read_text())
    assert reasons.keys() == {"scenes/calm1.mp4", "scenes/wild0.mp4"}
    assert "cannot be read (No such file" in reasons["scenes/wild0.mp4"]
    assert [row.id for row in load_manifest(out / MANIFEST).rows] == [
        "scenes/calm0.mp4",
        "scenes/wild1.mp4",
    ]


def test_truth_beyond_a_video_s_end_is_a_reason(data: Path, tmp_path: Path) -> None:
    rows = [
        row.model_copy(update={"frames": None, "anomalous": ((0, 90),)})
        for row in clip_rows(data)
        if row.label == "anomalous"
    ]
    with pytest.raises(TrainingError, match="has 20 frames, but its truth ends at frame 90"):
        extract(rows, data, Work(tmp_path, DEFAULT))


def test_a_short_video_is_a_reason(tmp_path: Path) -> None:
    write_clip(tmp_path / "short.mp4", frames(0, 5, wild=False), fps=10)
    row = Row(id="short", label="normal", group="g", video="short.mp4")
    with pytest.raises(TrainingError, match="has 5 frames, too few for a window of 16"):
        extract([row], tmp_path, Work(tmp_path / "out", DEFAULT))


def test_crops_only_train(data: Path, tmp_path: Path) -> None:
    plain = load_manifest(extracted(data, tmp_path / "plain").manifest)
    manifest = load_manifest(extracted(data, tmp_path / "crops", crops=True).manifest)
    bags = open_bags(manifest, manifest.rows, Contents())
    alone = open_bags(plain, plain.rows, Contents())
    for bag, single in zip(bags, alone, strict=True):
        assert bag.features.shape[1] == 11
        assert torch.equal(whole(bag)[0], whole(single)[0])
    assert len(np.unique(bags[0].features[0], axis=0)) > 5
    drawer = Drawer(bags, 0, Contiguous(bags, 2, 0))
    drawn = [drawer.draw(step, 2).visual for step in range(40)]
    assert {batch.shape[1] for batch in drawn} == {1}
    seen = {tuple(video[0, 0].tolist()) for batch in drawn for video in batch}
    known = {tuple(row.tolist()) for bag in bags for window in bag.features for row in window}
    assert seen <= known
    assert len(seen) > 2 * len(bags)


@pytest.mark.filterwarnings("ignore")
def test_a_tower_of_open_clip_encodes_frames(data: Path, tmp_path: Path) -> None:
    config, weights = write_clip_model(tmp_path)
    out = tmp_path / "out"
    arguments = ["--model", str(config), "--pretrained", str(weights), "--frames", "2"]
    assert main(["extract", str(data), *arguments, "--out", str(out), "--workers", "1"]) == 0
    manifest = load_manifest(out / MANIFEST)
    encoder = ClipEncoder(str(config), str(weights), 2)
    visual = load_clip(str(config), str(weights)).model.visual
    row = manifest.rows[0]
    [window, *_] = file_windows(data / row.id, encoder.window, encoder.preprocess)
    pixels = torch.from_numpy(window.images).permute(0, 3, 1, 2) / 255
    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in (visual.image_mean, visual.image_std))
    with torch.no_grad():
        seen = visual((pixels - mean) / deviation)
    expected = (seen / seen.norm(dim=1, keepdim=True)).mean(0)
    expected = 10 * expected / expected.norm()
    found = np.load(manifest.file(str(row.features)))
    np.testing.assert_allclose(found[0], expected, atol=1e-4)
    assert row.encoder == encoder.id
    assert row.encoder != ClipEncoder(str(config), str(weights), 1).id


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--model", "ViT-L-14"], "give --encoder BUNDLE, or --model NAME and --pretrained"),
        (["--encoder", "nowhere"], "nowhere is not a bundle"),
        (["--encoder", "B", "--workers", "0"], r"--workers (0) must be 1 to 64"),
        (["--encoder", "B", "--frames", "17"], r"--frames (17) must be 1 to 16"),
        (["--encoder", "B", "--test-share", "1"], "--test-share (1.0) must be between 0 and 1"),
        (["--encoder", "B", "--seed", "-1"], "--seed (-1) must be 0 or more"),
    ],
)
def test_mistakes_get_a_sentence(
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    expected: str,
) -> None:
    assert main(["extract", str(data), "--out", str(tmp_path / "out"), *arguments]) == 2
    told = capsys.readouterr().err
    assert expected in told
    assert told.count("\n") == 1


def test_features_of_two_encoders_never_mix(data: Path, tmp_path: Path) -> None:
    tiny = make_tiny_bundle(tmp_path / "tiny").directory
    one = extracted(data, tmp_path / "a")
    other = extract(clip_rows(data), data, Work(tmp_path / "b", EncoderChoice(tiny)))
    first, second = (load_manifest(outcome.manifest).rows[0].encoder for outcome in (one, other))
    assert first != second
