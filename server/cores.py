"""How much processor there is to use, and how much was used."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_FIELDS_BEFORE_TIMES = 11
"""Fields of /proc/PID/stat between the command, which may hold spaces, and the times."""


def usable_cores(cgroups: Path = _CGROUPS) -> float:
    """Cores that this process may use: those it may run on, or the quota of its container.

    Args:
        cgroups: where the kernel shows the container's limits.

    Returns:
        Over 0; no whole number where a quota is none.
    """
    allowed = float(len(os.sched_getaffinity(0)))
    quota = _quota_cores(cgroups)
    return allowed if quota is None else min(allowed, quota)


def _quota_cores(cgroups: Path) -> float | None:
    """Cores by quota, None without one; of cgroups 2, else 1, as a container sees its own."""
    with contextlib.suppress(OSError, ValueError):
        quota, period = (cgroups / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    with contextlib.suppress(OSError, ValueError):
        quota_us = int((cgroups / "cpu/cpu.cfs_quota_us").read_text())
        period_us = int((cgroups / "cpu/cpu.cfs_period_us").read_text())
        return quota_us / period_us if quota_us > 0 else None
    return None


def cpu_seconds_of(pid: int) -> float | None:
    """Processor time that a process has used so far, all its threads; None where it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    user, system = fields[_FIELDS_BEFORE_TIMES : _FIELDS_BEFORE_TIMES + 2]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
