"""Decode workers that really leak: the interpreter's own hook makes any of them grow.

`sitecustomize` is imported at the start of every Python process that has the leak's
directory in PYTHONPATH, so the product needs no hook of its own.
"""

from __future__ import annotations

import os
from pathlib import Path

_SITECUSTOMIZE = """
import os, sys, threading, time

def leak(pids):
    held = []
    while True:
        try:
            named = open(pids).read().split()
        except OSError:
            named = []
        if str(os.getpid()) in named:
            held.append(b"x" * 5_000_000)
        time.sleep(0.05)

if "server.ingest.worker" in sys.orig_argv:
    pids = os.path.join(os.path.dirname(__file__), "pids")
    threading.Thread(target=leak, args=[pids], daemon=True).start()
"""


class Leak:
    """A leak of 100 MB a second in the workers that it is told to spoil."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        (directory / "sitecustomize.py").write_text(_SITECUSTOMIZE)
        self._pids = directory / "pids"
        paths = [str(directory), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.variables = {"PYTHONPATH": os.pathsep.join(paths)}

    def spoil(self, pid: int) -> None:
        """Let this worker leak from now on."""
        self._pids.write_text(str(pid))
