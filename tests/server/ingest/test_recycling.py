"""When a worker that holds too much is replaced, and how patient that grows."""

from __future__ import annotations

from itertools import pairwise

from server.ingest.recycling import (
    SPARED_FIRST_SECONDS,
    SPARED_MAX_SECONDS,
    MemoryJudge,
    Verdict,
)

BOUND = 100


def lives(judge: MemoryJudge, over_after_seconds: float, count: int) -> list[float]:
    """Ages at which workers in succession are replaced, each over its bound from that age on."""
    ages, now_seconds = [], 0.0
    for _ in range(count):
        judge.begin(now_seconds)
        age_seconds = 0.0
        while True:
            held = BOUND + 1 if age_seconds >= over_after_seconds else BOUND
            if judge.judge(held, now_seconds + age_seconds) is Verdict.REPLACE:
                break
            age_seconds += 1
        ages.append(age_seconds)
        now_seconds += age_seconds
    return ages


def test_a_worker_within_its_bound_is_kept() -> None:
    judge = MemoryJudge(BOUND)
    judge.begin(0)
    assert {judge.judge(BOUND, seconds) for seconds in range(100_000)} == {Verdict.KEEP}


def test_a_worker_that_leaks_is_replaced_at_its_bound_every_time() -> None:
    assert lives(MemoryJudge(BOUND), over_after_seconds=60, count=5) == [60] * 5


def test_streams_that_need_more_are_interrupted_ever_more_rarely() -> None:
    ages = lives(MemoryJudge(BOUND), over_after_seconds=3, count=14)
    assert ages[:3] == [3, SPARED_FIRST_SECONDS, 2 * SPARED_FIRST_SECONDS]
    assert all(earlier <= later for earlier, later in pairwise(ages))
    assert ages[-1] == SPARED_MAX_SECONDS


def test_that_a_worker_is_spared_is_said_once() -> None:
    judge = MemoryJudge(BOUND)
    lives(judge, over_after_seconds=0, count=1)
    judge.begin(0)
    verdicts = [judge.judge(BOUND + 1, seconds) for seconds in range(10)]
    assert verdicts == [Verdict.SPARE] + [Verdict.KEEP] * 9
    assert judge.judge(BOUND + 1, 10) is Verdict.REPLACE


def test_a_worker_that_stayed_within_its_bound_for_long_makes_the_next_one_suspect_again() -> None:
    judge = MemoryJudge(BOUND)
    lives(judge, over_after_seconds=0, count=6)
    assert judge.spared_seconds > 100
    lives(judge, over_after_seconds=10_000, count=1)
    assert judge.spared_seconds == SPARED_FIRST_SECONDS
