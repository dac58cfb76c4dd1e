"""One publisher, many watchers, and none of them can slow the pipeline.

`publish` never waits: a watcher that falls behind loses its oldest items and
is told how many before its next one. Memory is bounded by capacity times
watchers, however slow they are.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Generic, Protocol, TypeVar


class OfStream(Protocol):
    """Anything that belongs to one stream."""

    @property
    def stream_id(self) -> str: ...


T = TypeVar("T", bound=OfStream)


class HubFullError(RuntimeError):
    """All places for watchers are taken; the message is the sentence for the client."""


class Subscription(Generic[T]):
    """One watcher's bounded queue: an async iterator of `(missed, item)`.

    `missed` counts the items lost before this one since the one before it.
    Iteration ends when the hub ends the subscription; what is queued then is
    still delivered.
    """

    def __init__(self, stream_id: str | None, capacity: int) -> None:
        self.stream_id = stream_id
        # Bounded by its type: appending to a full one drops the oldest by itself.
        self._items: deque[T] = deque(maxlen=capacity)
        self._missed = 0
        self._ended = False
        self._lock = threading.Lock()
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()

    def offer(self, item: T) -> None:
        """Queue an item from any thread; the oldest makes room."""
        with self._lock:
            if self._ended:
                return
            idle = not self._items
            if len(self._items) == self._items.maxlen:
                self._missed += 1
            self._items.append(item)
        # Only the first item of a burst wakes the watcher, or a fast publisher would flood
        # the loop with callbacks.
        if idle:
            self._call_watcher()

    def end(self) -> None:
        """Let iteration end once the queue is empty; from any thread."""
        with self._lock:
            self._ended = True
        self._call_watcher()

    def __aiter__(self) -> Subscription[T]:
        return self

    async def __anext__(self) -> tuple[int, T]:
        while True:
            # Cleared before the look: what is offered after it wakes the wait below.
            self._wake.clear()
            with self._lock:
                if self._items:
                    missed, self._missed = self._missed, 0
                    return missed, self._items.popleft()
                if self._ended:
                    raise StopAsyncIteration
            await self._wake.wait()

    def _call_watcher(self) -> None:
        # A loop that closed under its watcher has nobody left to wake.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._wake.set)


class Hub(Generic[T]):
    """Hands every published item to all who watch its stream.

    Args:
        capacity: items that one watcher may lag behind before it loses the oldest.
        max_subscriptions: watchers at a time.
    """

    def __init__(self, capacity: int = 256, max_subscriptions: int = 100) -> None:
        if capacity < 1 or max_subscriptions < 1:
            raise ValueError(
                f"capacity ({capacity}) and max_subscriptions ({max_subscriptions}) must be >= 1"
            )
        self._capacity = capacity
        self._max_subscriptions = max_subscriptions
        # Replaced, never changed in place: `publish` walks it without the lock.
        self._subscriptions: tuple[Subscription[T], ...] = ()
        self._closed = False
        self._lock = threading.Lock()

    @property
    def subscriptions(self) -> int:
        """Watchers now."""
        return len(self._subscriptions)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def publish(self, item: T) -> None:
        """Hand an item to its watchers; from any thread, never waits."""
        for subscription in self._subscriptions:
            if subscription.stream_id in (None, item.stream_id):
                subscription.offer(item)

    def publish_to_all(self, item: T) -> None:
        """Hand an item to every watcher, of whatever stream; else as `publish`."""
        for subscription in self._subscriptions:
            subscription.offer(item)

    @asynccontextmanager
    async def subscribe(self, stream_id: str | None = None) -> AsyncIterator[Subscription[T]]:
        """Watch one stream, or all of them where `stream_id` is None.

        Raises:
            HubFullError: too many watch already.
        """
        subscription: Subscription[T] = Subscription(stream_id, self._capacity)
        with self._lock:
            if len(self._subscriptions) >= self._max_subscriptions:
                raise HubFullError(
                    f"all {self._max_subscriptions} places for watchers are taken; "
                    "end another watch first"
                )
            self._subscriptions = (*self._subscriptions, subscription)
            # Whoever comes after the close must not wait for ever.
            if self._closed:
                subscription.end()
        try:
            yield subscription
        finally:
            with self._lock:
                kept = (other for other in self._subscriptions if other is not subscription)
                self._subscriptions = tuple(kept)

    def end_stream(self, stream_id: str) -> None:
        """End the watches of one stream, because it is gone; watches of all go on."""
        for subscription in self.watching(stream_id):
            subscription.end()

    def watching(self, stream_id: str) -> tuple[Subscription[T], ...]:
        """Those that watch one stream alone."""
        return tuple(one for one in self._subscriptions if one.stream_id == stream_id)

    def close(self) -> None:
        """End every watch, now and to come, because the server stops."""
        with self._lock:
            self._closed = True
        for subscription in self._subscriptions:
            subscription.end()
