"""What is measured of a video: one rate for all, the encoder's own windows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.bundle import DEFAULT_BUNDLE
from server.ingest.video import file_windows
from server.windows import SourceFrame
from tests.support.clip_model import write_clip_model
from tests.support.clips import write_clip
from tests.support.footage import frames
from training.clips import TrainingError
from training.encoders import BundleEncoder, ClipEncoder
from training.filter.footage import Sampling, measure, resampled


def timed(intervals: list[float]) -> list[SourceFrame[object]]:
    times = np.cumsum([5.0, *intervals])
    return [SourceFrame(object(), n, float(t), 0.0, 0.0) for n, t in enumerate(times)]


@given(st.lists(st.floats(0.01, 0.7), min_size=1, max_size=40), st.sampled_from([4.0, 8.0, 10.0]))
def test_each_multiple_of_the_interval_takes_the_frame_that_is_shown_then(
    intervals: list[float], fps: float
) -> None:
    source = timed(intervals)
    found = list(resampled(source, fps))  # type: ignore[arg-type]
    times = np.array([frame.pts_seconds for frame in source])
    for place, frame in enumerate(found):
        now = 5.0 + place / fps
        shown = int(np.searchsorted(times, now + 1e-3, side="right")) - 1
        assert abs(frame.index - shown) <= (abs(times - now).min() < 2e-3)
    lasts = times[-1] + float(np.median(intervals)) - 5.0
    assert len(found) == pytest.approx(lasts * fps, abs=1.01)


def test_twice_the_frame_rate_is_not_half_the_motion(tmp_path: Path) -> None:
    encoder = BundleEncoder(DEFAULT_BUNDLE)
    images = frames(1, 40, wild=True)
    slow = write_clip(tmp_path / "slow.mp4", images, fps=8)
    twice = [image for image in images for _ in range(2)]
    fast = write_clip(tmp_path / "fast.mp4", twice, fps=16)
    found = [measure(path, encoder, Sampling()).motion for path in (slow, fast)]
    assert found[0] == pytest.approx(found[1], rel=0.05)


def test_motion_is_the_mean_difference_of_grey_values(tmp_path: Path) -> None:
    grey = [np.full((64, 64, 3), 100 + 20 * (n % 2), np.uint8) for n in range(40)]
    clip = write_clip(tmp_path / "blinks.mp4", grey, fps=10)
    found = measure(clip, BundleEncoder(DEFAULT_BUNDLE), Sampling())
    assert found.motion == pytest.approx(20 / 255, abs=1.5 / 255)


def test_a_bundle_s_encoder_sees_its_own_windows_every_four_frames(tmp_path: Path) -> None:
    encoder = BundleEncoder(DEFAULT_BUNDLE)
    clip = write_clip(tmp_path / "clip.mp4", frames(2, 48, wild=True), fps=10)
    served = [window.images for window in file_windows(clip, encoder.window, encoder.preprocess)]
    expected = encoder.encode(np.stack(served))
    found = measure(clip, encoder, Sampling()).features
    assert len(found) == (48 - 16) // 4 + 1
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(found[::4], expected, atol=1e-6)


def test_an_encoder_of_single_frames_sees_every_resampled_one(tmp_path: Path) -> None:
    model, weights = write_clip_model(tmp_path)
    clip = write_clip(tmp_path / "clip.mp4", frames(2, 20, wild=False), fps=10)
    found = measure(clip, ClipEncoder(str(model), str(weights), 1), Sampling(fps=5)).features
    assert len(found) == 10
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_of_a_long_video_the_beginning_is_looked_at(tmp_path: Path) -> None:
    encoder = BundleEncoder(DEFAULT_BUNDLE)
    start, end = frames(1, 40, wild=False), frames(1, 40, wild=True)
    whole = write_clip(tmp_path / "whole.mp4", [*start, *end], fps=10)
    part = write_clip(tmp_path / "part.mp4", start, fps=10)
    found = [measure(path, encoder, Sampling(seconds=4)) for path in (whole, part)]
    assert found[0].motion == pytest.approx(found[1].motion, rel=0.2)
    assert len(found[0].features) == len(found[1].features)


def test_a_video_shorter_than_a_window_is_told(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "short.mp4", frames(2, 10, wild=False), fps=10)
    with pytest.raises(TrainingError, match="has 10 frames at 10 Hz; at least 16 are needed"):
        measure(clip, BundleEncoder(DEFAULT_BUNDLE), Sampling())


@pytest.mark.parametrize(("fps", "seconds"), [(0.1, 30), (100, 30), (8, 0.5), (8, 1e6)])
def test_a_sampling_beyond_reason_is_refused(fps: float, seconds: float) -> None:
    with pytest.raises(TrainingError, match=r"--(fps|seconds) \(.+\) must be"):
        Sampling(fps, seconds)
