"""When a decode worker that holds too much memory is replaced; pure.

A worker that leaks is replaced as soon as it is over its bound. One that is over
it again soon after its start does not leak: its streams need so much. Replacing
it changes nothing, so it is left alone for a while, twice as long each time.
"""

from __future__ import annotations

from enum import Enum

SPARED_FIRST_SECONDS = 10.0
SPARED_MAX_SECONDS = 3600.0


class Verdict(Enum):
    """What to do with a worker."""

    KEEP = "keep"
    SPARE = "spare"  # over the bound, but too young; said once of each worker
    REPLACE = "replace"


class MemoryJudge:
    """Judges the workers of one slot, one after the other.

    Args:
        bound_bytes: what a worker may hold.
    """

    def __init__(self, bound_bytes: int) -> None:
        self._bound_bytes = bound_bytes
        self._started_at_seconds = 0.0
        self._spared = False
        self.spared_seconds = 0.0
        """The age at which a worker over the bound is replaced."""

    def begin(self, at_seconds: float) -> None:
        """A new worker was started."""
        self._started_at_seconds = at_seconds
        self._spared = False

    def judge(self, held_bytes: int, at_seconds: float) -> Verdict:
        """What to do with a worker that holds so much."""
        if held_bytes <= self._bound_bytes:
            return Verdict.KEEP
        age_seconds = at_seconds - self._started_at_seconds
        if age_seconds >= self.spared_seconds:
            self._grow_patient(age_seconds)
            return Verdict.REPLACE
        if self._spared:
            return Verdict.KEEP
        self._spared = True
        return Verdict.SPARE

    def _grow_patient(self, age_seconds: float) -> None:
        """Spare the next one longer, unless this one stayed within the bound for long."""
        longer_seconds = max(SPARED_FIRST_SECONDS, 2 * self.spared_seconds)
        leaks = age_seconds > longer_seconds
        self.spared_seconds = (
            SPARED_FIRST_SECONDS if leaks else min(longer_seconds, SPARED_MAX_SECONDS)
        )
