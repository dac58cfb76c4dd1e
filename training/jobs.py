"""The fits of a run, shared among worker processes.

Every fit runs on one thread, so that its outcome depends neither on how many
workers there are nor on what else the machine does.
"""

from __future__ import annotations

import multiprocessing
import queue
import tempfile
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from pathlib import Path

import torch

from training.run import FINAL, Run, run_fit

_POLL_SECONDS = 0.2


def run_fits(run: Run, fits: list[int], workers: int, tick: Callable[[int], None]) -> None:
    """Do the fits that are not at rest in the run's folder yet.

    Args:
        run: what to work with.
        fits: folds, or FINAL.
        workers: processes; with one the fits run in this process.
        tick: called with the steps taken since the last call.

    Raises:
        TrainingError: a fit's clips are all of one label.
    """
    if workers == 1 or len(fits) == 1:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            for fit in fits:
                run_fit(run, fit, lambda: tick(1))
        finally:
            torch.set_num_threads(before)
        return
    with tempfile.TemporaryDirectory(prefix=".run-", dir=run.folder) as scratch:
        path = Path(scratch) / "run.pt"
        torch.save(run, path)
        _share(path, fits, workers, tick)


def _share(path: Path, fits: list[int], workers: int, tick: Callable[[int], None]) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        steps = manager.Queue()
        with ProcessPoolExecutor(min(workers, len(fits)), context, _begin, (path, steps)) as pool:
            pending = {pool.submit(_work, fit) for fit in sorted(fits, key=_longest_first)}
            try:
                while pending:
                    done, pending = wait(pending, _POLL_SECONDS, FIRST_COMPLETED)
                    tick(_drained(steps))
                    for future in done:
                        future.result()
            finally:
                for future in pending:
                    future.cancel()


def _longest_first(fit: int) -> int:
    """The last fit takes longest: it has the most clips."""
    return -1 if fit == FINAL else fit


def _drained(steps: queue.Queue[int]) -> int:
    count = 0
    while True:
        try:
            count += steps.get_nowait()
        except queue.Empty:
            return count


class _Worker:
    """What a worker process keeps between fits."""

    run: Run
    steps: queue.Queue[int]


def _begin(path: Path, steps: queue.Queue[int]) -> None:
    torch.set_num_threads(1)
    # The windows stay in the file: all workers share its pages.
    _Worker.run = torch.load(path, mmap=True, weights_only=False)
    _Worker.steps = steps


def _work(fit: int) -> None:
    run_fit(_Worker.run, fit, lambda: _Worker.steps.put(1))
