"""Chooses the windows of one stream that are scored, as they come; pure."""

from __future__ import annotations

import math

from server.motion import MotionDetector
from server.sampling import EveryNth, OnMotion, Sampling
from server.scoring import DropReason
from server.windows import Window


class WindowSampler:
    """Chooses by a rule.

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
