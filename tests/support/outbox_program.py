"""A server's part that writes changes of alerts down and delivers them, to be killed.

    python -m tests.support.outbox_program DATABASE_URL WEBHOOK_URL SECRET_FILE ALERTS

Goes on where the one before it was killed, prints `owed EVENT_ID` once a change is
written down, and ends when all changes of so many alerts are delivered.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import sqlalchemy as sa

from server.delivery.deliveries import Deliveries
from server.delivery_records import DeliveryFilter, DeliveryState
from server.setting_groups import MqttSettings
from server.store.database import Database
from server.store.outbox import Outbox, event_id
from server.store.tables import ALERT_CHANGES
from server.telemetry import Telemetry
from tests.support.alert_rows import append, lives
from tests.support.delivering import webhook

STREAMS = ("door", "hall", "yard")
_PACE_SECONDS = 0.01


async def main(database_url: str, url: str, secret_file: str, alerts: int) -> None:
    database = Database(database_url)
    settings = webhook(url, secret_file=Path(secret_file), timeout_seconds=2)
    deliveries = Deliveries(database, settings, MqttSettings(), Telemetry())
    await deliveries.start()
    with database.transaction() as connection:
        written = connection.execute(sa.select(sa.func.count()).select_from(ALERT_CHANGES)).scalar()
    changes = [
        change
        for number in range(alerts)
        for change in next(lives(STREAMS[number % len(STREAMS)], number))
    ]
    for kind, alert in changes[written:]:
        change = append(database, kind, alert, deliveries.write, time.time())
        sys.stdout.write(f"owed {event_id(change)}\n")
        sys.stdout.flush()
        deliveries.wake(change)
        await asyncio.sleep(_PACE_SECONDS)
    outbox = Outbox(database, deliveries.sinks)
    while (await deliveries.list(DeliveryFilter(DeliveryState.PENDING), 1, None))[0]:
        outbox.hurry(deliveries.sinks[0], time.time())  # backoff would take minutes
        deliveries.wake()
        await asyncio.sleep(0.2)
    await deliveries.stop()
    database.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
