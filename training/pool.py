"""The window pool: every window that a run trains on or is judged by, as motion.

Windows are cut from the clips at rest; their motion is measured once, since
the encoder's front end has no weights. Augmentation works on motion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from server.contract import WindowSpec
from training.clips import Clip, TrainingError
from training.encoder import Motion, motion
from training.extract import Extraction, StoredClip

Rows = npt.NDArray[np.int64]

LATE_STARTS_SECONDS = (0.0, 0.1, 0.2, 0.3, 0.4)
"""A clip short of two windows is also cut from later starts, longer ones from two."""

_LONG_SECONDS = 4.0
_LONG_LATE_STARTS_SECONDS = (0.0, 0.8)
_ENERGIES = (0, 1, 2, 3, 6, 7)
_FLOW_RIGHT, _FLOW_DOWN = 4, 5


@dataclass(frozen=True, slots=True)
class Pool:
    """N windows of many clips.

    Attributes:
        clips: those that hold a window.
        seen: motion of every window.
        clip: (N,) index into `clips`.
        start: (N,) late start; 0 is the window as served.
        first_frame: (N,) source frame of its first slot.
        anomalous: (N,) whether truth marks any frame of it.
    """

    clips: tuple[Clip, ...]
    seen: Motion
    clip: Rows
    start: Rows
    first_frame: Rows
    anomalous: npt.NDArray[np.bool_]

    def runs(self, clip: int) -> list[Rows]:
        """Rows of a clip, in order, one array a late start; the first as served."""
        rows = np.flatnonzero(self.clip == clip)
        return [rows[self.start[rows] == start] for start in np.unique(self.start[rows])]

    def motion_of(self, rows: Rows) -> Motion:
        chosen = torch.from_numpy(rows)
        return Motion(self.seen.maps[chosen], self.seen.statistics[chosen])


def build_pool(
    extraction: Extraction,
    spec: WindowSpec,
    progress: Callable[[list[StoredClip]], Iterable[StoredClip]],
) -> Pool:
    """Cut and measure every window of the usable clips.

    Raises:
        TrainingError: no clip is long enough for a window.
    """
    clips: list[Clip] = []
    parts: list[Motion] = []
    table: list[tuple[int, int, int, bool]] = []
    for stored in progress(extraction.usable):
        frames = extraction.frames(stored)
        duration_seconds = frames.pts_seconds[-1] - frames.pts_seconds[0]
        late: tuple[float, ...] = LATE_STARTS_SECONDS
        if duration_seconds > _LONG_SECONDS:
            late = _LONG_LATE_STARTS_SECONDS
        before = len(table)
        for start, late_seconds in enumerate(late):
            for window in frames.windows(spec, late_seconds):
                anomalous = stored.clip.truth.overlaps(window.first_frame, window.end_frame)
                table.append((len(clips), start, window.first_frame, anomalous))
                parts.append(_measure(window.images))
        if len(table) > before:
            clips.append(stored.clip)
    if not table:
        raise TrainingError("no clip is long enough for a window of 16 frames; give longer clips")
    seen = Motion(torch.cat([p.maps for p in parts]), torch.cat([p.statistics for p in parts]))
    clip, start_of, first, labels = (np.array(column) for column in zip(*table, strict=True))
    return Pool(tuple(clips), seen, clip, start_of, first, labels)


def _measure(images: npt.NDArray[np.uint8]) -> Motion:
    with torch.inference_mode():
        return motion(torch.from_numpy(images)[None])


def augment(seen: Motion, rng: np.random.Generator) -> Motion:
    """Mirror, move, stretch and turn the picture a little, and change its contrast."""
    count = len(seen.maps)
    maps = seen.maps.clone()
    mirrored = torch.from_numpy(rng.random(count) < 0.5)
    maps[mirrored] = maps[mirrored].flip(4)
    maps[mirrored, :, _FLOW_RIGHT] *= -1
    contrast = torch.from_numpy(np.exp(rng.normal(0, 0.25, count)).astype(np.float32))
    maps[:, :, list(_ENERGIES)] *= contrast[:, None, None, None, None]
    grid = functional.affine_grid(
        _views(count, rng), [count, 1, *maps.shape[3:]], align_corners=False
    )
    moved = functional.grid_sample(maps.flatten(1, 2), grid, align_corners=False)
    return Motion(moved.view_as(maps), seen.statistics + torch.log(contrast)[:, None])


def _views(count: int, rng: np.random.Generator) -> Tensor:
    """(count, 2, 3) maps from the new picture's coordinates to the old one's."""
    size = rng.uniform(0.8, 1.2, count)
    stretch = np.exp(rng.uniform(-0.15, 0.15, count))
    turn = rng.normal(0, 0.06, count)
    views = np.empty((count, 2, 3), np.float32)
    views[:, 0, 0], views[:, 0, 1] = size * stretch * np.cos(turn), -size * np.sin(turn)
    views[:, 1, 0], views[:, 1, 1] = size * np.sin(turn), size / stretch * np.cos(turn)
    views[:, :, 2] = rng.uniform(-0.2, 0.2, (count, 2))
    return torch.from_numpy(views)
