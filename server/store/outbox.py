"""What is still to be told to whom: deliveries, written down with the change itself.

A change and its deliveries are one transaction, so that a server that is killed
anywhere tells every receiver of it afterwards, at least once and always under the
same id. A receiver that is new begins with the next change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import sqlalchemy as sa
from pydantic import TypeAdapter
from sqlalchemy.engine import Connection

from server.alert_records import AlertChange, AlertRecord, ChangeKind
from server.delivery_records import (
    Backlog,
    Delivery,
    DeliveryFilter,
    DeliveryState,
    DueDelivery,
)
from server.store.database import Database
from server.store.tables import ALERT_CHANGES, ALERTS, DELIVERIES

_RECORD = TypeAdapter(AlertRecord)
_ONCE = (ChangeKind.OPENED, ChangeKind.CLOSED)
_PENDING = DELIVERIES.c.state == DeliveryState.PENDING.value
_GONE = "the server's settings name this receiver no more"


class Outbox:
    """The deliveries of one server, in its database. Safe from any thread.

    Args:
        database: with the log of changes.
        sinks: names of the receivers that there are now.
    """

    def __init__(self, database: Database, sinks: Sequence[str]) -> None:
        self._database = database
        self.sinks = tuple(sinks)

    def write(self, connection: Connection, change: AlertChange) -> None:
        """Owe every receiver this change, within the transaction that writes it down."""
        if not self.sinks or change.record.alert.suppression is not None:
            return
        common = {
            "position": change.position,
            "alert_id": change.record.alert.alert_id,
            "event_id": event_id(change),
            "state": DeliveryState.PENDING.value,
            "attempts": 0,
            "created_seconds": change.changed_seconds,
            "since_seconds": change.changed_seconds,
            "due_seconds": change.changed_seconds,
            "error": "",
        }
        rows = [common | {"sink": sink} for sink in self.sinks]
        connection.execute(sa.insert(DELIVERIES), rows)

    def due(self, sink: str, now: float, limit: int) -> list[DueDelivery]:
        """What is to be tried now, the longest due first, with at most one for each alert.

        A delivery waits for the earlier ones of its alert, and for no other's. One whose
        change cannot be read is dead.
        """
        with self._database.transaction() as connection:
            rows = connection.execute(_due_query(sink, now, limit)).all()
            found = []
            for row in rows:
                try:
                    found.append(_due_delivery(row))
                except ValueError as error:  # another version's, or changed by hand
                    kind = type(error).__name__
                    _set(connection, row.delivery_id, _death(f"its record is unreadable ({kind})"))
        return found

    def next_due(self, sink: str, now: float) -> float | None:
        """UTC of the first attempt after `now`; None where there is none to come."""
        first = sa.select(sa.func.min(DELIVERIES.c.due_seconds)).where(
            DELIVERIES.c.sink == sink, _PENDING, DELIVERIES.c.due_seconds > now
        )
        with self._database.transaction() as connection:
            next_seconds: float | None = connection.execute(first).scalar_one()
        return next_seconds

    def delivered(self, delivery_id: int) -> None:
        """The receiver took it."""
        self._tried(delivery_id, {"state": DeliveryState.DELIVERED.value, "error": ""})

    def failed(self, delivery_id: int, error: str, next_due: float) -> None:
        """An attempt failed; the next one is due at this UTC time."""
        self._tried(delivery_id, {"error": error, "due_seconds": next_due})

    def dead(self, delivery_id: int, error: str) -> None:
        """The last attempt failed; it waits to be replayed."""
        self._tried(delivery_id, _death(error))

    def list(
        self, wanted: DeliveryFilter, size: int, after: int | None
    ) -> tuple[list[Delivery], int | None]:
        """A page of deliveries, the newest first.

        Args:
            wanted: which ones.
            size: most deliveries, 1 or more.
            after: what came with the page before; None for the first page.

        Returns:
            The page, and what the next one begins after; None where there is none.
        """
        query = sa.select(DELIVERIES).order_by(DELIVERIES.c.delivery_id.desc()).limit(size + 1)
        if wanted.state is not None:
            query = query.where(DELIVERIES.c.state == wanted.state.value)
        if wanted.sink is not None:
            query = query.where(DELIVERIES.c.sink == wanted.sink)
        if after is not None:
            query = query.where(DELIVERIES.c.delivery_id < after)
        with self._database.transaction() as connection:
            rows = connection.execute(query).all()
        page = [_delivery(row) for row in rows[:size]]
        return page, page[-1].delivery_id if len(rows) > size else None

    def replay(self, ids: Sequence[int], sink: str | None, now: float) -> int:
        """Try again what was given up, as if it were new, under the ids that it had.

        Args:
            ids: those to try; empty means all.
            sink: only to this receiver; None means all that there are now.
            now: UTC from which the longest time to try counts anew.

        Returns:
            How many are tried again. What is not dead, or for a receiver that is gone, is not.
        """
        sinks = self.sinks if sink is None else [one for one in self.sinks if one == sink]
        query = (
            sa.update(DELIVERIES)
            .where(DELIVERIES.c.state == DeliveryState.DEAD.value, DELIVERIES.c.sink.in_(sinks))
            .values(
                state=DeliveryState.PENDING.value, attempts=0, due_seconds=now, since_seconds=now
            )
        )
        if ids:
            query = query.where(DELIVERIES.c.delivery_id.in_(ids))
        with self._database.transaction() as connection:
            return connection.execute(query).rowcount

    def hurry(self, sink: str, now: float) -> None:
        """Make everything that waits for a receiver due: it is there again."""
        query = (
            sa.update(DELIVERIES)
            .where(DELIVERIES.c.sink == sink, _PENDING, DELIVERIES.c.due_seconds > now)
            .values(due_seconds=now)
        )
        with self._database.transaction() as connection:
            connection.execute(query)

    def counts(self, sink: str, now: float) -> Backlog:
        """What waits for a receiver."""
        query = sa.select(sa.func.count(), sa.func.min(DELIVERIES.c.since_seconds)).where(
            DELIVERIES.c.sink == sink, _PENDING
        )
        with self._database.transaction() as connection:
            count, since_seconds = connection.execute(query).one()
        return Backlog(count, max(0.0, now - since_seconds) if count else 0.0)

    def bury_orphans(self) -> int:
        """Give up what waits for receivers that are gone; how many that were."""
        query = (
            sa.update(DELIVERIES)
            .where(_PENDING, DELIVERIES.c.sink.not_in(self.sinks))
            .values(_death(_GONE))
        )
        with self._database.transaction() as connection:
            return connection.execute(query).rowcount

    def purge(self, before_seconds: float) -> int:
        """Forget what was delivered before this UTC time, and all whose change is gone."""
        kept = sa.select(ALERT_CHANGES.c.position).where(
            ALERT_CHANGES.c.position == DELIVERIES.c.position
        )
        old = (DELIVERIES.c.state == DeliveryState.DELIVERED.value) & (
            DELIVERIES.c.created_seconds < before_seconds
        )
        with self._database.transaction() as connection:
            query = sa.delete(DELIVERIES).where(old | ~sa.exists(kept))
            return connection.execute(query).rowcount

    def _tried(self, delivery_id: int, values: dict[str, object]) -> None:
        with self._database.transaction() as connection:
            _set(connection, delivery_id, values | {"attempts": DELIVERIES.c.attempts + 1})


def event_id(change: AlertChange) -> str:
    """The id of a change for all receivers: of alert and kind, numbered where a kind repeats.

    The number is the change's place in the log, so that no two changes ever share an id.
    """
    once = f"{change.record.alert.alert_id}.{change.kind.value}"
    return once if change.kind in _ONCE else f"{once}.{change.position}"


def _due_query(sink: str, now: float, limit: int) -> sa.Select[tuple[object, ...]]:
    earlier = DELIVERIES.alias("earlier")
    blocked = sa.exists().where(
        earlier.c.alert_id == DELIVERIES.c.alert_id,
        earlier.c.sink == DELIVERIES.c.sink,
        earlier.c.state == DeliveryState.PENDING.value,
        earlier.c.position < DELIVERIES.c.position,
    )
    return (
        sa.select(
            DELIVERIES,
            ALERT_CHANGES.c.kind,
            ALERT_CHANGES.c.changed_seconds,
            ALERT_CHANGES.c.record,
            ALERTS.c.window_scores,
        )
        .join(ALERT_CHANGES, ALERT_CHANGES.c.position == DELIVERIES.c.position)
        .join(ALERTS, ALERTS.c.alert_id == DELIVERIES.c.alert_id)
        .where(DELIVERIES.c.sink == sink, _PENDING, DELIVERIES.c.due_seconds <= now, ~blocked)
        .order_by(DELIVERIES.c.due_seconds, DELIVERIES.c.position)
        .limit(limit)
    )


def _due_delivery(row: sa.Row[tuple[object, ...]]) -> DueDelivery:
    record, kind = _RECORD.validate_json(row.record), ChangeKind(row.kind)
    if kind is ChangeKind.CLOSED:
        scores = tuple(np.frombuffer(row.window_scores, "<f4").tolist())
        record = replace(record, alert=replace(record.alert, window_scores=scores))
    change = AlertChange(row.position, kind, record, row.changed_seconds)
    return DueDelivery(_delivery(row), change, row.since_seconds)


def _delivery(row: sa.Row[tuple[object, ...]]) -> Delivery:
    state = DeliveryState(row.state)
    return Delivery(
        delivery_id=row.delivery_id,
        sink=row.sink,
        event_id=row.event_id,
        alert_id=row.alert_id,
        state=state,
        attempts=row.attempts,
        created_seconds=row.created_seconds,
        due_seconds=row.due_seconds if state is DeliveryState.PENDING else None,
        error=row.error,
    )


def _death(error: str) -> dict[str, object]:
    return {"state": DeliveryState.DEAD.value, "error": error}


def _set(connection: Connection, delivery_id: int, values: dict[str, object]) -> None:
    # Only what is pending: an attempt that ends late must not undo what became of it.
    query = sa.update(DELIVERIES).where(DELIVERIES.c.delivery_id == delivery_id, _PENDING)
    connection.execute(query.values(values))
