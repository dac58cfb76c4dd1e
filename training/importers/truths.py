"""Which frames of a video are anomalous, held against what else is known of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from server.contract import WINDOW_FRAMES
from training.clips import TrainingError
from training.importers.names import Name

Intervals = tuple[tuple[int, int], ...]

SLACK_WINDOWS = 2
"""Published features drop the frames that fill no window, some the last window too."""


@dataclass(frozen=True, slots=True)
class Truth:
    """Anomalous frames of one video.

    Attributes:
        where: file and line, for messages.
        intervals: half-open, 0-based, ascending.
        frames: of the video, where the annotation knows.
    """

    where: str
    intervals: Intervals = ()
    frames: int | None = None


def ordered(where: str, pairs: Iterable[tuple[int, int]]) -> Intervals:
    """Half-open intervals in ascending order.

    Raises:
        TrainingError: an interval that is empty or begins below 0, or two that overlap.
    """
    intervals = tuple(sorted(pairs))
    last_end = 0
    for start, end in intervals:
        if not 0 <= start < end:
            raise TrainingError(
                f"{where}: interval {start} to {end} must begin at 0 or later and rise; mend it"
            )
        if start < last_end:
            raise TrainingError(
                f"{where}: interval {start} to {end} overlaps the one that ends at {last_end}; "
                "join or part them"
            )
        last_end = end
    return intervals


def truth_of_mask(where: str, mask: npt.NDArray[np.generic]) -> Truth:
    """Intervals of a frame mask.

    Args:
        where: its file.
        mask: (frames,), or with axes of 1 beside it; anomalous where it is not 0.

    Raises:
        TrainingError: another shape, or no frame.
    """
    if mask.size == max(mask.shape, default=0):
        mask = mask.ravel()
    if mask.ndim != 1 or not len(mask) or mask.dtype.kind not in "buif":
        raise TrainingError(
            f"{where} must hold one number a frame, got {mask.dtype} of shape {mask.shape}; "
            "give the folder of frame masks"
        )
    edges = np.flatnonzero(np.diff(mask != 0, prepend=False, append=False)).tolist()
    return Truth(where, tuple(zip(edges[::2], edges[1::2], strict=True)), len(mask))


def settled(name: Name, truth: Truth, covered: int | None) -> Truth:
    """A truth held against the video that it is of.

    Where nobody says how many frames the video has, they are those that its windows
    cover, and intervals end there, as in the published ground truth.

    Args:
        name: of the video.
        truth: as annotated.
        covered: frames that its features' windows cover, if it has any.

    Raises:
        TrainingError: a normal video with intervals, an anomalous one with none, or
            an interval beyond the video's end.
    """
    if bool(truth.intervals) != (name.label == "anomalous"):
        marked = "anomalous frames" if truth.intervals else "no anomalous frame"
        raise TrainingError(
            f"{truth.where}: two labels, {marked} for {name.id!r} whose name says {name.says}; "
            "mend one"
        )
    if truth.frames is not None:
        _check_end(name, truth, truth.frames)
        return truth
    if covered is None:
        return truth
    _check_end(name, truth, covered + SLACK_WINDOWS * WINDOW_FRAMES)
    return Truth(truth.where, _cut(truth.intervals, covered), covered)


def _check_end(name: Name, truth: Truth, frames: int) -> None:
    last = max((end for _, end in truth.intervals), default=0)
    if last > frames:
        raise TrainingError(
            f"{truth.where}: an interval of {name.id!r} ends at frame {last}, beyond the video's "
            f"end at {frames}; mend it or give its own features"
        )


def _cut(intervals: Sequence[tuple[int, int]], frames: int) -> Intervals:
    return tuple((start, min(end, frames)) for start, end in intervals if start < frames)
