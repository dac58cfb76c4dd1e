"""Search for the largest number of cameras that a server holds; pure.

The machine is noisy, so a patient search tries a load that fails once more before it
counts, and confirms its answer by a longer run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Trial(Protocol):
    """A load that was tried."""

    @property
    def holds(self) -> bool:
        """Whether the server held it."""


T = TypeVar("T", bound=Trial)
Attempt = Callable[[int, bool], T]
"""Try so many cameras, 1 or more; True asks for the longer run that confirms."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Where a search ends.

    Attributes:
        most_cameras: no more are tried.
        most_trials: it ends with the best that held after so many.
        first_step: of the guess, over 0: how far from it the second try is.
        patient: try what fails twice, and confirm the answer.
    """

    most_cameras: int
    most_trials: int = 40
    first_step: float = 0.125
    patient: bool = True


@dataclass(frozen=True, slots=True)
class Ramp(Generic[T]):
    """What a search found.

    Attributes:
        cameras: the largest number that held; 0 where not even one did.
        exact: whether one more did not hold, and a patient search confirmed it.
        trials: all, in their order.
    """

    cameras: int
    exact: bool
    trials: tuple[T, ...]


def search(attempt: Attempt[T], guess: int, limits: Limits) -> Ramp[T]:
    """The largest number of cameras that holds.

    Brackets it around a guess with growing steps, closes in by halves, and confirms.

    Args:
        attempt: tries a number of cameras.
        guess: where to begin, 1 to `limits.most_cameras`.
        limits: where to end.
    """
    hunt = _Hunt(attempt, limits)
    try:
        hunt.bracket(guess)
        hunt.halve()
        exact = hunt.confirm() if limits.patient else True
    except _OutOfTrialsError:
        exact = False
    return Ramp(hunt.held, exact and hunt.held < limits.most_cameras, tuple(hunt.trials))


class _OutOfTrialsError(Exception):
    """The search must end here."""


class _Hunt(Generic[T]):
    def __init__(self, attempt: Attempt[T], limits: Limits) -> None:
        self._attempt, self._limits = attempt, limits
        self.trials: list[T] = []
        self.held = 0
        self._holding: list[int] = []
        self._failed = limits.most_cameras + 1

    def bracket(self, guess: int) -> None:
        """Find one number that holds and one that does not."""
        step, cameras = max(1, round(self._limits.first_step * guess)), guess
        while self.held < cameras < self._failed:
            if self._try(cameras):
                cameras = min(cameras + step, self._limits.most_cameras)
            else:
                cameras = max(cameras - step, cameras // 2, 1)
            step *= 2

    def halve(self) -> None:
        """Close in until they are neighbours."""
        while self._failed - self.held > 1:
            self._try((self.held + self._failed) // 2)

    def confirm(self) -> bool:
        """Try the answer for longer, and fewer until one holds."""
        for cameras in range(self.held, 0, -1):
            if self._holds(cameras, True):
                self.held = cameras
                return True
            # Until a lower one is confirmed, the best of those that held in a short run stands.
            self.held = max((one for one in self._holding if one < cameras), default=0)
        return True

    def _try(self, cameras: int) -> bool:
        if self._holds(cameras, False):
            self.held = cameras
            self._holding.append(cameras)
            return True
        self._failed = cameras
        return False

    def _holds(self, cameras: int, longer: bool) -> bool:
        return self._once(cameras, longer) or (self._limits.patient and self._once(cameras, longer))

    def _once(self, cameras: int, longer: bool) -> bool:
        if len(self.trials) >= self._limits.most_trials:
            raise _OutOfTrialsError
        self.trials.append(self._attempt(cameras, longer))
        return self.trials[-1].holds
