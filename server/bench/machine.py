"""The machine that figures were taken on, since they mean nothing without it."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from server.bench.crew import usable_cores

_TOLD = ("gvvad", "av", "numpy", "onnxruntime", "onnxruntime-gpu", "grpcio")


@dataclass(frozen=True, slots=True)
class Machine:
    """What decides over figures.

    Attributes:
        cpu: model of the processor, as it names itself.
        cores: that programs of this user may run on.
        memory_bytes: of the machine.
        system: kernel and its version.
        python: version.
        packages: version by name.
    """

    cpu: str
    cores: int
    memory_bytes: int
    system: str
    python: str
    packages: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return f"{self.cores} cores of {self.cpu}, {self.memory_bytes / 1e9:.0f} GB"


def this_machine() -> Machine:
    """Ask the system."""
    return Machine(
        cpu=_cpu(),
        cores=usable_cores(),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        packages=tuple((name, found) for name in _TOLD if (found := _version(name))),
    )


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
