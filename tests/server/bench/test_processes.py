"""What processes cost, read off processes that really run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from server.bench.processes import busy_seconds, children, cpu_seconds, pss_bytes, usage_of

# A main process with a working thread of the engine's name, an idle one, and a working child.
PROGRAM = """
import subprocess, sys, threading, time
from server.thread_names import ENGINE, thread_named

def work(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass

if len(sys.argv) > 1:
    work(0.3)
    print("worked", flush=True)
    sys.stdin.read()
    sys.exit()
child = subprocess.Popen([sys.executable, __file__, "child"], stdout=subprocess.PIPE)

def engine():
    with thread_named(ENGINE):
        work(0.6)
        print("ready", child.stdout.readline(), flush=True)
        sys.stdin.read()

thread = threading.Thread(target=engine)
thread.start()
thread.join()
"""


@contextmanager
def working(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    path = tmp_path_factory.mktemp("program") / "program.py"
    path.write_text(PROGRAM)
    pipe = subprocess.PIPE
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, str(path)], stdin=pipe, stdout=pipe, env=environ
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline().startswith(b"ready")
            yield process.pid
        finally:
            for one in [*psutil.Process(process.pid).children(), process]:
                one.kill()


def test_processor_time_is_told_by_role(tmp_path_factory: pytest.TempPathFactory) -> None:
    with working(tmp_path_factory) as pid:
        usage = usage_of(pid)
        [child] = psutil.Process(pid).children()
        assert children(pid) == [child.pid]
        assert usage.ingest == pytest.approx(sum(child.cpu_times()[:2]), abs=0.05)
        assert 0.55 <= usage.engine <= 0.75
        assert usage.total == pytest.approx(
            sum(sum(one.cpu_times()[:2]) for one in (child, psutil.Process(pid))), abs=0.05
        )
        assert (usage - usage).total == 0


def test_memory_is_that_of_all_its_processes(tmp_path_factory: pytest.TempPathFactory) -> None:
    with working(tmp_path_factory) as pid:
        family = [psutil.Process(pid), *psutil.Process(pid).children()]
        theirs = sum(one.memory_full_info().pss for one in family)
        assert pss_bytes(pid) == pytest.approx(theirs, rel=0.05)


def test_a_process_that_is_gone_costs_nothing() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert (cpu_seconds(gone.pid), pss_bytes(gone.pid), children(gone.pid)) == (0, 0, [])
    assert usage_of(gone.pid).total == 0


def test_everybody_is_busy_for_at_least_as_long_as_this_process() -> None:
    everybody, own = busy_seconds(), time.process_time()
    while time.process_time() < own + 0.3:
        pass
    # The kernel counts in hundredths, and each processor by itself.
    assert busy_seconds() - everybody > 0.25


def test_own_time_is_what_the_clock_of_processes_says() -> None:
    end = time.process_time() + 0.1
    while time.process_time() < end:
        pass
    assert cpu_seconds(os.getpid()) == pytest.approx(time.process_time(), abs=0.05)
