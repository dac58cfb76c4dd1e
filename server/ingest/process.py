"""One worker process seen from its parent: start, talk, watch, end, reap."""

from __future__ import annotations

import os
import queue
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import server
from server.ingest.channel import Channel
from server.ingest.messages import Command, Envelope, Heartbeat, Report, Shutdown, WorkerSetup
from server.ingest.orders import EvidenceReport

_START_GRACE_SECONDS = 30.0
_REAP_SECONDS = 5.0
# A worker whose leak was swapped out holds it all the same.
_HELD = re.compile(r"^Vm(?:RSS|Swap):\s+(\d+) kB$", re.MULTILINE)


class WorkerProcess:
    """A started worker.

    Everything it gets to know, credentials too, goes through a socket pair that
    nobody else holds: nothing of it stands in its arguments or environment. The
    worker sees the pair close when its parent dies, however that happens.

    Args:
        setup: sent first.
        deliver: called with every event, from this worker's reader thread.
    """

    def __init__(
        self, setup: WorkerSetup, deliver: Callable[[Envelope | EvidenceReport], None]
    ) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "server.ingest.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # the terminal's Ctrl-C is for the parent alone
                env=worker_environment(),
            )
        self._channel = Channel(ours.detach())
        self._deliver = deliver
        self._alive_at_seconds = time.monotonic() + _START_GRACE_SECONDS
        self._delivering = False
        self._gone = threading.Event()
        self._commands: queue.SimpleQueue[Command | WorkerSetup | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=work, name=f"ingest-{what}-{self.pid}", daemon=True)
            for what, work in (("reader", self._read), ("writer", self._write))
        ]
        self.send(setup)
        for thread in self._threads:
            thread.start()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def gone(self) -> bool:
        """Whether it hung up or ended."""
        return self._gone.is_set() or self._process.poll() is not None

    @property
    def memory_bytes(self) -> int:
        """What it holds, resident or swapped out; 0 where the system does not tell."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text()
        except OSError:
            return 0
        return 1024 * sum(map(int, _HELD.findall(status)))

    def hangs(self, hang_seconds: float) -> bool:
        """Whether it has not given a heartbeat for so long although it was listened to."""
        if self._delivering:
            return False
        return time.monotonic() > self._alive_at_seconds + hang_seconds

    def forgive(self) -> None:
        """Count silence from now: it was the parent that did not listen."""
        self._alive_at_seconds = max(self._alive_at_seconds, time.monotonic())

    def send(self, command: Command | WorkerSetup) -> None:
        """Send a command; a worker that takes none any more counts as gone.

        Returns at once: a worker that hangs while pictures are on their way to it
        must not hold up the commands to the others.
        """
        self._commands.put(command)

    def ask_to_end(self) -> None:
        """Let it close its sources and exit."""
        self.send(Shutdown())

    def wait(self, timeout_seconds: float) -> bool:
        """Wait for its exit; whether it came."""
        try:
            self._process.wait(max(0.0, timeout_seconds))
        except subprocess.TimeoutExpired:
            return False
        return True

    def destroy(self) -> None:
        """End it at once, reap it and close the connection."""
        self._process.kill()
        self._process.wait(_REAP_SECONDS)
        self._commands.put(None)
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(_REAP_SECONDS)
        self._channel.close()

    def _write(self) -> None:
        while (command := self._commands.get()) is not None:
            try:
                self._channel.send(command)
            except OSError:
                self._gone.set()
                return

    def _read(self) -> None:
        try:
            while True:
                try:
                    report: Report = self._channel.receive()
                except (EOFError, OSError):
                    break
                if isinstance(report, Heartbeat):
                    self._alive_at_seconds = time.monotonic()
                    continue
                self._delivering = True
                self._deliver(report)
                self._alive_at_seconds = max(self._alive_at_seconds, time.monotonic())
                self._delivering = False
        finally:
            # Also where this thread fails, for want of memory say: a worker that nobody
            # listens to any more must be replaced.
            self._gone.set()


def worker_environment() -> dict[str, str]:
    """The parent's, with the project importable and NumPy's thread pools kept small.

    Its settings stay behind: one of them may be the store's URL with a password.
    """
    package_root = str(Path(server.__file__).resolve().parent.parent)
    paths = [package_root, *filter(None, [os.environ.get("PYTHONPATH")])]
    kept = {name: text for name, text in os.environ.items() if not name.startswith("GVVAD_")}
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(paths),
        "OPENBLAS_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "2",
    }
