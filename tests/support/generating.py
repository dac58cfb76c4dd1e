"""`gvvad-train generate` in processes of its own that need not import anything first.

Importing diffusers takes seconds, and a run that is to be killed or sharded is started often: it is
forked from a process that has imported `tests.support.generating_packages`.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Sequence
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext

import pytest

from training.cli import main


class Run:
    """One run, begun."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._process = _context().Process(target=_run, args=(list(arguments),))
        self._process.start()

    def runs_after(self, seconds: float) -> bool:
        """Whether it still runs after so long."""
        self._process.join(seconds)
        return self._process.is_alive()

    def exit_code(self, seconds: float) -> int | None:
        """Once it ended, within so long; else None, and it was killed."""
        if self.runs_after(seconds):
            self.kill()
            return None
        return self._process.exitcode

    def kill(self) -> None:
        """As SIGKILL does; it must still run."""
        assert self._process.is_alive(), "the run ended before it was killed"
        self._process.kill()
        self._process.join()


@cache
def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.support.generating_packages"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # as the tests: sums depend on their order
        forkserver.ensure_running()
    return context


def _run(arguments: Sequence[str]) -> None:
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    sys.exit(main(arguments))
