"""Tethered children: they go when the demo lets go, and when it is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil

from server.demo import tether

# Says its process id, then waits for ever.
WAITER = """
import os, sys, time
print("some last words", file=sys.stderr, flush=True)
print(os.getpid(), *sys.argv[1:], flush=True)
time.sleep(600)
"""

PARENT = """
import os, sys, time
from pathlib import Path
from server.demo import tether
child = tether.spawn("waiter", [], dict(os.environ), Path(sys.argv[1]))
print(child.stdout.readline(), end="", flush=True)
time.sleep(600)
"""


def environ_with_waiter(directory: Path) -> dict[str, str]:
    (directory / "waiter.py").write_text(WAITER)
    return os.environ | {"PYTHONPATH": f"{directory}:{Path.cwd()}"}


def test_a_child_is_gone_once_it_was_stopped(tmp_path: Path) -> None:
    log = tmp_path / "log"
    child = tether.spawn("waiter", ["--flag", "a b"], environ_with_waiter(tmp_path), log)
    assert child.stdout is not None
    assert child.stdout.readline() == f"{child.pid} --flag a b\n"
    tether.stop(child)
    assert not psutil.pid_exists(child.pid)
    assert tether.last_words(log) == "some last words"


def test_a_child_that_ended_by_itself_can_still_be_stopped(tmp_path: Path) -> None:
    log = tmp_path / "log"
    child = tether.spawn("no_such_module", [], dict(os.environ), log)
    assert child.wait(30) == 1
    tether.stop(child)
    assert "no_such_module" in tether.last_words(log)


def test_a_child_goes_when_its_parent_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(tmp_path / "log")]
    environ = environ_with_waiter(tmp_path)
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    gone, alive = psutil.wait_procs([child], timeout=15)
    assert [process.pid for process in gone] == [child.pid]
    assert alive == []
