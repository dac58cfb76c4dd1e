"""Share jobs among processes, or over a Ray cluster.

A job's outcome must not depend on who does it or when: for any crew it is the same.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, TypeVar

from training.clips import TrainingError

Job = TypeVar("Job")
Result = TypeVar("Result")

MOST_WORKERS = 64


@dataclass(frozen=True, slots=True)
class Crew:
    """Who does the jobs.

    Attributes:
        workers: processes, 1 to 64; one is this process itself, unless it is Ray's.
        ray: whether they are Ray's, on this machine or on the cluster that RAY_ADDRESS
            names, where jobs' files must be found under the same paths.
        gpus: of each of Ray's workers, its own.
    """

    workers: int = 1
    ray: bool = False
    gpus: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.workers <= MOST_WORKERS:
            raise TrainingError(f"--workers ({self.workers}) must be 1 to {MOST_WORKERS}")

    @property
    def is_alone(self) -> bool:
        """Whether this process does all."""
        return self.workers == 1 and not self.ray

    def share(
        self, begin: Callable[[], Callable[[Job], Result]], jobs: Sequence[Job]
    ) -> Iterator[tuple[int, Result]]:
        """Do every job; whoever does some calls `begin` once and does them by what it returns.

        Args:
            begin: makes a worker ready; it, jobs and results travel between processes.
            jobs: what is to be done.

        Yields:
            A job's index and its result, as they are done.

        Raises:
            TrainingError: a worker died, or there is no Ray, or it has too few GPUs.
        """
        if not jobs:
            return iter(())
        if self.ray:
            return _by_ray(begin, jobs, min(self.workers, len(jobs)), self.gpus)
        if self.is_alone:
            return _alone(begin, jobs)
        return _by_processes(begin, jobs, min(self.workers, len(jobs)))


def _alone(
    begin: Callable[[], Callable[[Job], Result]], jobs: Sequence[Job]
) -> Iterator[tuple[int, Result]]:
    do = begin()
    for index, job in enumerate(jobs):
        yield index, do(job)


class _Worker:
    """What a worker process keeps between jobs."""

    do: Callable[[Any], Any]


def _begin(begin: Callable[[], Callable[[Any], Any]]) -> None:
    _Worker.do = begin()


def _do(job: Any) -> Any:
    return _Worker.do(job)


def _by_processes(
    begin: Callable[[], Callable[[Job], Result]], jobs: Sequence[Job], workers: int
) -> Iterator[tuple[int, Result]]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _begin, (begin,)) as pool:
        futures = {pool.submit(_do, job): index for index, job in enumerate(jobs)}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool:
            raise TrainingError(
                "a worker died, as it does when a video crashes its decoder or memory runs out; "
                "the same command goes on, with --workers 1 up to the job that does it"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


class _RayWorker:
    """An actor of Ray Data's pool."""

    def __init__(self, begin: Callable[[], Callable[[Any], Any]]) -> None:
        self._do = begin()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"index": row["index"], "result": self._do(row["job"])}


def _by_ray(
    begin: Callable[[], Callable[[Job], Result]], jobs: Sequence[Job], workers: int, gpus: int
) -> Iterator[tuple[int, Result]]:
    # Ray reports its use to its makers unless it is told not to.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError:
        raise TrainingError(
            "Ray is not installed; `pip install 'ray[data]'`, or leave --ray out"
        ) from None
    started = not ray.is_initialized()
    if started:
        here = None if "RAY_ADDRESS" in os.environ else workers
        ray.init(num_cpus=here, log_to_driver=False, include_dashboard=False)
    try:
        # Ray would wait for them, for ever.
        there = int(ray.cluster_resources().get("GPU", 0))  # type: ignore[no-untyped-call]
        if there < workers * gpus:
            raise TrainingError(
                f"--workers ({workers}) need a GPU each and Ray has {there}; give fewer, or none "
                "with --device cpu"
            )
        ray.data.DataContext.get_current().enable_progress_bars = False
        rows = [{"index": index, "job": job} for index, job in enumerate(jobs)]
        # A block a job, so that each is told as it is done.
        done = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            _RayWorker,  # type: ignore[arg-type]
            fn_constructor_args=(begin,),
            concurrency=workers,
            num_gpus=gpus or None,
        )
        for row in done.iter_rows():
            yield int(row["index"]), row["result"]
    finally:
        if started:
            ray.shutdown()
