"""Clips for measuring are a camera's: rate, key frames, order; and they are made once."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from server.bench.clips import render
from server.bench.footage import read_footage


def test_a_clip_is_as_a_camera_of_that_size_sends_it(tmp_path: Path) -> None:
    clip = render(tmp_path / "kept", (320, 240), 25, 5)
    footage = read_footage(clip)  # which refuses B-frames
    assert [n for n, unit in enumerate(footage.units) if unit.is_key] == [0, 50, 100]
    assert len(footage.units) == 125
    bits = 8 * sum(len(nal) for unit in footage.units for nal in unit.nals)
    assert 0.4e6 < bits / 5 < 0.7e6
    with av.open(str(clip)) as container:
        frames = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
    assert {frame.shape for frame in frames} == {(240, 320)}
    # People walk: a few places change a lot, from frame to frame, all the time.
    moved = [np.abs(b.astype(int) - a).max() for a, b in pairwise(frames)]
    assert min(moved) > 10


def test_a_clip_is_made_once_and_always_the_same(tmp_path: Path) -> None:
    first = render(tmp_path / "one", (160, 120), 5, 2)
    made_ns = first.stat().st_mtime_ns
    assert render(tmp_path / "one", (160, 120), 5, 2) == first
    assert first.stat().st_mtime_ns == made_ns
    other = render(tmp_path / "two", (160, 120), 5, 2)
    assert digest(other) == digest(first)
    assert render(tmp_path / "one", (160, 120), 5, 3) != first
    assert len(list((tmp_path / "one").iterdir())) == 2  # no scratch file is left


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("size", "fps", "seconds", "sentence"),
    [
        ((321, 240), 25, 2.0, r"size \(321x240\) must be even"),
        ((16, 16), 25, 2.0, r"size \(16x16\) must be even and 32x32 at least"),
        ((320, 240), 0, 2.0, "a clip of 2 s at 0 fps has no frame"),
        ((320, 240), 25, 0.0, "a clip of 0 s at 25 fps has no frame"),
        ((320, 240), 25, 500.0, "a scene lasts 10 to 120 seconds, not 500"),
    ],
)
def test_what_cannot_be_rendered_is_refused_before_anything_is_written(
    tmp_path: Path, size: tuple[int, int], fps: int, seconds: float, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        render(tmp_path / "kept", size, fps, seconds)
    assert not list(tmp_path.iterdir())
