"""A live ingest pool under test: what it said, waited for with a deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

from server.contract import WindowSpec
from server.ingest.access import AccessPolicy
from server.ingest.events import IngestEvent, Reconnected, StatusChanged, WindowReady
from server.ingest.pool import IngestPool
from server.ingest.settings import IngestSettings
from server.preprocess import PreprocessSpec
from server.streams import Mode, Reason, SourceUrl, StreamConfig, StreamState, Transport
from server.windows import Window

WAIT_SECONDS = 15.0
WINDOW = WindowSpec(sampled_frames=8, fps=None)
PREPROCESS = PreprocessSpec(112, 112, "squash", "area", "bt601", "declared")
HASTY = IngestSettings(
    workers=1,
    open_timeout_seconds=1.5,
    read_timeout_seconds=1.0,
    backoff_first_seconds=0.2,
    backoff_max_seconds=0.4,
    hang_seconds=2.5,
    access=AccessPolicy(),
)
"""Short timeouts; hang_seconds leaves a worker two heartbeats on a busy machine."""

E = TypeVar("E", bound=IngestEvent)


class Recorder:
    """Keeps every event of a pool, in order, with the monotonic time of its arrival."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._events: list[tuple[float, IngestEvent]] = []

    def __call__(self, event: IngestEvent) -> None:
        with self._changed:
            self._events.append((time.monotonic(), event))
            self._changed.notify_all()

    def of(self, stream_id: str, kind: type[E], after: float = 0.0) -> list[E]:
        """Events of a stream and kind so far, those that came after a monotonic time."""
        with self._changed:
            return [
                event
                for at, event in self._events
                if isinstance(event, kind) and event.stream_id == stream_id and at > after
            ]

    def wait(self, condition: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS) -> None:
        """Wait until a condition holds; it is looked at again after every event."""
        end = time.monotonic() + seconds
        with self._changed:
            while not condition():
                left = end - time.monotonic()
                if left <= 0:
                    told = "\n".join(_brief(event) for _, event in self._events[-30:])
                    raise AssertionError(f"{what}: not within {seconds} s; last events:\n{told}")
                self._changed.wait(min(left, 0.1))

    def wait_state(
        self, stream_id: str, state: StreamState, *, after: float = 0.0
    ) -> StatusChanged:
        """Wait until a stream has entered a state; returns the first such change."""

        def found() -> list[StatusChanged]:
            changes = self.of(stream_id, StatusChanged, after)
            return [change for change in changes if change.state is state]

        self.wait(lambda: bool(found()), f"{stream_id} {state.value}")
        return found()[0]

    def wait_reason(self, stream_id: str, *reasons: Reason, after: float = 0.0) -> StatusChanged:
        """Wait until a stream has failed for one of the reasons; returns that change."""

        def found() -> list[StatusChanged]:
            changes = self.of(stream_id, StatusChanged, after)
            return [
                change
                for change in changes
                if change.reason in reasons and change.state is not StreamState.CONNECTING
            ]

        self.wait(lambda: bool(found()), f"{stream_id} {reasons}")
        return found()[0]

    def wait_windows(self, stream_id: str, count: int, *, after: float = 0.0) -> list[Window]:
        """Wait for windows of a stream that came after a monotonic time."""
        what = f"{count} windows of {stream_id}"
        self.wait(lambda: len(self.of(stream_id, WindowReady, after)) >= count, what)
        return [event.window for event in self.of(stream_id, WindowReady, after)]

    def wait_reconnected(self, stream_id: str, *, after: float = 0.0) -> Reconnected:
        """Wait until a stream's frames flow again."""
        what = f"{stream_id} reconnected"
        self.wait(lambda: bool(self.of(stream_id, Reconnected, after)), what)
        return self.of(stream_id, Reconnected, after)[0]


@contextmanager
def running_pool(
    on_event: Callable[[IngestEvent], None], settings: IngestSettings = HASTY, **changes: object
) -> Iterator[IngestPool]:
    """A started pool, stopped at the end whatever happens."""
    pool = IngestPool(replace(settings, **changes), WINDOW, PREPROCESS, on_event)
    pool.start()
    try:
        yield pool
    finally:
        pool.stop()


def camera(stream_id: str, url: str, transport: Transport = Transport.TCP) -> StreamConfig:
    """A stream that is pulled."""
    return StreamConfig(stream_id, SourceUrl(url), transport=transport)


def listener(stream_id: str, url: str) -> StreamConfig:
    """A stream that is listened for."""
    return StreamConfig(stream_id, SourceUrl(url), mode=Mode.LISTEN)


def _brief(event: IngestEvent) -> str:
    if isinstance(event, WindowReady):
        return f"{event.stream_id} window {event.window.number}"
    return str(event)
