"""Cores by affinity and by the container's quota, and the time of processes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from server.cores import cpu_seconds_of, usable_cores
from server.ingest.settings import decode_processes, decoders_at_once


def test_without_a_quota_the_affinity_counts(tmp_path: Path) -> None:
    assert usable_cores(tmp_path) == len(os.sched_getaffinity(0))
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert usable_cores(tmp_path) == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "50000 100000\n"}, 0.5),
        ({"cpu/cpu.cfs_quota_us": "75000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.75),
    ],
)
def test_a_quota_bounds_the_cores(tmp_path: Path, files: dict[str, str], cores: float) -> None:
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert usable_cores(tmp_path) == cores


def test_no_quota_of_the_first_cgroups_is_none(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("-1\n")
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert usable_cores(tmp_path) == len(os.sched_getaffinity(0))


def test_a_quota_larger_than_the_machine_counts_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("100000000 100000\n")
    assert usable_cores(tmp_path) == len(os.sched_getaffinity(0))


def test_processor_time_of_a_process_rises_as_it_works() -> None:
    before = cpu_seconds_of(os.getpid())
    assert before is not None
    deadline = time.process_time() + 0.05
    while time.process_time() < deadline:
        pass
    after = cpu_seconds_of(os.getpid())
    assert after is not None
    assert 0.02 <= after - before < 5


def test_a_process_that_is_gone_took_nothing() -> None:
    assert cpu_seconds_of(2**22 + 1) is None


def test_decode_processes_follow_the_cores() -> None:
    assert [decode_processes(cores) for cores in (0.5, 1, 2, 4, 16, 500)] == [2, 2, 2, 4, 16, 64]


def test_each_process_decodes_its_part_at_a_time() -> None:
    asked = [(1, 2), (2, 2), (2, 1), (4, 4), (16, 4), (64, 64)]
    assert [decoders_at_once(cores, workers) for cores, workers in asked] == [1, 1, 2, 1, 4, 1]
