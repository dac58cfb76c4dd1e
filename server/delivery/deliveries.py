"""Everything that is delivered: the receivers of the settings, their workers, their backlog.

`write` belongs into the transactions that write changes of alerts down, `wake` after
them. What is owed to a receiver that the settings name no more is dead at the start.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy.engine import Connection

from server.alert_records import AlertChange
from server.delivery.broker import BrokerLogin
from server.delivery.discovery import OFFLINE, Topics
from server.delivery.mqtt import MqttOptions, MqttSink
from server.delivery.receivers import BrokerUrl, ReceiverError
from server.delivery.signing import Signer, read_secrets
from server.delivery.webhook import WebhookSink
from server.delivery.worker import SinkWorker
from server.delivery_records import Delivery, DeliveryFilter
from server.setting_groups import MqttSettings, WebhookSettings
from server.store.alarms import Alarms
from server.store.database import Database, StoreError
from server.store.outbox import Outbox
from server.telemetry import Telemetry

logger = logging.getLogger(__name__)

T = TypeVar("T")

_COUNT_SECONDS = 2.0
_PURGE_SECONDS = 3600.0
_GRACE_SECONDS = 0.5
KEPT_SECONDS = 7 * 86_400.0
"""How long a delivery that succeeded can still be listed."""


class Deliveries:
    """The deliveries of one server. `start` it and `stop` it once, in one event loop.

    Args:
        database: with the log of changes.
        webhook: HTTP receivers.
        mqtt: the broker.
        telemetry: where attempts and backlogs are counted.

    Raises:
        ReceiverError: a receiver cannot be used, or a file of its secrets.
    """

    def __init__(
        self,
        database: Database,
        webhook: WebhookSettings,
        mqtt: MqttSettings,
        telemetry: Telemetry,
    ) -> None:
        self._telemetry = telemetry
        # One thread: the store takes one call at a time, and its waits must not fill
        # the threads that others need.
        self._store_thread = ThreadPoolExecutor(1, thread_name_prefix="deliveries")
        sinks = [(sink, webhook.max_age_hours) for sink in _webhooks(webhook)]
        if mqtt.url is not None:
            broker = _mqtt(mqtt, mqtt.url, Alarms(database), self._in_store)
            sinks.append((broker, mqtt.max_age_hours))  # type: ignore[arg-type]
        self._outbox = Outbox(database, [sink.name for sink, _ in sinks])
        self._workers = [
            SinkWorker(sink, self._outbox, self._in_store, telemetry, max_age_hours)
            for sink, max_age_hours in sinks
        ]
        self._loop: asyncio.AbstractEventLoop | None = None
        self._counting: asyncio.Task[None] | None = None

    @property
    def sinks(self) -> Sequence[str]:
        """Names of the receivers."""
        return self._outbox.sinks

    def write(self, connection: Connection, change: AlertChange) -> None:
        """Owe every receiver this change; for the transaction that writes it down."""
        self._outbox.write(connection, change)

    def wake(self, _change: AlertChange | None = None) -> None:
        """There is something new; from any thread, returns at once."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake)

    async def start(self) -> None:
        """Take up what is owed.

        Raises:
            StoreError: the store cannot be used.
        """
        self._loop = asyncio.get_running_loop()
        dead = await self._in_store(self._outbox.bury_orphans)
        if dead:
            logger.warning("%d deliveries are given up: nobody is to get them any more", dead)
        for worker in self._workers:
            self._telemetry.delivery_sink(worker.sink.name)
            await worker.start()
        self._counting = asyncio.create_task(self._keep_house())

    async def stop(self) -> None:
        """Let attempts finish for a moment; what is owed then is owed at the next start."""
        if self._counting is not None:
            self._counting.cancel()
            await asyncio.wait([self._counting])
        await asyncio.gather(*(worker.stop(_GRACE_SECONDS) for worker in self._workers))
        self._store_thread.shutdown()
        self._loop = None

    # What clients ask for

    async def list(
        self, wanted: DeliveryFilter, size: int, after: int | None
    ) -> tuple[list[Delivery], int | None]:
        """A page of deliveries, see `Outbox.list`."""
        return await self._in_store(self._outbox.list, wanted, size, after)

    async def replay(self, ids: Sequence[int], sink: str | None) -> int:
        """Try again what was given up; how many that are."""
        count = await self._in_store(self._outbox.replay, ids, sink, time.time())
        self._wake()
        return count

    def _wake(self) -> None:
        for worker in self._workers:
            worker.wake()

    async def _in_store(self, call: Callable[..., T], *arguments: Any) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._store_thread, functools.partial(call, *arguments))

    async def _keep_house(self) -> None:
        """Count what waits every few seconds, forget what is long over every hour."""
        purged_at = -_PURGE_SECONDS
        while True:
            try:
                await self._count()
                if time.monotonic() - purged_at >= _PURGE_SECONDS:
                    await self._in_store(self._outbox.purge, time.time() - KEPT_SECONDS)
                    purged_at = time.monotonic()
            except StoreError as error:
                logger.debug("deliveries are not counted: %s", error)  # the workers tell of it
            await asyncio.sleep(_COUNT_SECONDS)

    async def _count(self) -> None:
        for worker in self._workers:
            worker.health.check()
            backlog = await self._in_store(self._outbox.counts, worker.sink.name, time.time())
            self._telemetry.deliveries_waiting(
                worker.sink.name, backlog.count, backlog.oldest_seconds
            )


def _webhooks(settings: WebhookSettings) -> list[WebhookSink]:
    if not settings.urls:
        return []
    secrets = read_secrets(settings.secret_file) if settings.secret_file is not None else []
    if not secrets:
        logger.warning("webhooks are not signed; name a file of secrets in webhook.secret_file")
    trust = _trust(settings.ca_file, "webhook.ca_file")
    return [
        WebhookSink(url, Signer(secrets), settings.source, settings.timeout_seconds, trust)
        for url in settings.urls
    ]


def _mqtt(
    settings: MqttSettings, url: BrokerUrl, alarms: Alarms, in_store: Callable[..., Any]
) -> MqttSink:
    topics = Topics(settings.topic_prefix, settings.discovery_prefix)
    # Two servers of one id would throw each other out for ever.
    own_id = f"{topics.device(socket.gethostname())}"
    login = BrokerLogin(
        url,
        settings.client_id or own_id,
        _password(settings.password_file, url),
        _trust(settings.ca_file, "mqtt.ca_file"),
        (topics.status, OFFLINE),
    )
    options = MqttOptions(
        topics,
        settings.source,
        bool(settings.discovery_prefix),
        settings.device_class,
        settings.timeout_seconds,
    )
    return MqttSink(login, options, alarms, in_store)


def _password(path: Path | None, url: BrokerUrl) -> str | None:
    if path is None:
        return None
    if url.user is None:
        raise ReceiverError(
            "mqtt.password_file is set and mqtt.url names no user; write mqtt://USER@HOST"
        )
    try:
        password = path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ReceiverError(
            f"mqtt.password_file {path} cannot be read ({type(error).__name__}); "
            "name a file with the user's password"
        ) from None
    if not password:
        raise ReceiverError(f"mqtt.password_file {path} is empty; write the password into it")
    return password


def _trust(path: Path | None, key: str) -> ssl.SSLContext | None:
    if path is None:
        return None
    try:
        return ssl.create_default_context(cafile=str(path))
    except (OSError, ssl.SSLError) as error:
        raise ReceiverError(
            f"{key} {path} cannot be used ({type(error).__name__}); name a file of "
            "certificates in PEM"
        ) from None
