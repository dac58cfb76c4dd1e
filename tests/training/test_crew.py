"""Whoever does the jobs, the outcome is the same."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import pytest

from training.clips import TrainingError
from training.crew import Crew


class Multiplying:
    """Begins workers that multiply, and that die of one number."""

    def __init__(self, factor: int, deadly: int | None = None) -> None:
        self.factor, self.deadly = factor, deadly

    def begin(self) -> Callable[[int], int]:
        return self.times

    def times(self, job: int) -> int:
        if job == self.deadly:
            os._exit(1)
        return self.factor * job


def done(crew: Crew, jobs: list[int]) -> list[tuple[int, int]]:
    return sorted(crew.share(Multiplying(7).begin, jobs))


@pytest.mark.parametrize("workers", [1, 2])
def test_every_job_is_done_once(workers: int) -> None:
    assert done(Crew(workers), [5, 3, 4]) == [(0, 35), (1, 21), (2, 28)]
    assert done(Crew(workers), []) == []


def test_a_worker_that_dies_is_told_in_a_sentence() -> None:
    with pytest.raises(TrainingError, match="a worker died, as it does when"):
        list(Crew(2).share(Multiplying(7, deadly=3).begin, [5, 3, 4]))


@pytest.mark.parametrize("workers", [0, 65])
def test_a_crew_of_no_size_is_refused(workers: int) -> None:
    with pytest.raises(TrainingError, match=rf"--workers \({workers}\) must be 1 to 64"):
        Crew(workers)


def test_without_ray_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(TrainingError, match=r"pip install 'ray\[data\]'"):
        list(Crew(1, ray=True).share(Multiplying(7).begin, [5]))
