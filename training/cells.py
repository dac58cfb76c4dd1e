"""The cells of an experiment: each is done once, in a folder of its own, on any worker.

A cell is named by the hash of all that decides its outcome, so a finished one is
never done again, whichever experiment asks for it. Every cell runs on one thread
of torch: its outcome does not depend on how many workers there are.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from ctypes import c_bool, c_int64
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import torch
from pydantic import BaseModel, ValidationError

from training.clips import TrainingError

CELLS = "cells"
RESULT = "result.json"

_RUN = "run"
_POLL_SECONDS = 0.2

R = TypeVar("R", bound=BaseModel)
R_co = TypeVar("R_co", bound=BaseModel, covariant=True)

Tick = Callable[[int], None]
"""Told how many steps have been taken since the last call."""


class Cell(Protocol[R_co]):
    """A piece of work; pickled to a worker."""

    @property
    def key(self) -> str:
        """Hash of all that decides the outcome."""

    @property
    def steps(self) -> int:
        """That it takes, for the bar."""

    def run(self, folder: Path, tick: Tick) -> R_co:
        """Do it; may go on from what an earlier try left in the folder."""


@dataclass(frozen=True, slots=True)
class Shelf(Generic[R]):
    """Where results rest.

    Attributes:
        folder: of all cells.
        kind: of a result.
    """

    folder: Path
    kind: type[R]

    def result(self, cell: Cell[R]) -> R:
        """What a finished cell came to.

        Raises:
            TrainingError: it cannot be read.
        """
        path = self.folder / cell.key / RESULT
        try:
            return self.kind.model_validate_json(path.read_bytes())
        except ValidationError:
            raise TrainingError(
                f"{path} is no result of this version; remove {path.parent}, and it is done again"
            ) from None

    def unfinished(self, cells: Sequence[Cell[R]]) -> list[Cell[R]]:
        """Cells that are to be done, each once."""
        found = {cell.key: cell for cell in cells}
        return [cell for key, cell in found.items() if not (self.folder / key / RESULT).is_file()]

    def work(self, cell: Cell[R], tick: Tick) -> None:
        """Do a cell; its result comes whole or not at all, its scratch goes."""
        folder = self.folder / cell.key
        folder.mkdir(parents=True, exist_ok=True)
        result = cell.run(folder / _RUN, tick)
        scratch = folder / f".{RESULT}"
        scratch.write_text(result.model_dump_json() + "\n")
        scratch.replace(folder / RESULT)
        shutil.rmtree(folder / _RUN, ignore_errors=True)


def run_cells(cells: Sequence[Cell[R]], shelf: Shelf[R], workers: int, tick: Tick) -> None:
    """Do all cells that are not at rest.

    Args:
        cells: to do.
        shelf: where results rest.
        workers: processes; with one, all is done in this process.
        tick: told of steps, those of cells that are done already left out.

    Raises:
        TrainingError: a cell's own, or a worker died.
    """
    left = shelf.unfinished(cells)
    if workers == 1 or len(left) <= 1:
        for cell in left:
            shelf.work(cell, tick)
    else:
        _share(left, shelf, min(workers, len(left)), tick)


def _share(cells: Sequence[Cell[R]], shelf: Shelf[R], workers: int, tick: Tick) -> None:
    context = multiprocessing.get_context("spawn")
    steps, stop = context.Value(c_int64, 0), context.RawValue(c_bool, False)
    begin = (steps, stop)
    told = 0
    with ProcessPoolExecutor(workers, context, _begin, begin) as pool:
        pending = {pool.submit(_work, cell, shelf) for cell in cells}
        try:
            while pending:
                done, pending = wait(pending, _POLL_SECONDS, FIRST_COMPLETED)
                # Read without the lock, which a worker that was killed would keep.
                taken = steps.get_obj().value
                tick(taken - told)
                told = taken
                for future in done:
                    future.result()
        except BrokenProcessPool:
            raise TrainingError(
                "a worker died, as it does when memory runs out; the same command goes on, with "
                "--workers 1 it needs least"
            ) from None
        finally:
            stop.value = True
            pool.shutdown(cancel_futures=True)


class _Worker:
    """What a worker process keeps between cells."""

    steps: Synchronized[int]
    stop: c_bool


def _begin(steps: Synchronized[int], stop: c_bool) -> None:
    torch.set_num_threads(1)
    _Worker.steps, _Worker.stop = steps, stop
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """An orphan would write to the folder that the next try works in."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _work(cell: Cell[R], shelf: Shelf[R]) -> None:
    shelf.work(cell, _tick)


def _tick(steps: int) -> None:
    with _Worker.steps.get_lock():
        _Worker.steps.value += steps
    if _Worker.stop.value:
        raise KeyboardInterrupt
