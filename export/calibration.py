"""Real pictures to quantise by: windows taken evenly from a folder's clips."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from server.contract import Image, WindowSpec
from server.ingest.video import SourceError, file_windows
from server.preprocess import PreprocessSpec
from training.clips import TrainingError

WINDOWS = 96
"""As many are taken, a quarter of them to judge by: where cosines no longer changed."""

_ENDINGS = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mts"})
_HELD_OUT_EVERY = 4


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows (N, S, H, W, 3) uint8, cut and rendered as the server does.

    Attributes:
        calibration: to find ranges by.
        held_out: to judge by; of clips of their own where there are four clips.
    """

    calibration: Image
    held_out: Image


def calibration_windows(
    folder: Path,
    window: WindowSpec,
    preprocess: PreprocessSpec,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> Windows:
    """Take windows evenly: of many clips some, of each clip from its beginning to its end.

    Args:
        folder: of video files, at any depth.
        window: how they are cut.
        preprocess: how frames are rendered.
        tick: called after each clip with how many are done, and of how many.

    Raises:
        TrainingError: no clip can be read, or they hold too few windows.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _ENDINGS)
    paths = [paths[index] for index in _evenly(len(paths), WINDOWS)]
    each = -(-WINDOWS // max(1, len(paths)))
    clips: list[Image] = []
    for done, path in enumerate(paths, start=1):
        try:
            images = [one.images for one in file_windows(path, window, preprocess)]
        except SourceError:
            images = []  # what cannot be read is no loss here
        if images:
            clips.append(np.stack([images[index] for index in _evenly(len(images), each)]))
        tick(done, len(paths))
    if len(clips) < _HELD_OUT_EVERY:
        clips = [one[None] for clip in clips for one in clip]
    if len(clips) < _HELD_OUT_EVERY:
        raise TrainingError(
            f"--calibrate {folder} holds {len(clips)} windows of footage that can be read, "
            f"expected {WINDOWS} and at least {_HELD_OUT_EVERY}; give a folder of real clips"
        )
    held_out = clips[_HELD_OUT_EVERY - 1 :: _HELD_OUT_EVERY]
    others = [clip for index, clip in enumerate(clips, start=1) if index % _HELD_OUT_EVERY]
    return Windows(np.concatenate(others), np.concatenate(held_out))


def _evenly(count: int, wanted: int) -> list[int]:
    """At most `wanted` of 0..count - 1, in the middles of equal parts.

    >>> _evenly(10, 2), _evenly(2, 5)
    ([2, 7], [0, 1])
    """
    taken = min(count, wanted)
    return [(2 * index + 1) * count // (2 * taken) for index in range(taken)]
