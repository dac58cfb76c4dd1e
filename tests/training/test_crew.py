"""Whoever does the jobs, the outcome is the same."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator

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


class Seeing:
    """Begins workers that tell which GPUs they may use."""

    def begin(self) -> Callable[[int], str]:
        return lambda job: os.environ.get("CUDA_VISIBLE_DEVICES", "all")


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Ray that counts two GPUs, whatever the machine has."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    # Its own warnings are not ours.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.init(num_cpus=2, num_gpus=2, log_to_driver=False, include_dashboard=False)
        try:
            yield
        finally:
            ray.shutdown()


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


@pytest.mark.long
def test_each_of_rays_workers_has_a_gpu_of_its_own(two_gpus: None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seen = [gpu for _, gpu in Crew(2, ray=True, gpus=1).share(Seeing().begin, [1, 2, 3, 4])]
        assert set(seen) == {"0", "1"}
        with pytest.raises(TrainingError, match=r"--workers \(3\) need a GPU each and Ray has 2"):
            list(Crew(3, ray=True, gpus=1).share(Seeing().begin, [1, 2, 3]))
