"""How many windows one run may have on a device that others fill too.

Halved when the device is full. After a stretch without that it is doubled again, for what filled
the device may have gone; where that fails at once, the next stretch is twice as long.
"""

from __future__ import annotations

from collections.abc import Callable

FIRST_STRETCH_SECONDS = 60.0
LONGEST_STRETCH_SECONDS = 3600.0


class BatchLimit:
    """The limit, and when it may be raised.

    Args:
        most: that a plan takes.
        clock: monotonic, in seconds.

    Attributes:
        largest: windows of one run, 1 to `most`.
    """

    def __init__(self, most: int, clock: Callable[[], float]) -> None:
        self.largest = most
        self._most, self._clock = most, clock
        self._stretch_seconds = FIRST_STRETCH_SECONDS
        self._due_seconds = 0.0
        self._was_raised = False

    def halve(self) -> None:
        """The device was full; at a single window nothing is left to halve."""
        assert self.largest > 1
        self.largest //= 2
        now = self._clock()
        if self._was_raised:
            lasted = now >= self._due_seconds
            longer = min(2 * self._stretch_seconds, LONGEST_STRETCH_SECONDS)
            self._stretch_seconds = FIRST_STRETCH_SECONDS if lasted else longer
        self._was_raised = False
        self._due_seconds = now + self._stretch_seconds

    def may_rise(self) -> bool:
        """Whether it is below what it was, and has been so for a stretch."""
        return self.largest < self._most and self._clock() >= self._due_seconds

    def double(self) -> None:
        """Try more; the next stretch begins."""
        self.largest = min(2 * self.largest, self._most)
        self._was_raised = True
        self._due_seconds = self._clock() + self._stretch_seconds
