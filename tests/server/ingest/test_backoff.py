"""Waits between tries."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from server.ingest.backoff import Backoff


class _Highest(random.Random):
    """Draws the top of every range, so that ceilings show."""

    def uniform(self, a: float, b: float) -> float:
        return b


def _highest() -> Backoff:
    return Backoff(1.0, 30.0, 60.0, _Highest())


def test_waits_double_up_to_the_longest() -> None:
    backoff = _highest()
    waits = [backoff.next_wait_seconds(0.0) for _ in range(7)]
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_a_brief_success_does_not_forget_the_failures() -> None:
    backoff = _highest()
    waits = [backoff.next_wait_seconds(59.0) for _ in range(3)]
    assert waits == [1.0, 2.0, 4.0]


def test_a_stable_minute_does() -> None:
    backoff = _highest()
    waits = [backoff.next_wait_seconds(ran) for ran in (0.0, 0.0, 60.0, 0.0)]
    assert waits == [1.0, 2.0, 1.0, 2.0]


@given(seed=st.integers(), failures=st.integers(1, 2000))
def test_jitter_is_full_and_never_over_the_longest(seed: int, failures: int) -> None:
    backoff = Backoff(1.0, 30.0, 60.0, random.Random(seed))
    waits = [backoff.next_wait_seconds(0.0) for _ in range(failures)]
    assert all(0.0 <= wait <= 30.0 for wait in waits)
    assert failures < 200 or min(waits[5:]) < 3.0 < 27.0 < max(waits)
