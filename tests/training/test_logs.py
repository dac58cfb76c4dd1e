"""A run's curves, and what is left of them after an interruption."""

from __future__ import annotations

import math
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from training.logs import CURVES, Curves, read_curves

NAMES = ("loss", "lambda")


def log(folder: Path, steps: range, first_step: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with Curves(folder, NAMES, first_step) as curves:
        for step in steps:
            curves.write(step, {"loss": step / 3, "lambda": math.nan if step % 2 else 0.5})


def test_curves_read_back_and_tensorboard_shows_the_same(tmp_path: Path) -> None:
    log(tmp_path, range(4))
    found = read_curves(tmp_path)
    assert found["step"] == [0, 1, 2, 3]
    assert [round(value, 6) for value in found["loss"]] == [0, 0.333333, 0.666667, 1]
    assert [math.isnan(value) for value in found["lambda"]] == [False, True, False, True]
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in board.Scalars("lambda")] == [0, 2]


def test_a_resumed_run_has_the_curves_of_one_that_was_never_interrupted(tmp_path: Path) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    log(whole, range(10))
    log(resumed, range(7))
    with (resumed / CURVES).open("a") as file:
        file.write("7,0.1")  # killed in mid-line
    log(resumed, range(4, 10), first_step=4)
    assert (resumed / CURVES).read_bytes() == (whole / CURVES).read_bytes()
    board = EventAccumulator(str(resumed / "tensorboard")).Reload()
    assert [event.step for event in board.Scalars("loss")] == list(range(10))


def test_no_two_files_of_a_folder_begin_with_the_same_second(tmp_path: Path) -> None:
    log(tmp_path, range(2))
    log(tmp_path, range(1, 3), first_step=1)
    names = sorted(path.name for path in (tmp_path / "tensorboard").iterdir())
    assert len({name.split(".")[3] for name in names}) == len(names) == 2
