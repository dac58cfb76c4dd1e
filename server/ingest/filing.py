"""The thread of a worker that writes evidence, so that no disk holds up decoding."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

MAX_WAITING_BYTES = 64_000_000
"""Packets of all streams of a worker that wait for the disk; beyond, clips end early."""


class Filing:
    """Does one piece of work after the other, in the order in which they came."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[tuple[Callable[[], None], int]] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._waiting = 0
        self._waiting_bytes = 0
        self._thread = threading.Thread(target=self._run, name="evidence", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def failed(self) -> bool:
        """Whether the thread has ended, which only an error of ours makes it do."""
        return not self._thread.is_alive()

    def submit(self, work: Callable[[], None], size_bytes: int = 0) -> bool:
        """Have something done; from any thread.

        Args:
            work: must raise nothing.
            size_bytes: what it keeps in memory until then.

        Returns:
            False where too much waits already: then it is not done.
        """
        with self._changed:
            if size_bytes and self._waiting_bytes + size_bytes > MAX_WAITING_BYTES:
                return False
            self._waiting += 1
            self._waiting_bytes += size_bytes
        self._work.put((work, size_bytes))
        return True

    def wait(self, timeout_seconds: float) -> bool:
        """Wait until all is done; whether it is."""
        end_seconds = time.monotonic() + timeout_seconds
        with self._changed:
            while self._waiting and (left := end_seconds - time.monotonic()) > 0:
                self._changed.wait(left)
            return not self._waiting

    def _run(self) -> None:
        while True:
            work, size_bytes = self._work.get()
            work()
            del work  # an idle thread must hold no frame
            with self._changed:
                self._waiting -= 1
                self._waiting_bytes -= size_bytes
                self._changed.notify_all()
