"""Several runs, or Ray's workers, on one folder leave what one run leaves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.generating import Run
from tests.training.generate.conftest import Write, arguments, files
from training.cli import main
from training.clips import TrainingError
from training.generate.folder import Shard
from training.generate.generator import Order


def test_shards_take_every_row_once() -> None:
    orders = [Order(str(number), "x", number) for number in range(10)]
    dealt = [Shard(index, 3).of(orders) for index in (1, 2, 3)]
    assert [order.seed for order in dealt[0]] == [0, 3, 6, 9]
    assert sorted(order.seed for part in dealt for order in part) == list(range(10))
    with pytest.raises(TrainingError, match=r"--shard \(0/3\) must be i/n"):
        Shard(0, 3)


def test_shards_one_after_another_leave_what_one_run_leaves(
    descriptions: Write, cogvideox: Path, three: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    rows = descriptions(3)
    assert main(arguments(rows, cogvideox, out, "--shard", "2/2")) == 0
    assert set(files(out)) == {"d1.mp4"}
    assert main(arguments(rows, cogvideox, out, "--shard", "1/2")) == 0
    assert files(out) == files(three)
    assert (out / "manifest.jsonl").read_bytes() == (three / "manifest.jsonl").read_bytes()


@pytest.mark.long
def test_shards_at_the_same_time_leave_what_one_run_leaves(
    descriptions: Write, cogvideox: Path, tmp_path: Path
) -> None:
    rows = descriptions(12)
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    assert main(arguments(rows, cogvideox, alone)) == 0
    given = arguments(rows, cogvideox, shared)
    running = [Run([*given, "--shard", f"{index}/3"]) for index in (1, 2, 3)]
    assert [run.exit_code(100) for run in running] == [0, 0, 0]
    assert files(shared) == files(alone)
    assert (shared / "manifest.jsonl").read_bytes() == (alone / "manifest.jsonl").read_bytes()


@pytest.mark.long
def test_rays_workers_leave_what_one_process_leaves(
    descriptions: Write, cogvideox: Path, three: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    given = arguments(descriptions(3), cogvideox, out, "--ray", "--workers", "2")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())}
    command = [sys.executable, "-m", "training", *given]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert "3 of 3 videos in" in finished.stdout
    assert files(out) == files(three)
    assert (out / "manifest.jsonl").read_bytes() == (three / "manifest.jsonl").read_bytes()
