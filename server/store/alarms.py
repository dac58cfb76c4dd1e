"""How each stored stream stands: whether an alert goes on, and which was the newest.

For receivers that show a state and no history; suppressed alerts count for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from pydantic import TypeAdapter
from sqlalchemy.engine import Connection

from server.alert_records import AlertRecord
from server.alerts import AlertState
from server.store.database import Database
from server.store.tables import ALERT_CHANGES, ALERTS, STREAMS

_RECORD = TypeAdapter(AlertRecord)


@dataclass(frozen=True, slots=True)
class Alarm:
    """How one stream stands.

    Attributes:
        is_on: an alert goes on.
        newest: the alert that began last; None where there is none.
    """

    is_on: bool
    newest: AlertRecord | None


class Alarms:
    """The streams of one server and how they stand, as its database has it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def streams(self) -> set[str]:
        """Ids of the stored streams; those that are there for one push only are not."""
        with self._database.transaction() as connection:
            return set(connection.execute(sa.select(STREAMS.c.stream_id)).scalars())

    def alarm(self, stream_id: str) -> Alarm | None:
        """How a stream stands; None where it is not stored."""
        stored = sa.select(STREAMS.c.stream_id).where(STREAMS.c.stream_id == stream_id)
        with self._database.transaction() as connection:
            if connection.execute(stored).first() is None:
                return None
            return Alarm(_is_on(connection, stream_id), _newest(connection, stream_id))


def _is_on(connection: Connection, stream_id: str) -> bool:
    going_on = (
        sa.select(ALERTS.c.alert_id)
        .where(
            ALERTS.c.state == AlertState.OPEN.value,
            ALERTS.c.stream_id == stream_id,
            ALERTS.c.suppression.is_(None),
        )
        .limit(1)
    )
    return connection.execute(going_on).first() is not None


def _newest(connection: Connection, stream_id: str) -> AlertRecord | None:
    newest = (
        sa.select(ALERTS.c.alert_id)
        .where(ALERTS.c.stream_id == stream_id, ALERTS.c.suppression.is_(None))
        .order_by(ALERTS.c.start_seconds.desc(), ALERTS.c.alert_id.desc())
        .limit(1)
    )
    record = (
        sa.select(ALERT_CHANGES.c.record)
        .where(ALERT_CHANGES.c.alert_id == newest.scalar_subquery())
        .order_by(ALERT_CHANGES.c.position.desc())
        .limit(1)
    )
    found = connection.execute(record).scalar_one_or_none()
    try:
        return None if found is None else _RECORD.validate_json(found)
    except ValueError:  # another version's, or changed by hand
        return None
