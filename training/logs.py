"""A run's curves: a CSV that any program reads, and TensorBoard's files beside it.

A resumed run drops what was logged after the step that it resumes from, so
that its curves are those of a run that was never interrupted.
"""

from __future__ import annotations

import csv
import math
import re
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from torch.utils.tensorboard import SummaryWriter

CURVES = "curves.csv"

_EVENTS = re.compile(r"events\.out\.tfevents\.(\d+)\.")
_LONGEST_WAIT_SECONDS = 2.0
_POLL_SECONDS = 0.02


class Curves:
    """Writes named figures of steps; use as a context manager.

    Args:
        folder: of the run.
        names: every figure that may come, in the order of the columns.
        first_step: that will be logged; later rows of an earlier try are dropped.
    """

    def __init__(self, folder: Path, names: tuple[str, ...], first_step: int) -> None:
        self._path = folder / CURVES
        self._columns = ("step", *names)
        kept = _rows_before(self._path, self._columns, first_step)
        self._file = self._path.open("w", newline="")
        self._table = csv.DictWriter(self._file, self._columns)
        self._table.writeheader()
        self._table.writerows(kept)
        board = folder / "tensorboard"
        _wait_for_a_later_name(board)
        self._board = SummaryWriter(board, purge_step=first_step)

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Log a step; a name that is left out, or NaN, stays empty."""
        told = {name: value for name, value in figures.items() if not math.isnan(value)}
        self._table.writerow({"step": step} | {k: f"{v:.9g}" for k, v in told.items()})
        for name, value in told.items():
            self._board.add_scalar(name, value, step)

    def flush(self) -> None:
        """Hand everything to the system, before a snapshot says that the step is done."""
        self._file.flush()
        self._board.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self._board.close()


def read_curves(folder: Path) -> dict[str, list[float]]:
    """Every column of a run's CSV, NaN where a step has no such figure."""
    with (folder / CURVES).open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = rows[0].keys() if rows else ()
    return {name: [float(row[name] or "nan") for row in rows] for name in names}


def _wait_for_a_later_name(board: Path) -> None:
    """TensorBoard reads files in the order of their names, and these begin with the second.

    Of two of one second the order would be that of process ids and counters.
    """
    taken = [int(found[1]) for path in board.glob("*") if (found := _EVENTS.match(path.name))]
    while taken and int(time.time()) <= max(taken):
        if max(taken) - time.time() > _LONGEST_WAIT_SECONDS:
            return  # the clock was set back; curves.csv is right all the same
        time.sleep(_POLL_SECONDS)


def _rows_before(path: Path, columns: tuple[str, ...], step: int) -> list[dict[str, str]]:
    try:
        with path.open(newline="") as file:
            # A kill may have cut the last line; it lies after every snapshot.
            rows = [row for row in csv.DictReader(file) if (row.get("step") or "").isdecimal()]
    except FileNotFoundError:
        return []
    return [
        {name: row.get(name) or "" for name in columns} for row in rows if int(row["step"]) < step
    ]
