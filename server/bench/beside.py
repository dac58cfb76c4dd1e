"""The naive program's turn: what it scores at most, and what cameras it keeps up with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from server.bench import ramp
from server.bench.crew import BenchError
from server.bench.naive import NaiveFigures, NaiveRun
from server.bench.plan import Pace

FIRST_SHARE = 0.8
"""Of the cameras that its windows of recorded clips would do for: where the search begins."""


@dataclass(frozen=True, slots=True)
class _Trial:
    """A load; `figures` are None where not even the first windows came."""

    cameras: int
    figures: NaiveFigures | None

    @property
    def holds(self) -> bool:
        """No window of any camera is missing, and none over a second late."""
        if self.figures is None:
            return False
        missing, late = self.figures.missing_windows, self.figures.late_windows
        # One window a camera may be under way when the time is up.
        return missing is not None and missing <= self.cameras and late == 0


@dataclass(frozen=True, slots=True)
class NaiveBeside:
    """The naive program with what it is given.

    Attributes:
        program: how it is started.
        clip: recorded.
        urls: of live cameras.
        cores: threads that read the clip at once.
        windows_per_second: that one camera makes.
    """

    program: NaiveRun
    clip: Path
    urls: Sequence[str]
    cores: int
    windows_per_second: float

    def saturated(self, seconds: float) -> NaiveFigures:
        """Recorded clips, one a core. Raises: BenchError."""
        return self.program.measure([str(self.clip)], self.cores, seconds)

    def live(self, cameras: int, seconds: float) -> NaiveFigures:
        """So many cameras. Raises: BenchError."""
        return self.program.measure(self.urls[:cameras], cameras, seconds)

    def keeps_up_with(self, pace: Pace) -> int:
        """The largest number of cameras of which it scores every window within a second.

        Raises:
            BenchError: it fails with recorded clips.
        """

        def attempt(cameras: int, longer: bool) -> _Trial:
            try:
                return _Trial(cameras, self.live(cameras, pace.seconds))
            except BenchError:  # such as when some camera never got its turn
                return _Trial(cameras, None)

        enough = self.saturated(pace.replay_seconds).windows_per_second / self.windows_per_second
        guess = min(max(1, math.floor(FIRST_SHARE * enough)), len(self.urls))
        limits = ramp.Limits(len(self.urls), pace.most_naive_trials)
        return ramp.search(attempt, guess, limits).cameras
