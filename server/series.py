"""Scores of one stream's windows in order, as arrays; pure.

What the store keeps of the past, what a client sends of recorded footage and what a
threshold is learnt from: all the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from server.alert_machine import CLOCK_STEP_SECONDS
from server.alerts import ScoredSpan
from server.contract import WINDOW_FRAMES

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]

HISTOGRAM_BINS = 1000
"""Equal bins of [0, 1]: fine, since a calm camera's scores all lie close together."""


@dataclass(frozen=True, slots=True, eq=False)
class ScoreSeries:
    """Windows of one stream, in order.

    Attributes:
        start_seconds: (N,) capture time of each window's first frame.
        end_seconds: (N,) capture time of its last frame.
        scores: (N,) in [0, 1]; NaN where a window was dropped.
        after_gap: (N,) the window begins after a gap.
        still: (N,) it was not scored since nothing moved in it; None where all were scored
            that could be.

    Raises:
        ValueError: arrays of different lengths, or a score outside [0, 1].
    """

    start_seconds: Floats
    end_seconds: Floats
    scores: Floats
    after_gap: Flags
    still: Flags | None = None

    def __post_init__(self) -> None:
        shapes = {self.start_seconds.shape, self.end_seconds.shape, self.after_gap.shape}
        shapes |= set() if self.still is None else {self.still.shape}
        if shapes != {self.scores.shape} or self.scores.ndim != 1:
            raise ValueError(f"a series needs arrays of one length, got {sorted(shapes)}")
        outside = (self.scores < 0) | (self.scores > 1)
        if outside.any():
            raise ValueError(f"score ({self.scores[outside][0]:g}) must be 0 to 1")

    @classmethod
    def of(cls, spans: Iterable[ScoredSpan]) -> Self:
        """The windows that an alert machine saw."""
        rows = [
            (span.start_seconds, span.end_seconds, span.score, span.after_gap, span.still)
            for span in spans
        ]
        starts, ends, scores, gaps, still = zip(*rows, strict=True) if rows else ((),) * 5
        return cls(
            np.array(starts, np.float64),
            np.array(ends, np.float64),
            np.array(scores, np.float64),  # None becomes NaN
            np.array(gaps, np.bool_),
            np.array(still, np.bool_),
        )

    @classmethod
    def regular(cls, window_seconds: float, scores: Floats) -> Self:
        """Windows that follow each other at once, from second 0 on."""
        starts = np.arange(len(scores), dtype=np.float64) * window_seconds
        # A window ends with its last frame, one frame before the next one begins.
        ends = starts + window_seconds * (1 - 1 / WINDOW_FRAMES)
        return cls(starts, ends, scores, np.arange(len(scores)) == 0)

    @classmethod
    def joined(cls, parts: Sequence[ScoreSeries]) -> Self:
        """One after the other."""
        if not parts:
            return cls.of(())
        return cls(
            np.concatenate([part.start_seconds for part in parts]),
            np.concatenate([part.end_seconds for part in parts]),
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.after_gap for part in parts]),
            np.concatenate([part.unmoved for part in parts]),
        )

    def __len__(self) -> int:
        return len(self.scores)

    def span(self, index: int) -> ScoredSpan:
        """One window as the alert machine takes it; its place stands for its sequence."""
        score = float(self.scores[index])
        return ScoredSpan(
            sequence=index,
            start_seconds=float(self.start_seconds[index]),
            end_seconds=float(self.end_seconds[index]),
            score=None if np.isnan(score) else score,
            after_gap=bool(self.after_gap[index]),
            still=bool(self.unmoved[index]),
        )

    def part(self, start: int, end: int) -> ScoreSeries:
        """Windows from `start` up to `end`."""
        kept = slice(start, end)
        return ScoreSeries(
            self.start_seconds[kept],
            self.end_seconds[kept],
            self.scores[kept],
            self.after_gap[kept],
            self.unmoved[kept],
        )

    @property
    def unmoved(self) -> Flags:
        """(N,) the window was not scored since nothing moved in it."""
        return np.zeros(len(self), np.bool_) if self.still is None else self.still

    def watched_seconds(self) -> Floats:
        """(N,) footage that each window adds: since the one before, or its own after a gap.

        A window in which nothing moves was looked at all the same.
        """
        unseen = np.isnan(self.scores) & ~self.unmoved
        own = self.end_seconds - self.start_seconds
        since = np.diff(self.end_seconds, prepend=np.nan)
        joined = ~self.after_gap & (since >= own) & (since - own <= CLOCK_STEP_SECONDS)
        # What lies before a window that follows a dropped one was not looked at.
        joined[1:] &= ~unseen[:-1]
        return np.where(unseen, 0.0, np.where(joined, since, own))

    def halves(self) -> tuple[ScoreSeries, ScoreSeries]:
        """The first and the second half of the footage, by time watched."""
        watched = np.cumsum(self.watched_seconds())
        middle = int(np.searchsorted(watched, watched[-1] / 2)) if len(watched) else 0
        return self.part(0, middle), self.part(middle, len(self))

    def known(self) -> Floats:
        """(M,) scores of the windows that have one."""
        return self.scores[~np.isnan(self.scores)]

    def histogram(self) -> Counts:
        """(HISTOGRAM_BINS,) scores by equal bins of [0, 1]; the last one holds a score of 1."""
        which = np.minimum((self.known() * HISTOGRAM_BINS).astype(np.int64), HISTOGRAM_BINS - 1)
        return np.bincount(which, minlength=HISTOGRAM_BINS)

    def window_seconds(self) -> float:
        """From a window's beginning to the next one's, in footage of one rate."""
        if len(self) > 1:
            return float(np.median(np.diff(self.start_seconds)))
        # A window ends with its last frame, one frame before the next one begins.
        own = float(self.end_seconds[0] - self.start_seconds[0])
        return own * WINDOW_FRAMES / (WINDOW_FRAMES - 1)
