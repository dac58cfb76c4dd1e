"""Rules by which a stream's windows are scored, and which stream comes first; pure.

A stream that sends more than is needed, or more than the server has room for, is thinned:
every n-th window is scored, or those in which something moves. `server.sampler` applies
the rule, and what it leaves out is told with its reason, keeps its sequence and steps the
head, as any window without a score.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from server.tuning_text import length_seconds
from server.wording import quoted

FEWEST_NTH, MOST_NTH = 2, 64
STILL_SECONDS = 5.0
"""By default a still scene is scored at least so often."""

STILL_RANGE_SECONDS = (1.0, 3600.0)

LOWEST_PRIORITY, DEFAULT_PRIORITY, HIGHEST_PRIORITY = 0, 5, 9
"""Of a stream among the others: where there is too much to score, higher ones come first."""

_COUNT = re.compile(r"[0-9]{1,9}")


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


def check_sampling_when_full(sampling: Sampling | None) -> None:
    """Refuse a rule that thins nothing.

    Raises:
        ValueError: it is one.
    """
    if isinstance(sampling, EveryWindow):
        raise ValueError(
            "sampling_when_full must leave windows out (every n-th, or on motion), or be unset, "
            "which refuses the stream where the server is full"
        )


def check_priority(priority: int) -> None:
    """Refuse a priority that there is not.

    Raises:
        ValueError: it is none.
    """
    if not LOWEST_PRIORITY <= priority <= HIGHEST_PRIORITY:
        raise ValueError(
            f"priority ({priority}) must be {LOWEST_PRIORITY} to {HIGHEST_PRIORITY}; "
            "higher ones are scored first"
        )


def read_sampling(text: str) -> Sampling:
    """A rule as people write it: `every`, `nth:4`, `motion` or `motion:10s`.

    >>> read_sampling("motion")
    OnMotion(still_seconds=5.0)

    Raises:
        ValueError: it is none.
    """
    name, colon, detail = text.strip().partition(":")
    if name == "every" and not colon:
        return EVERY_WINDOW
    if name == "nth" and _COUNT.fullmatch(detail):
        return EveryNth(int(detail))
    if name == "motion":
        return OnMotion(length_seconds(detail)) if colon else OnMotion()
    raise ValueError(
        f"{quoted(text)} is no sampling; give every, nth:N with N from {FEWEST_NTH} to {MOST_NTH}, "
        "or motion[:LENGTH], such as nth:4 or motion:10s"
    )


def sampling_text(sampling: Sampling) -> str:
    """A rule as `read_sampling` reads it.

    >>> sampling_text(OnMotion(10.0))
    'motion:10s'
    """
    match sampling:
        case EveryWindow():
            return "every"
        case EveryNth():
            return f"nth:{sampling.n}"
        case OnMotion():
            # To the last digit that can be read back: the store keeps it so.
            seconds = f"{sampling.still_seconds:.9f}".rstrip("0").rstrip(".")
            return f"motion:{seconds}s"
