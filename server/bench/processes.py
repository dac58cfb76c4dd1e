"""What processes cost, as Linux tells it: processor time by role, and memory.

Read from /proc: the image that runs the server has no library for it, and the shares of
single threads are in none.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

from server.thread_names import ENGINE

_PSS = re.compile(r"^Pss:\s+(\d+) kB$", re.MULTILINE)
_TICKS = os.sysconf("SC_CLK_TCK")
_KIB = 1024


@dataclass(frozen=True, slots=True)
class Usage:
    """Processor time of a server, in core-seconds.

    Attributes:
        ingest: of the decode workers.
        engine: of the threads that run the bundle.
        rest: gRPC, the store, metrics and all else of the main process.
    """

    ingest: float
    engine: float
    rest: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.ingest + self.engine + self.rest

    def __sub__(self, earlier: Self) -> Self:
        return type(self)(
            *(getattr(self, one.name) - getattr(earlier, one.name) for one in fields(self))
        )


def usage_of(pid: int) -> Usage:
    """What a server has used so far.

    Args:
        pid: of its main process.
    """
    ingest = sum(_cpu_seconds(_stat(Path(f"/proc/{child}"))) for child in children(pid))
    engine = whole = 0.0
    for task in _tasks(pid):
        stat = _stat(task)
        seconds = _cpu_seconds(stat)
        whole += seconds
        engine += seconds if _name(stat) == ENGINE else 0.0
    # Threads that have ended are in the process's time alone.
    main = max(whole, _cpu_seconds(_stat(Path(f"/proc/{pid}"))))
    return Usage(ingest, engine, main - engine)


def pss_bytes(pid: int) -> int:
    """Memory of a process and all that it started, shared pages divided among their users."""
    return sum(_pss_bytes(one) for one in (pid, *children(pid)))


def cpu_seconds(pid: int) -> float:
    """Processor time of one process so far; 0 once it has ended."""
    return _cpu_seconds(_stat(Path(f"/proc/{pid}")))


def busy_seconds() -> float:
    """Processor time of everybody on the cores that this process may run on, so far.

    What the hypervisor gave to others counts too.
    """
    ours = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    lines = (line.split() for line in Path("/proc/stat").read_text().splitlines())
    return sum(
        sum(int(ticks) for ticks in fields[1:4] + fields[6:9]) / _TICKS
        for fields in lines
        if fields and fields[0] in ours
    )


def children(pid: int) -> list[int]:
    """All that a process has started, however deep."""
    parents = {
        int(path.name): _parent(_stat(path)) for path in Path("/proc").iterdir() if _is_pid(path)
    }
    found, wanted = [], [pid]
    while wanted:
        parent = wanted.pop()
        below = [one for one, its_parent in parents.items() if its_parent == parent]
        found += below
        wanted += below
    return found


def _is_pid(path: Path) -> bool:
    return path.name.isdigit()


def _tasks(pid: int) -> Iterator[Path]:
    try:
        yield from Path(f"/proc/{pid}/task").iterdir()
    except OSError:  # it has ended
        return


def _stat(path: Path) -> str:
    try:
        return (path / "stat").read_text()
    except OSError:  # it ended in between
        return ""


# A name stands in parentheses and may hold any character, a parenthesis too.
def _name(stat: str) -> str:
    return stat[stat.find("(") + 1 : stat.rfind(")")]


def _parent(stat: str) -> int:
    values = stat[stat.rfind(")") + 1 :].split()
    return int(values[1]) if values else 0


def _cpu_seconds(stat: str) -> float:
    values = stat[stat.rfind(")") + 1 :].split()
    return (int(values[11]) + int(values[12])) / _TICKS if values else 0.0


def _pss_bytes(pid: int) -> int:
    try:
        found = _PSS.search(Path(f"/proc/{pid}/smaps_rollup").read_text())
    except OSError:  # it ended in between
        return 0
    return int(found[1]) * _KIB if found else 0
