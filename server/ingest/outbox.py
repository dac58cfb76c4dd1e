"""What one stream has to tell its parent and could not send yet; bounded.

A live stream keeps one window here: a newer one turns it into a skipped window. What
its sampling leaves out comes as a skipped window.
A lossless stream waits instead, for a credit that the parent gives back with
every window that it is done with.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable

from server.ingest.events import (
    FrameStats,
    FrameTaken,
    Reconnected,
    SkippedWindow,
    StatusChanged,
    StreamEvent,
    WindowReady,
    WindowsSkipped,
)
from server.scoring import DropReason
from server.windows import Window, WindowSpan

LOSSLESS_CREDITS = 2
"""Windows of a lossless stream that may be on their way at once."""

MAX_SKIPPED_TOLD = 1024
MAX_PENDING = 32

_WAIT_SECONDS = 0.5


class Outbox:
    """Events of one stream in the order in which they happened.

    Args:
        stream_id: the stream.
        wake: called after there is something to send.
    """

    def __init__(self, stream_id: str, wake: Callable[[], None]) -> None:
        self._stream_id = stream_id
        self._wake = wake
        self._pending: deque[StreamEvent] = deque()
        self._changed = threading.Condition()
        self._credits = LOSSLESS_CREDITS
        self._taken: deque[FrameTaken] = deque()

    def put(self, event: StatusChanged | Reconnected | FrameStats) -> None:
        """Add a rare event; where too many wait, the oldest rare one is forgotten."""
        with self._changed:
            self._pending.append(event)
            if len(self._pending) > MAX_PENDING:
                self._forget_oldest()
        self._wake()

    def offer(self, window: Window) -> None:
        """Add a window of a live stream; a window that still waits is skipped."""
        with self._changed:
            self._pending = _folded(map(_without_images, self._pending))
            self._pending.append(WindowReady(self._stream_id, window))
        self._wake()

    def skip(self, span: WindowSpan, reason: DropReason) -> None:
        """Add a window of a live stream that is not to be scored; it replaces none that waits."""
        skipped = WindowsSkipped(self._stream_id, 1, (SkippedWindow(span, reason),))
        with self._changed:
            self._pending = _folded([*self._pending, skipped])
        self._wake()

    def deliver(self, window: Window, progress: Callable[[], bool]) -> None:
        """Add a window of a lossless stream, as soon as the parent wants one.

        Args:
            window: the next one.
            progress: asked while waiting; False gives up.
        """
        with self._changed:
            while self._credits == 0:
                if not progress():
                    return
                self._changed.wait(_WAIT_SECONDS)
            self._credits -= 1
            self._pending.append(WindowReady(self._stream_id, window))
        self._wake()

    def took(self, *, damaged: bool) -> None:
        """A pushed frame was decoded. Bounded by the frames that may be under way."""
        with self._changed:
            self._taken.append(FrameTaken(self._stream_id, damaged))
        self._wake()

    def acknowledge(self) -> None:
        """The parent is done with one window."""
        with self._changed:
            self._credits = min(self._credits + 1, LOSSLESS_CREDITS)
            self._changed.notify_all()

    def pop(self) -> StreamEvent | None:
        """The next event to send; None where nothing waits."""
        with self._changed:
            # Room first: it matters not to the order of the rest, and the sender waits for it.
            if self._taken:
                return self._taken.popleft()
            return self._pending.popleft() if self._pending else None

    def _forget_oldest(self) -> None:
        for index, event in enumerate(self._pending):
            if isinstance(event, StatusChanged | Reconnected):
                del self._pending[index]
                break
        self._pending = _folded(self._pending)


def _without_images(event: StreamEvent) -> StreamEvent:
    if not isinstance(event, WindowReady):
        return event
    skipped = SkippedWindow(event.window.span, DropReason.BACKLOG)
    return WindowsSkipped(event.stream_id, 1, (skipped,))


def _folded(events: Iterable[StreamEvent]) -> deque[StreamEvent]:
    """The same events, with neighbouring skips made one."""
    folded: deque[StreamEvent] = deque()
    for event in events:
        last = folded[-1] if folded else None
        if isinstance(event, WindowsSkipped) and isinstance(last, WindowsSkipped):
            told = (last.windows + event.windows)[-MAX_SKIPPED_TOLD:]
            folded[-1] = WindowsSkipped(event.stream_id, last.count + event.count, told)
        else:
            folded.append(event)
    return folded
