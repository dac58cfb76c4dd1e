"""Deliveries as the server runs them, over a database of the test."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from server.alert_records import AlertChange, AlertRecord, ChangeKind
from server.alerts import Alert
from server.delivery.deliveries import Deliveries
from server.delivery.receivers import BrokerUrl, WebhookUrl
from server.delivery_records import Delivery, DeliveryFilter
from server.setting_groups import MqttSettings, WebhookSettings
from server.store.database import Database
from server.telemetry import Telemetry
from tests.support.alert_rows import append
from tests.support.served import Run, loop_in_thread

WAIT_SECONDS = 20


@dataclass
class Delivering:
    """A running `Deliveries` and a way in."""

    database: Database
    deliveries: Deliveries
    telemetry: Telemetry
    run: Run[object]

    def append(self, kind: ChangeKind, record: AlertRecord | Alert) -> AlertChange:
        """Write a change down as the desk would, now."""
        change = append(self.database, kind, record, self.deliveries.write, time.time())
        self.deliveries.wake(change)
        return change

    def list(self, wanted: DeliveryFilter | None = None) -> Sequence[Delivery]:
        page = self.run(self.deliveries.list(wanted or DeliveryFilter(), 1000, None))
        return page[0]  # type: ignore[index, no-any-return]

    def states(self) -> list[str]:
        """Of all deliveries, the oldest first."""
        return [one.state.value for one in self.list()][::-1]

    def wait_for_states(self, *states: str) -> None:
        eventually(lambda: self.states() == list(states), self.list)

    def sample(self, name: str, **labels: str) -> float | None:
        return self.telemetry.registry.get_sample_value(name, labels)


def eventually(holds: Callable[[], bool], shown: Callable[[], object] = lambda: "") -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < deadline, shown()
        time.sleep(0.01)


def webhook(*urls: str, **fields: object) -> WebhookSettings:
    return WebhookSettings(urls=tuple(map(WebhookUrl, urls)), **fields)  # type: ignore[arg-type]


def mqtt(url: str, **fields: object) -> MqttSettings:
    return MqttSettings(url=BrokerUrl(url), **fields)  # type: ignore[arg-type]


@contextmanager
def delivering(
    database: Database,
    webhook_settings: WebhookSettings | None = None,
    mqtt_settings: MqttSettings | None = None,
) -> Iterator[Delivering]:
    """Deliveries in a loop of their own, stopped in good order at the end."""
    telemetry = Telemetry()
    with loop_in_thread() as run:

        async def make() -> Deliveries:
            found = Deliveries(
                database,
                webhook_settings or WebhookSettings(),
                mqtt_settings or MqttSettings(),
                telemetry,
            )
            await found.start()
            return found

        deliveries = run(make())
        assert isinstance(deliveries, Deliveries)
        try:
            yield Delivering(database, deliveries, telemetry, run)
        finally:
            run(deliveries.stop())
            run(asyncio.sleep(0))
