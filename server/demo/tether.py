"""Children of the demo that never outlive it, even if it is killed.

The demo holds the writing end of each child's standard input and never writes.
When that end closes, for whatever reason, the child stops itself as if by
SIGTERM. `python -m server.demo.tether MODULE [ARGUMENT ...]` runs any module so.
"""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

_GRACE_SECONDS = 8.0


def spawn(
    module: str, arguments: list[str], environ: dict[str, str], log: Path
) -> subprocess.Popen[str]:
    """Start `python -m module` as a tethered child.

    It gets a session of its own: Ctrl-C reaches the demo alone, which then
    stops its children in order.

    Args:
        module: as after `python -m`.
        arguments: its command line.
        environ: its whole environment.
        log: file that takes its standard error; standard output is piped.
    """
    with log.open("w") as errors:
        return subprocess.Popen(
            [sys.executable, "-m", "server.demo.tether", module, *arguments],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )


def stop(child: subprocess.Popen[str]) -> None:
    """Let go of a child and wait until it is gone; kill it if it will not go."""
    assert child.stdin is not None
    child.stdin.close()
    try:
        child.wait(_GRACE_SECONDS + 2)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    assert child.stdout is not None
    child.stdout.close()


def last_words(log: Path) -> str:
    """The last line a child wrote to its log: why it ended."""
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def main(argv: list[str]) -> None:
    """Run a module by name, tethered to standard input."""
    threading.Thread(target=_stop_at_end_of_input, daemon=True).start()
    sys.argv = argv
    runpy.run_module(argv[0], run_name="__main__", alter_sys=True)


def _stop_at_end_of_input() -> None:
    # The file descriptor itself: Python's buffered stdin cannot be read in a
    # daemon thread while the interpreter goes down.
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
