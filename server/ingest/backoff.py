"""How long to wait before a source is tried again; pure.

Exponential with full jitter, so that cameras which went down together do not
come back in one wave, and set back only by a stable run: a source that flaps
would otherwise be hammered for ever at the shortest wait.
"""

from __future__ import annotations

import random

_DOUBLINGS_MAX = 32


class Backoff:
    """Waits of one source.

    Args:
        first_seconds: longest wait after the first failure.
        max_seconds: longest wait ever.
        stable_seconds: a run of frames for so long forgets earlier failures.
        rng: where the jitter comes from.
    """

    def __init__(
        self, first_seconds: float, max_seconds: float, stable_seconds: float, rng: random.Random
    ) -> None:
        self._first_seconds = first_seconds
        self._max_seconds = max_seconds
        self._stable_seconds = stable_seconds
        self._rng = rng
        self._failures = 0

    def next_wait_seconds(self, ran_seconds: float) -> float:
        """The source has failed; how long to wait.

        Args:
            ran_seconds: how long frames had flowed before it did, 0 where none came.

        Returns:
            Uniform in [0, min(max, first * 2^failures)].
        """
        if ran_seconds >= self._stable_seconds:
            self._failures = 0
        ceiling = min(self._max_seconds, self._first_seconds * 2.0**self._failures)
        self._failures = min(self._failures + 1, _DOUBLINGS_MAX)
        return self._rng.uniform(0.0, ceiling)
