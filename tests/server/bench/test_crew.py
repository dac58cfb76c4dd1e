"""A crew: fresh processes that work at once and count their own time."""

from __future__ import annotations

import time

import psutil
import pytest

from server.bench.crew import BenchError, work_together
from tests.support.bench_work import Busy, Dying, Hungry, Idle


def test_every_member_counts_its_own_processor_time() -> None:
    for share in work_together(Busy(0.005), processes=2, seconds=0.3):
        # A step is measured by the same clock as the share; the loop around it is little.
        assert share.cpu_seconds == pytest.approx(0.005 * share.units, rel=0.2, abs=0.005)
        assert share.seconds >= 0.3
        assert share.cpu_seconds <= share.seconds


def test_waiting_costs_a_member_no_processor_time() -> None:
    [share] = work_together(Idle(0.02), processes=1, seconds=0.3)
    assert share.cpu_seconds < 0.1
    assert share.units % 3 == 0
    assert 3 <= share.units <= 3 * 15


def test_a_member_that_crashes_is_told_in_one_sentence_and_leaves_no_process() -> None:
    before = {child.pid for child in psutil.Process().children()}
    with pytest.raises(BenchError, match="ended with code 3") as raised:
        work_together(Dying(3), processes=2, seconds=0.1)
    assert "\n" not in str(raised.value)
    assert {child.pid for child in psutil.Process().children()} == before


def test_a_member_without_memory_says_so() -> None:
    with pytest.raises(BenchError, match="too little memory"):
        work_together(Hungry(), processes=1, seconds=0.1)


@pytest.mark.parametrize(("processes", "seconds"), [(0, 1.0), (257, 1.0), (1, 0.0), (1, -1.0)])
def test_numbers_that_make_no_sense_start_nothing(processes: int, seconds: float) -> None:
    began = time.monotonic()
    with pytest.raises(BenchError, match="must be"):
        work_together(Idle(), processes, seconds)
    assert time.monotonic() - began < 0.5
