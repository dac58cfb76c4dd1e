"""Brings one receiver what it is owed, in order for each alert, a few alerts at a time.

An alert whose delivery fails waits by itself; no other waits for it. What became of
an attempt is written down before the next one of its alert begins.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from server.delivery.health import SinkHealth
from server.delivery.retries import Failure, wait_seconds
from server.delivery_records import DueDelivery
from server.store.database import StoreError
from server.store.outbox import Outbox
from server.telemetry import Telemetry

logger = logging.getLogger(__name__)

T = TypeVar("T")

_IDLE_SECONDS = 60.0
_SHORTEST_SECONDS = 0.01
_STORE_PAUSE_SECONDS = 1.0
_HOUR_SECONDS = 3600.0


class Sink(Protocol):
    """One receiver.

    Attributes:
        name: what it is called in the store, metrics and log; no credentials.
        attempts_at_a_time: how many alerts it may be told of at once.
    """

    name: str
    attempts_at_a_time: int

    async def start(self, ready: Callable[[], None], lost: Callable[[str], None]) -> None:
        """Begin to connect.

        Args:
            ready: to be called in this loop when the receiver is there again.
            lost: to be called in this loop, with the reason, when it is not.
        """

    async def deliver(self, due: DueDelivery) -> Failure | None:
        """Try once; None where the receiver took it."""

    async def stop(self) -> None:
        """Let go of the receiver."""


class StoreCalls(Protocol):
    """Runs a call to the store outside the event loop."""

    def __call__(self, call: Callable[..., T], *arguments: Any) -> Awaitable[T]: ...


class SinkWorker:
    """Delivers to one sink until it is stopped.

    Args:
        sink: the receiver.
        outbox: what it is owed.
        in_store: runs the outbox's calls.
        telemetry: where attempts are counted.
        max_age_hours: after so long a delivery is given up.
    """

    def __init__(
        self,
        sink: Sink,
        outbox: Outbox,
        in_store: StoreCalls,
        telemetry: Telemetry,
        max_age_hours: float,
    ) -> None:
        self.sink = sink
        self.health = SinkHealth(sink.name)
        self._outbox = outbox
        self._in_store = in_store
        self._telemetry = telemetry
        self._max_age_hours = max_age_hours
        self._rng = random.Random()
        self._woken = asyncio.Event()
        self._hurry = False
        self._attempts: dict[int, asyncio.Task[None]] = {}
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take up what is due."""
        await self.sink.start(self._ready, self.health.failed)
        self._running = asyncio.create_task(self._run())
        self._running.add_done_callback(self._tell_of_end)

    def wake(self) -> None:
        """There may be something new."""
        self._woken.set()

    async def stop(self, grace_seconds: float) -> None:
        """Begin nothing new, let attempts finish within the grace; the rest stays owed."""
        if self._running is not None:
            await _ended(self._running)
        attempts = list(self._attempts.values())
        if attempts:
            await asyncio.wait(attempts, timeout=grace_seconds)
        for attempt in attempts:
            await _ended(attempt)
        await self.sink.stop()

    def _ready(self) -> None:
        self.health.succeeded()
        self._hurry = True
        self.wake()

    def _tell_of_end(self, running: asyncio.Task[None]) -> None:
        if not running.cancelled() and (error := running.exception()) is not None:
            logger.critical("deliveries to %s end here", self.sink.name, exc_info=error)

    async def _run(self) -> None:
        while True:
            self._woken.clear()
            try:
                pause_seconds = await self._begin_due()
            except StoreError as error:
                self.health.store_failed(str(error))
                pause_seconds = _STORE_PAUSE_SECONDS
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_seconds):
                    await self._woken.wait()

    async def _begin_due(self) -> float:
        """Begin what is due and fits; how long nothing else will be."""
        now, name = time.time(), self.sink.name
        hurry, self._hurry = self._hurry, False
        if hurry:
            await self._in_store(self._outbox.hurry, name, now)
        free = self.sink.attempts_at_a_time - len(self._attempts)
        if free <= 0:
            return _IDLE_SECONDS  # the end of an attempt wakes us
        # What is being tried is still due in the store, and would fill the page alone.
        due = await self._in_store(self._outbox.due, name, now, free + len(self._attempts))
        fresh = [one for one in due if one.delivery.delivery_id not in self._attempts]
        for one in fresh[:free]:
            self._begin(one)
        next_seconds = await self._in_store(self._outbox.next_due, name, now)
        if next_seconds is None:
            return _IDLE_SECONDS
        return min(max(next_seconds - time.time(), _SHORTEST_SECONDS), _IDLE_SECONDS)

    def _begin(self, due: DueDelivery) -> None:
        attempt = asyncio.create_task(self._attempt(due))
        self._attempts[due.delivery.delivery_id] = attempt
        attempt.add_done_callback(lambda _: self._finish(due))

    def _finish(self, due: DueDelivery) -> None:
        del self._attempts[due.delivery.delivery_id]
        self.wake()

    async def _attempt(self, due: DueDelivery) -> None:
        delivering = asyncio.create_task(self.sink.deliver(due))
        try:
            await asyncio.wait([delivering])
        finally:
            await _ended(delivering)
        error = delivering.exception()
        if error is None:
            await self._write_down(due, delivering.result())
            return
        # A fault of ours with one alert must not keep the others from anybody.
        logger.error("%s: event %s", self.sink.name, due.delivery.event_id, exc_info=error)
        await self._write_down(due, Failure("internal error; the server's log says more"))

    async def _write_down(self, due: DueDelivery, failure: Failure | None) -> None:
        delivery_id, now = due.delivery.delivery_id, time.time()
        if failure is None:
            self._telemetry.delivery(self.sink.name, "delivered")
            self.health.succeeded()
            await self._surely(self._outbox.delivered, delivery_id)
            return
        wait = wait_seconds(failure, due.delivery.attempts + 1, self._rng)
        age_seconds = now + (wait or 0.0) - due.since_seconds
        self.health.failed(failure.sentence)
        if wait is None or age_seconds > self._max_age_hours * _HOUR_SECONDS:
            self._telemetry.delivery(self.sink.name, "dead")
            self.health.gave_up(due.delivery.event_id)
            await self._surely(self._outbox.dead, delivery_id, failure.sentence)
        else:
            self._telemetry.delivery(self.sink.name, "failed")
            await self._surely(self._outbox.failed, delivery_id, failure.sentence, now + wait)

    async def _surely(self, call: Callable[..., None], *arguments: Any) -> None:
        # Until it is written down, the same would be delivered again and again.
        while True:
            try:
                return await self._in_store(call, *arguments)
            except StoreError as error:
                self.health.store_failed(str(error))
                await asyncio.sleep(_STORE_PAUSE_SECONDS)


async def _ended(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait for its end, whatever that is."""
    task.cancel()
    await asyncio.wait([task])
