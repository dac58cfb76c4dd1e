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
from training.encoder import motion, tail
from training.render import Extraction, StoredClip

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
        maps: (N, 15, 8, h, w) motion of every window.
        tail: (N,) the one-number baseline of every window.
        clip: (N,) index into `clips`.
        start: (N,) late start; 0 is the window as served.
        first_frame: (N,) source frame of its first slot.
        anomalous: (N,) whether truth marks any frame of it.
    """

    clips: tuple[Clip, ...]
    maps: Tensor
    tail: npt.NDArray[np.float64]
    clip: Rows
    start: Rows
    first_frame: Rows
    anomalous: npt.NDArray[np.bool_]

    def runs(self, clip: int) -> list[Rows]:
        """Rows of a clip, in order, one array a late start; the first as served."""
        rows = np.flatnonzero(self.clip == clip)
        return [rows[self.start[rows] == start] for start in np.unique(self.start[rows])]

    @property
    def cameras(self) -> Rows:
        """(N,) The source of each window, counted from 0."""
        sources = {source: n for n, source in enumerate(sorted({c.source for c in self.clips}))}
        return np.array([sources[clip.source] for clip in self.clips])[self.clip]

    def maps_of(self, rows: Rows) -> Tensor:
        return self.maps[torch.from_numpy(rows)]


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
    maps: list[Tensor] = []
    tails: list[float] = []
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
                images = torch.from_numpy(window.images)[None]
                maps.append(motion(images))
                tails.append(float(tail(images)))
        if len(table) > before:
            clips.append(stored.clip)
    if not table:
        raise TrainingError("no clip is long enough for a window of 16 frames; give longer clips")
    clip, start_of, first, labels = (np.array(column) for column in zip(*table, strict=True))
    return Pool(tuple(clips), torch.cat(maps), np.array(tails), clip, start_of, first, labels)


def augment(
    maps: Tensor, rng: np.random.Generator, contrast: float, cameras: Rows | None = None
) -> Tensor:
    """Mirror, move, stretch and turn the picture, and change its contrast.

    Args:
        maps: (N, 15, 8, h, w).
        rng: of every random choice.
        contrast: standard deviation of the logarithm of the contrast's factor.
            A wide one takes the camera's level of motion away as a clue.
        cameras: (N,) whose windows are changed alike, counted from 0; None for
            a change of its own each.
    """
    cameras = np.arange(len(maps)) if cameras is None else cameras
    count = int(cameras.max()) + 1
    mirrored = torch.from_numpy((rng.random(count) < 0.5)[cameras])
    factors = np.exp(rng.normal(0, contrast, count)).astype(np.float32)[cameras]
    views = torch.from_numpy(_views(count, rng)[cameras])
    maps = maps.clone()
    maps[mirrored] = maps[mirrored].flip(4)
    maps[mirrored, :, _FLOW_RIGHT] *= -1
    maps[:, :, list(_ENERGIES)] *= torch.from_numpy(factors)[:, None, None, None, None]
    grid = functional.affine_grid(views, [len(maps), 1, *maps.shape[3:]], align_corners=False)
    moved = functional.grid_sample(maps.flatten(1, 2), grid, align_corners=False)
    return moved.view_as(maps)


def _views(count: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """(count, 2, 3) maps from the new picture's coordinates to the old one's."""
    size = rng.uniform(0.8, 1.2, count)
    stretch = np.exp(rng.uniform(-0.15, 0.15, count))
    turn = rng.normal(0, 0.06, count)
    views = np.empty((count, 2, 3), np.float32)
    views[:, 0, 0], views[:, 0, 1] = size * stretch * np.cos(turn), -size * np.sin(turn)
    views[:, 1, 0], views[:, 1, 1] = size * np.sin(turn), size / stretch * np.cos(turn)
    views[:, :, 2] = rng.uniform(-0.2, 0.2, (count, 2))
    return views
