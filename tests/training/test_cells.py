"""Cells: each done once, on any worker, and never half."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import BaseModel

from training.cells import RESULT, Cell, Shelf, Tick, run_cells
from training.clips import TrainingError


class Answer(BaseModel):
    """What a cell came to."""

    value: int
    process: int


@dataclass(frozen=True)
class Double:
    """Doubles a number; leaves scratch behind, as training does."""

    number: int
    steps: int = 3

    @property
    def key(self) -> str:
        return f"double-{self.number}"

    def run(self, folder: Path, tick: Tick) -> Answer:
        folder.mkdir()
        (folder / "scratch").write_text("large")
        for _ in range(self.steps):
            tick(1)
        return Answer(value=2 * self.number, process=os.getpid())


@dataclass(frozen=True)
class Refusing(Double):
    """Cannot be done."""

    def run(self, folder: Path, tick: Tick) -> Answer:
        raise TrainingError(f"{self.number} cannot be doubled")


@dataclass(frozen=True)
class Dying(Double):
    """Takes its process with it."""

    def run(self, folder: Path, tick: Tick) -> Answer:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def done(cells: list[Cell[Answer]], shelf: Shelf[Answer], workers: int) -> int:
    """Do cells; the steps that were told."""
    told: list[int] = []
    run_cells(cells, shelf, workers, told.append)
    return sum(told)


@pytest.mark.parametrize("workers", [1, 2])
def test_results_are_those_of_their_cells(workers: int, tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, Answer)
    cells: list[Cell[Answer]] = [Double(number) for number in (3, 1, 2)]
    assert done(cells, shelf, workers) == 9
    answers = [shelf.result(cell) for cell in cells]
    assert [answer.value for answer in answers] == [6, 2, 4]
    assert (os.getpid() in {answer.process for answer in answers}) == (workers == 1)
    assert {path.name for path in tmp_path.glob("*/*")} == {RESULT}


def test_a_finished_cell_is_never_done_again_and_a_doubled_one_once(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, Answer)
    assert done([Double(1)], shelf, 1) == 3
    assert shelf.unfinished([Double(1), Double(2), Double(2)]) == [Double(2)]
    assert done([Double(1), Double(2), Double(2)], shelf, 1) == 3


@pytest.mark.parametrize("workers", [1, 2])
def test_a_cell_that_cannot_be_done_says_why_and_others_stay(workers: int, tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, Answer)
    run_cells([Double(1)], shelf, 1, lambda steps: None)
    with pytest.raises(TrainingError, match="7 cannot be doubled"):
        run_cells([Refusing(7), Refusing(7, 4), Double(1)], shelf, workers, lambda steps: None)
    assert shelf.result(Double(1)).value == 2
    assert shelf.unfinished([Refusing(7)]) == [Refusing(7)]


def test_a_worker_that_dies_is_told(tmp_path: Path) -> None:
    cells: list[Cell[Answer]] = [Dying(1), Dying(2)]
    with pytest.raises(TrainingError, match="a worker died") as caught:
        run_cells(cells, Shelf(tmp_path, Answer), 2, lambda steps: None)
    assert "--workers 1" in str(caught.value)
