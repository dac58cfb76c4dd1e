"""What tests of faults have in common: bounds, what a server holds, when a stream is back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

from server.scoring import WindowScore
from tests.support.serving import ServerProcess
from tests.support.watching import Scores

Tell = Callable[[str], None]

BACK_SECONDS = 5
SETTLED_SECONDS = 10
NORMAL_LATENCY_SECONDS = 0.5
LONGEST_WINDOW_SECONDS = 1.5
"""16 frames at 25 fps are 0.6 s; a window over a gap of these tests would be longer."""
THREADS_MORE = 8
DESCRIPTORS_MORE = 4
BYTES_MORE = 30_000_000
"""gRPC's own pools come and go, and an allocator keeps some of what it was given back."""


def decode_workers(server: ServerProcess) -> list[psutil.Process]:
    return [p for p in server.processes() if "server.ingest.worker" in p.cmdline()]


def ended_after(scores: list[WindowScore], utc_seconds: float) -> list[WindowScore]:
    return [score for score in scores if score.span.end_capture_seconds > utc_seconds]


def assert_no_window_over_a_gap(scores: list[WindowScore]) -> None:
    for score in scores:
        span = score.span
        assert span.end_capture_seconds - span.start_capture_seconds < LONGEST_WINDOW_SECONDS


def seconds_until_window(scores: Scores, stream_id: str, after_utc_seconds: float) -> float:
    """How long after that moment the first window that begins later was scored in time."""
    while True:
        got = scores.of(stream_id)
        late = [s for s in got if s.span.start_capture_seconds > after_utc_seconds]
        if any(s.latency_seconds < NORMAL_LATENCY_SECONDS for s in late):
            return time.time() - after_utc_seconds
        scores.wait(stream_id, len(got) + 1)


def first_normal(scores: Scores, after_utc_seconds: float) -> float:
    """When, in UTC, a window that ended after that moment was scored with normal latency."""
    while True:
        got = scores.of("cam")
        for score in ended_after(got, after_utc_seconds):
            if score.latency_seconds < NORMAL_LATENCY_SECONDS:
                return score.span.end_capture_seconds + score.latency_seconds
        scores.wait("cam", len(got) + 1)


@dataclass(frozen=True)
class Holdings:
    """What a server holds of its machine, all its processes together.

    After a fault it is back within ten seconds: no process more, at most 8 threads,
    4 descriptors and 30 MB more than before.

    Attributes:
        bytes: memory of its own. Pages of libraries do not count: their share would
            change with every other server that this machine starts or ends.
    """

    processes: int
    threads: int
    descriptors: int
    bytes: int

    @classmethod
    def of(cls, server: ServerProcess) -> Holdings:
        everything = server.processes()
        return cls(
            len(everything),
            sum(process.num_threads() for process in everything),
            sum(process.num_fds() for process in everything),
            sum(_own_bytes(process) for process in everything),
        )

    def assert_again(self, server: ServerProcess, tell: Tell) -> None:
        """Fail unless the server, doing what it did before, is within the bounds again."""
        end_seconds = time.monotonic() + SETTLED_SECONDS
        while True:
            now = Holdings.of(server)
            if now.within_bounds_of(self):
                tell(f"before {self}, after {now}")
                return
            assert time.monotonic() < end_seconds, f"before {self}, now {now}"
            time.sleep(0.5)

    def within_bounds_of(self, before: Holdings) -> bool:
        """Whether no more was added to what there was before than the bounds allow."""
        return (
            self.processes <= before.processes
            and self.threads <= before.threads + THREADS_MORE
            and self.descriptors <= before.descriptors + DESCRIPTORS_MORE
            and self.bytes <= before.bytes + BYTES_MORE
        )

    def __str__(self) -> str:
        megabytes = self.bytes / 1e6
        return (
            f"{self.processes} processes, {self.threads} threads, "
            f"{self.descriptors} descriptors, {megabytes:.0f} MB"
        )


def _own_bytes(process: psutil.Process) -> int:
    memory = process.memory_info()
    return int(memory.rss - memory.shared)


@contextmanager
def unharmed(server: ServerProcess, tell: Tell) -> Iterator[None]:
    """A fault, from a server at its usual work to the same work again.

    It must leave nothing behind: processes, threads, descriptors and memory are
    back within ten seconds, within the bounds of `Holdings`.
    """
    before = Holdings.of(server)
    yield
    before.assert_again(server, tell)
