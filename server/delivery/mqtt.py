"""One MQTT broker: every change as an event, every stream's state retained.

The state that is retained is that of the store when it is published, not that of the
change being delivered: a delivery that comes late or is replayed never sets it back.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass

from server.delivery.broker import Broker, BrokerLogin
from server.delivery.discovery import OFF, OFFLINE, ON, ONLINE, Topics, discovery_message
from server.delivery.events import event_bytes, record_json
from server.delivery.retries import Failure
from server.delivery.worker import StoreCalls
from server.delivery_records import DueDelivery
from server.store.alarms import Alarm, Alarms
from server.store.database import StoreError

logger = logging.getLogger(__name__)

_FOLLOW_SECONDS = 2.0
_STOP_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class MqttOptions:
    """What is published.

    Attributes:
        topics: where.
        source: the server, as events call it.
        discover: tell Home Assistant of the streams.
        device_class: of Home Assistant's binary sensors.
        timeout_seconds: for a broker to acknowledge.
    """

    topics: Topics
    source: str
    discover: bool
    device_class: str
    timeout_seconds: float


class MqttSink:
    """Delivers to one broker, and keeps its picture of the streams true.

    Args:
        login: how to connect; its will is set here.
        options: what is published.
        alarms: how the streams stand.
        in_store: runs calls to the store outside the loop.
    """

    attempts_at_a_time = 4

    def __init__(
        self, login: BrokerLogin, options: MqttOptions, alarms: Alarms, in_store: StoreCalls
    ) -> None:
        self.name = login.url.sink
        self._options = options
        self._topics = options.topics
        self._alarms = alarms
        self._in_store = in_store
        self._broker = Broker(login, self._on_connected, self._on_lost, self._on_retained)
        self._announced: set[str] = set()
        self._changed = asyncio.Event()
        self._fresh = False
        self._ready: Callable[[], None] = lambda: None
        self._lost: Callable[[str], None] = lambda _: None
        self._following: asyncio.Task[None] | None = None

    async def start(self, ready: Callable[[], None], lost: Callable[[str], None]) -> None:
        """Connect; told are when the connection stands, and why it does not."""
        self._ready, self._lost = ready, lost
        self._broker.start()
        self._following = asyncio.create_task(self._follow())

    async def deliver(self, due: DueDelivery) -> Failure | None:
        """Publish a change and how its stream stands; None once the broker has both."""
        stream_id = due.change.stream_id
        alarm = await self._in_store(self._alarms.alarm, stream_id)
        event = event_bytes(due.change, self._options.source)
        try:
            acknowledged = [self._publish(self._topics.event(stream_id), event, retain=False)]
            if alarm is not None:
                acknowledged += self._publish_alarm(stream_id, alarm)
            async with asyncio.timeout(self._options.timeout_seconds):
                await asyncio.gather(*acknowledged)
        except TimeoutError:
            return Failure(f"no acknowledgement within {self._options.timeout_seconds:g} s")
        except ConnectionError as error:
            return Failure(str(error))
        return None

    async def stop(self) -> None:
        """Say that the server is gone, and disconnect."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait([self._following])
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(_STOP_SECONDS):
                await self._publish(self._topics.status, OFFLINE, retain=True)
        await self._broker.stop()

    def _on_connected(self) -> None:
        self._fresh = True
        self._changed.set()
        self._ready()

    def _on_lost(self, reason: str) -> None:
        self._lost(reason)

    def _on_retained(self, topic: str, payload: bytes) -> None:
        # A stream that was deleted while the broker or we were away.
        stream_id = self._topics.stream_of(topic)
        if stream_id and payload and stream_id not in self._announced:
            with contextlib.suppress(ConnectionError):  # the next connection tells of it again
                self._clear(stream_id)

    async def _follow(self) -> None:
        """Tell the broker of streams that come, and have it forget those that go."""
        while True:
            self._changed.clear()
            try:
                if self._broker.is_connected:
                    await self._update()
            except (StoreError, ConnectionError) as error:
                self._fresh = True  # all of it again, once that is mended
                logger.debug("%s: streams not announced (%s)", self.name, error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FOLLOW_SECONDS):
                    await self._changed.wait()

    async def _update(self) -> None:
        if self._fresh:
            self._announced.clear()
        streams = await self._in_store(self._alarms.streams)
        for stream_id in sorted(streams - self._announced):
            await self._announce(stream_id)
        for stream_id in sorted(self._announced - streams):
            self._announced.remove(stream_id)
            self._clear(stream_id)
        if self._fresh:
            self._fresh = False
            # Last, so that nobody believes a state of before.
            self._publish(self._topics.status, ONLINE, retain=True)
            self._broker.subscribe(self._topics.alert("+"))

    async def _announce(self, stream_id: str) -> None:
        alarm = await self._in_store(self._alarms.alarm, stream_id)
        if alarm is None:
            return
        if self._options.discover:
            message = discovery_message(self._topics, stream_id, self._options.device_class)
            self._publish(self._topics.discovery(stream_id), message, retain=True)
        self._publish_alarm(stream_id, alarm)
        self._announced.add(stream_id)

    def _publish_alarm(self, stream_id: str, alarm: Alarm) -> list[asyncio.Future[None]]:
        sent = []
        if alarm.newest is not None:
            attributes = json.dumps(record_json(alarm.newest))
            sent.append(self._publish(self._topics.attributes(stream_id), attributes, retain=True))
        # The state last: whoever acts on it finds the attributes there.
        state = ON if alarm.is_on else OFF
        sent.append(self._publish(self._topics.alert(stream_id), state, retain=True))
        return sent

    def _clear(self, stream_id: str) -> None:
        """Have the broker forget a stream: an empty message takes the retained one away."""
        topics = [self._topics.attributes(stream_id), self._topics.alert(stream_id)]
        if self._options.discover:
            topics.insert(0, self._topics.discovery(stream_id))
        for topic in topics:
            self._publish(topic, b"", retain=True)

    def _publish(self, topic: str, payload: str | bytes, *, retain: bool) -> asyncio.Future[None]:
        return self._broker.publish(topic, payload, retain=retain)
