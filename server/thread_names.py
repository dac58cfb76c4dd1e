"""Names of threads as the system sees them, so that its tools tell which one works.

Python names its threads for itself alone. Threads that a library starts take the name of
the thread that started them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

ENGINE = "gvvad-engine"
"""Threads that run the bundle's graphs."""

_OWN_NAME = Path("/proc/thread-self/comm")


@contextlib.contextmanager
def thread_named(name: str) -> Iterator[None]:
    """This thread's name for a while; nothing happens on systems without /proc.

    Args:
        name: of at most 15 characters.
    """
    try:
        before = _OWN_NAME.read_text()
        _OWN_NAME.write_text(name)
    except OSError:
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            _OWN_NAME.write_text(before.rstrip("\n"))
