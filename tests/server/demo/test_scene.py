"""The rendered scene: calm, then an event, then calm; the same for the same seed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import av
import numpy as np
import pytest

from server.contract import WindowSpec
from server.demo.scene import FPS, SceneTruth, render_scene, scene_truth
from server.ingest.video import file_windows
from server.preprocess import PreprocessSpec

SECONDS = 10.0
WINDOW = WindowSpec(sampled_frames=16, fps=10.0)
SMALL = PreprocessSpec(112, 112, "squash", "bilinear", "bt601", "declared")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SceneTruth]:
    path = tmp_path_factory.mktemp("scene") / "scene.mp4"
    return path, render_scene(path, SECONDS, seed=7)


def motion(path: Path) -> list[tuple[float, float, float]]:
    """Start, end and 99.5th percentile of the frame difference of every window."""
    rows = []
    for window in file_windows(path, WINDOW, SMALL):
        grey = window.images.astype(np.float32).mean(axis=3)
        strongest = float(np.percentile(np.abs(np.diff(grey, axis=0)), 99.5))
        rows.append((window.start_pts_seconds, window.end_pts_seconds, strongest))
    return rows


def test_the_clip_has_the_length_and_size_it_promises(scene: tuple[Path, SceneTruth]) -> None:
    with av.open(str(scene[0])) as container:
        stream = container.streams.video[0]
        shapes = [(frame.height, frame.width) for frame in container.decode(stream)]
    assert shapes == [(360, 640)] * round(SECONDS * FPS)
    assert stream.average_rate == FPS


def test_the_event_moves_far_more_than_the_walking(scene: tuple[Path, SceneTruth]) -> None:
    path, truth = scene
    start, end = truth.event_start_seconds, truth.event_end_seconds
    rows = motion(path)
    calm = [strongest for first, last, strongest in rows if last < start or first > end + 1]
    event = [strongest for first, last, strongest in rows if first < end and last > start + 1]
    assert len(calm) >= 2
    assert max(event) > 2 * max(calm)
    assert min(calm) > 5  # people do walk


@pytest.mark.long
def test_the_same_seed_gives_the_same_bytes_and_another_does_not(
    scene: tuple[Path, SceneTruth], tmp_path: Path
) -> None:
    def digest(path: Path) -> str:
        with av.open(str(path)) as container:
            packets = b"".join(bytes(packet) for packet in container.demux(video=0))
        return hashlib.sha256(packets).hexdigest()

    parts: list[float] = []
    render_scene(tmp_path / "same.mp4", SECONDS, seed=7, progress=parts.append)
    assert parts == pytest.approx(np.linspace(0.1, 1.0, 10))
    render_scene(tmp_path / "other.mp4", SECONDS, seed=8)
    assert digest(tmp_path / "same.mp4") == digest(scene[0])
    assert digest(tmp_path / "other.mp4") != digest(scene[0])


@pytest.mark.parametrize("seconds", [10.0, 20.0, 30.0, 60.0, 120.0])
def test_the_event_lies_in_the_second_half_and_leaves_calm_behind(seconds: float) -> None:
    truth = scene_truth(seconds)
    assert truth.event_start_seconds == pytest.approx(0.45 * seconds)
    assert truth.event_end_seconds <= seconds - 1
    assert 4.5 <= truth.event_end_seconds - truth.event_start_seconds <= 15


@pytest.mark.parametrize("seconds", [0.0, 9.9, 121.0, float("nan")])
def test_a_length_that_cannot_be_rendered_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="a scene lasts 10 to 120 seconds"):
        scene_truth(seconds)
