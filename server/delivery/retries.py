"""When a failed delivery is tried again, and when it is given up; pure.

Exponential with full jitter, so that what failed together does not come back in one
wave. What a receiver refuses for what it is gets a few slow attempts: those who run
the receiver may mend it, and a dead delivery can be replayed.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum

FIRST_SECONDS = 1.0
LONGEST_SECONDS = 300.0
"""The longest wait, unless the receiver asks for more."""

SLOW_SECONDS = 60.0
"""The shortest wait after a refusal."""

REFUSED_ATTEMPTS = 10
"""Attempts after which a refusal stands."""

LONGEST_ASKED_SECONDS = 3600.0
"""More patience than this no receiver may ask for."""

_DOUBLINGS_MAX = 16


class Retry(Enum):
    """What may help after a failure."""

    SOON = "soon"  # the receiver is not there, or not well
    SLOWLY = "slowly"  # it is there and refuses
    NEVER = "never"  # it wants no more


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt failed.

    Attributes:
        sentence: the reason, without credentials.
        retry: what may help.
        asked_seconds: how long the receiver asks us to wait; None where it does not.
    """

    sentence: str
    retry: Retry = Retry.SOON
    asked_seconds: float | None = None


def wait_seconds(failure: Failure, attempts: int, rng: random.Random) -> float | None:
    """How long to wait before the next attempt; None gives up.

    Args:
        failure: of the last attempt.
        attempts: so far, that one included.
        rng: where the jitter comes from.

    Returns:
        Uniform in [0, min(300, 2^(attempts - 1))] s, after a refusal in [60, 300] s; at
        least what the receiver asked for, which is cut to an hour.
    """
    if failure.retry is Retry.NEVER:
        return None
    if failure.retry is Retry.SLOWLY:
        if attempts >= REFUSED_ATTEMPTS:
            return None
        return rng.uniform(SLOW_SECONDS, LONGEST_SECONDS)
    ceiling = min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** min(attempts - 1, _DOUBLINGS_MAX))
    asked_seconds = min(failure.asked_seconds or 0.0, LONGEST_ASKED_SECONDS)
    return max(asked_seconds, rng.uniform(0.0, ceiling))
