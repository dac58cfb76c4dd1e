"""Processes that work at the same time, each counting its own processor time.

What is measured has whole processes for itself, as the server's workers are: none shares an
interpreter with whoever measures. All are ready before any begins, and all end by the clock.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Protocol, TypeVar

from server import cores
from server.ingest.process import worker_environment

MOST_PROCESSES = 256

READY_SECONDS = 180.0
"""The largest encoders take half a minute to load, and several load at once."""

_ANSWER_GRACE_SECONDS = 60.0
_REAP_SECONDS = 5.0

T = TypeVar("T")


class BenchError(RuntimeError):
    """Something cannot be measured; the message is the one sentence to print."""


class Work(Protocol):
    """What a member of the crew does over and over; it travels to the member's process."""

    def prepare(self) -> Callable[[], int]:
        """Load all that it takes and run it once; the step returned tells its units of work."""


@dataclass(frozen=True, slots=True)
class Share:
    """What one member did.

    Attributes:
        units: of work.
        cpu_seconds: of its process, all threads, user and system together.
        seconds: by the clock.
    """

    units: int
    cpu_seconds: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Ready:
    """A member has prepared its work."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A member cannot work; why, in one sentence."""

    sentence: str


def usable_cores() -> int:
    """Whole processors that this process, and what it starts, may use; at least 1."""
    return max(1, round(cores.usable_cores()))


def work_together(work: Work, processes: int, seconds: float) -> list[Share]:
    """Let so many fresh processes work at once.

    Args:
        work: done by each.
        processes: 1 to 256.
        seconds: by the clock, over 0; a step that has begun is finished.

    Raises:
        BenchError: the numbers make no sense, or a member could not prepare or finish.
    """
    if not 1 <= processes <= MOST_PROCESSES:
        raise BenchError(f"processes ({processes}) must be 1 to {MOST_PROCESSES}")
    if not 0 < seconds <= 3600:
        raise BenchError(f"seconds ({seconds:g}) must be over 0 and at most 3600")
    with contextlib.ExitStack() as crew:
        members = [crew.enter_context(contextlib.closing(_Member(work))) for _ in range(processes)]
        ready_at_seconds = time.monotonic() + READY_SECONDS
        for member in members:
            member.expect(Ready, ready_at_seconds)
        for member in members:
            member.send(seconds)
        answer_at_seconds = time.monotonic() + seconds + _ANSWER_GRACE_SECONDS
        return [member.expect(Share, answer_at_seconds) for member in members]


class _Member:
    """One process of the crew, from its start to its end."""

    def __init__(self, work: Work) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "server.bench.member", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for whoever measures
                env=worker_environment(),
            )
        self._connection = Connection(ours.detach())
        self.send(work)

    def send(self, message: object) -> None:
        with contextlib.suppress(OSError):  # `expect` tells why it is gone
            self._connection.send(message)

    def expect(self, kind: type[T], until_seconds: float) -> T:
        """Its next message, which must be of that kind."""
        try:
            if not self._connection.poll(max(0.0, until_seconds - time.monotonic())):
                raise BenchError("a measuring process hangs; measure again, or on a freer machine")
            message = self._connection.recv()
        except (EOFError, OSError):
            code = self._process.wait(_REAP_SECONDS)
            raise BenchError(
                f"a measuring process ended with code {code}; see what it wrote above"
            ) from None
        if isinstance(message, Failure):
            raise BenchError(message.sentence)
        assert isinstance(message, kind), message
        return message

    def close(self) -> None:
        self._process.kill()
        self._process.wait(_REAP_SECONDS)
        self._connection.close()
