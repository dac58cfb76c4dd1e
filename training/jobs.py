"""The fits of a run, shared among worker processes.

Every fit runs on one thread of torch, so that its outcome does not depend on
how many workers there are.
"""

from __future__ import annotations

import multiprocessing
import queue
import tempfile
import threading
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
        for fit in fits:
            run_fit(run, fit, lambda: tick(1))
        return
    with tempfile.TemporaryDirectory(prefix=".run-", dir=run.folder) as scratch:
        path = Path(scratch) / "run.pt"
        torch.save(run, path)
        _share(path, fits, workers, tick)


def _share(path: Path, fits: list[int], workers: int, tick: Callable[[int], None]) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        steps, stop = manager.Queue(), manager.Event()
        begin = (path, steps, stop)
        with ProcessPoolExecutor(min(workers, len(fits)), context, _begin, begin) as pool:
            pending = {pool.submit(_work, fit) for fit in sorted(fits, key=_longest_first)}
            try:
                while pending:
                    done, pending = wait(pending, _POLL_SECONDS, FIRST_COMPLETED)
                    tick(_drained(steps))
                    for future in done:
                        future.result()
            finally:
                stop.set()
                pool.shutdown(cancel_futures=True)


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
    stop: threading.Event


def _begin(path: Path, steps: queue.Queue[int], stop: threading.Event) -> None:
    torch.set_num_threads(1)
    # The windows stay in the file: all workers share its pages.
    _Worker.run = torch.load(path, mmap=True, weights_only=False)
    _Worker.steps = steps
    _Worker.stop = stop


def _work(fit: int) -> None:
    run_fit(_Worker.run, fit, _tick)


def _tick() -> None:
    _Worker.steps.put(1)
    if _Worker.stop.is_set():
        raise KeyboardInterrupt
