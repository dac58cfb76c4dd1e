"""Which of a stream's windows are scored; pure.

A stream that sends more than is needed, or more than the server has room for, is thinned:
every n-th window is scored, or those in which something moves. What is not scored is told
with its reason, keeps its sequence, and steps the head, as any window without a score.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from server.motion import MotionDetector
from server.scoring import DropReason
from server.windows import Window

FEWEST_NTH, MOST_NTH = 2, 64
STILL_SECONDS = 5.0
"""By default a still scene is scored at least so often."""

STILL_RANGE_SECONDS = (1.0, 3600.0)

LOWEST_PRIORITY, DEFAULT_PRIORITY, HIGHEST_PRIORITY = 0, 5, 9
"""Of a stream among the others: where there is too much to score, higher ones come first."""


@dataclass(frozen=True, slots=True)
class EveryWindow:
    """All windows are scored."""


@dataclass(frozen=True, slots=True)
class EveryNth:
    """Each n-th window is scored, and the first one after a gap.

    Attributes:
        n: 2 to 64.

    Raises:
        ValueError: it is not.
    """

    n: int

    def __post_init__(self) -> None:
        if not FEWEST_NTH <= self.n <= MOST_NTH:
            raise ValueError(f"nth ({self.n}) must be {FEWEST_NTH} to {MOST_NTH}")


@dataclass(frozen=True, slots=True)
class OnMotion:
    """A window in which something moves is scored, and the first one after that.

    Attributes:
        still_seconds: a still scene is scored at least so often, or with every window where
            one lasts longer; 1 to 3600.

    Raises:
        ValueError: it is not.
    """

    still_seconds: float = STILL_SECONDS

    def __post_init__(self) -> None:
        least, most = STILL_RANGE_SECONDS
        if not least <= self.still_seconds <= most:  # NaN fails too
            raise ValueError(f"still ({self.still_seconds:g} s) must be {least:g} to {most:g} s")


Sampling = EveryWindow | EveryNth | OnMotion
EVERY_WINDOW = EveryWindow()


class WindowSampler:
    """Chooses windows of one stream as they come.

    Attributes:
        sampling: by which rule; another one, set from any thread, holds from the next
            window on.
    """

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        self._motion = MotionDetector()
        self._scored_until_seconds = -math.inf
        self._seen_until_seconds = -math.inf
        self._moved = False

    def opens(self, number: int) -> bool:
        """Whether the window that opens now may be scored; otherwise it need not be rendered.

        Args:
            number: windows since the last gap, from 0.
        """
        sampling = self.sampling
        return not isinstance(sampling, EveryNth) or number % sampling.n == 0

    def judge(self, window: Window) -> DropReason | None:
        """Why a window that was rendered is not scored; None where it is.

        Call it for each such window, in order.
        """
        sampling = self.sampling
        if not isinstance(sampling, OnMotion):
            self._motion.reset()
            return None
        if window.number == 0:
            self._motion.reset()
        is_due = self._is_due(window, sampling.still_seconds)
        moved_before, self._moved = self._moved, self._motion.moves(window.images)
        # What came last is scored once it rests: an alert must not wait to learn that it ended.
        if not (is_due or self._moved or moved_before):
            return DropReason.STILL
        self._motion.scored()
        self._scored_until_seconds = window.end_pts_seconds
        return None

    def _is_due(self, window: Window, still_seconds: float) -> bool:
        """Whether a still scene would be scored too late by the next window."""
        length_seconds = window.end_pts_seconds - self._seen_until_seconds
        self._seen_until_seconds = window.end_pts_seconds
        next_seconds = window.end_pts_seconds + length_seconds
        return next_seconds - self._scored_until_seconds > still_seconds
