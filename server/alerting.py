"""What becomes of alerts after the state machine: written down, delivered, with evidence."""

from __future__ import annotations

import asyncio

from server.delivery.deliveries import Deliveries
from server.desk import AlertDesk
from server.evidence.keeper import Direct, EvidenceKeeper
from server.settings import Settings
from server.store.alerts import AlertLog
from server.store.database import Database
from server.telemetry import Telemetry

DAY_SECONDS = 86_400


class Alerting:
    """The desk, the deliveries and the evidence of one server. Start it and stop it once.

    Attributes:
        desk: where changes of alerts are handed in.
        deliveries: to webhooks and MQTT.
        keeper: of evidence.

    Raises:
        ReceiverError: a receiver cannot be used, or a file of its secrets.
    """

    def __init__(self, settings: Settings, database: Database, telemetry: Telemetry) -> None:
        self.deliveries = Deliveries(database, settings.webhook, settings.mqtt, telemetry)
        rules = settings.evidence.to_rules(settings.store.url)
        self.keeper = EvidenceKeeper(rules, telemetry)
        days = settings.store.alert_days
        self.desk = AlertDesk(
            AlertLog(database, on_change=[self.deliveries.write]),
            telemetry,
            listeners=[self.deliveries.wake, self.keeper.committed],
            keep_seconds=days * DAY_SECONDS if days else None,
            max_watchers=settings.grpc.max_watchers,
        )
        self._started = False

    async def start(self, direct: Direct) -> None:
        """Take up what an earlier server left.

        Args:
            direct: sends an order about evidence to a stream's worker.

        Raises:
            StoreError, EvidenceError: the store or the folder of evidence cannot be used.
        """
        self._started = True
        await asyncio.to_thread(self.desk.start)
        await self.deliveries.start()
        await asyncio.to_thread(self.keeper.start, self.desk, direct)

    async def stop(self) -> None:
        """Write down what is known; call it once workers and engine are gone."""
        if self._started:  # a server that could not start must not touch the alerts of another
            await asyncio.to_thread(self.keeper.stop)
            await asyncio.to_thread(self.desk.stop)
        await self.deliveries.stop()
