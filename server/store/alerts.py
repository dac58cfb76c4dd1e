"""Alerts at rest, and the log of their changes.

A change stands in the log in the same transaction as what it did to the alert, and
whatever else must not be lost with it joins that transaction. Positions have no
holes and rise in the order of the commits, so that a reader who goes on after a
position loses and repeats nothing. A change that was written already is not
written again: whoever does not know whether a commit went through may just try again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from server.alert_records import (
    AlertChange,
    AlertFilter,
    AlertRecord,
    ChangeKind,
    Evidence,
    EvidenceState,
)
from server.alerts import Alert, AlertState, EndReason
from server.store.alert_pages import page_place, page_token
from server.store.alert_rows import (
    LISTED,
    alert_columns,
    change_columns,
    changes_of,
    evidence_text,
    record_of,
    without_scores,
)
from server.store.database import Database
from server.store.streams import retire_sequence
from server.store.tables import ALERT_CHANGES, ALERTS, DELIVERIES, STREAMS
from server.views import UnknownAlertError

OnChange = Callable[[Connection, AlertChange], None]

_TOLD_OF_EVIDENCE = (EvidenceState.READY, EvidenceState.FAILED)


@dataclass(frozen=True, slots=True)
class Purged:
    """What one step of retention deleted."""

    changes: int = 0
    alerts: int = 0
    deliveries: int = 0


class AlertLog:
    """The alerts of one server, in its database.

    Args:
        database: where they are.
        on_change: called for every change within its transaction, in order.
    """

    def __init__(self, database: Database, on_change: Sequence[OnChange] = ()) -> None:
        self._database = database
        self._on_change = tuple(on_change)

    # Changes

    def append(self, kind: ChangeKind, alert: Alert, changed_seconds: float) -> AlertChange:
        """Write down that an alert opened or closed; once for all, however often it is said.

        The sequences of a stream that is not stored are used up with it: should its id
        come back, it begins after them.

        Raises:
            StoreError: nothing was written, or nobody knows whether it was.
        """
        with self._database.transaction() as connection:
            return _newest(connection, alert.alert_id, kind) or self._append(
                connection, kind, alert, changed_seconds
            )

    def acknowledge(self, alert_id: str, note: str, seconds: float) -> AlertChange:
        """Write down that somebody has seen an alert.

        The first time stays, and the newest note; an empty one is none. Where that
        changes nothing, the change that did it is returned.

        Raises:
            UnknownAlertError: there is no such alert.
            StoreError: as `append`.
        """
        with self._database.transaction() as connection:
            record = _known(connection, alert_id)
            wanted = replace(
                record,
                acknowledged_seconds=(
                    seconds if record.acknowledged_seconds is None else record.acknowledged_seconds
                ),
                note=note or record.note,
            )
            before = _newest(connection, alert_id, ChangeKind.ACKNOWLEDGED)
            if wanted == record and before is not None:
                return replace(before, record=record)
            columns = {"acknowledged_seconds": wanted.acknowledged_seconds, "note": wanted.note}
            _update(connection, alert_id, columns)
            return self._write(connection, ChangeKind.ACKNOWLEDGED, wanted, seconds)

    def set_evidence(self, alert_id: str, evidence: Evidence, seconds: float) -> AlertChange | None:
        """Write down what is kept of an alert's pictures.

        Returns:
            The change; None for what nobody is told of: that evidence is still being
            recorded, or that its retention ended.

        Raises:
            UnknownAlertError: there is no such alert.
            StoreError: as `append`.
        """
        with self._database.transaction() as connection:
            record = _known(connection, alert_id)
            wanted = replace(record, evidence=evidence)
            before = _newest(connection, alert_id, ChangeKind.EVIDENCE)
            _update(connection, alert_id, {"evidence": evidence_text(evidence)})
            if evidence.state not in _TOLD_OF_EVIDENCE:
                return None
            if wanted == record and before is not None:
                return replace(before, record=record)
            return self._write(connection, ChangeKind.EVIDENCE, wanted, seconds)

    def close_lost(self, now_seconds: float) -> list[AlertChange]:
        """Close what a server that was killed left open.

        Raises:
            StoreError: those before the failure are closed.
        """
        is_open = ALERTS.c.state == AlertState.OPEN.value
        with self._database.transaction() as connection:
            rows = connection.execute(sa.select(ALERTS).where(is_open)).all()
        lost = [record_of(row, row.window_scores).alert for row in rows]
        closed = [
            replace(alert, state=AlertState.CLOSED, end_reason=EndReason.LOST) for alert in lost
        ]
        return [self.append(ChangeKind.CLOSED, alert, now_seconds) for alert in closed]

    # What is there

    def get(self, alert_id: str) -> AlertRecord:
        """One alert, with the scores of its windows.

        Raises:
            UnknownAlertError: there is no such alert.
        """
        with self._database.transaction() as connection:
            return _known(connection, alert_id)

    def delivered_until(self, stream_id: str) -> float | None:
        """UTC capture time at which a stream's newest delivered alert ended; None without one."""
        ended = sa.select(sa.func.max(ALERTS.c.end_seconds)).where(
            ALERTS.c.stream_id == stream_id,
            ALERTS.c.state == AlertState.CLOSED.value,
            ALERTS.c.suppression.is_(None),
        )
        with self._database.transaction() as connection:
            found: float | None = connection.execute(ended).scalar_one()
        return found

    def list(
        self, wanted: AlertFilter, size: int, after: str | None = None
    ) -> tuple[Sequence[AlertRecord], str | None]:
        """A page of alerts, the newest first, without the scores of their windows.

        Args:
            wanted: which alerts.
            size: most of them, 1 or more.
            after: token of the page, which came with the one before; None for the first.

        Returns:
            The alerts, and the token of the next page or None.

        Raises:
            PageTokenError: the token is none, or came with other filters.
        """
        query = sa.select(*LISTED).where(*_criteria(wanted))
        if after is not None:
            start_seconds, alert_id = page_place(after, wanted)
            place = sa.tuple_(ALERTS.c.start_seconds, ALERTS.c.alert_id)
            query = query.where(place < (start_seconds, alert_id))
        query = query.order_by(ALERTS.c.start_seconds.desc(), ALERTS.c.alert_id.desc())
        with self._database.transaction() as connection:
            rows = connection.execute(query.limit(size + 1)).all()
        records = [record_of(row) for row in rows[:size]]
        more = len(rows) > size
        return records, page_token(records[-1].alert, wanted) if more else None

    def changes(
        self, after_position: int, stream_id: str | None = None, limit: int = 100
    ) -> Sequence[AlertChange]:
        """The next changes after a position, of one stream or of all, in order."""
        query = sa.select(ALERT_CHANGES).where(ALERT_CHANGES.c.position > after_position)
        if stream_id is not None:
            query = query.where(ALERT_CHANGES.c.stream_id == stream_id)
        with self._database.transaction() as connection:
            ordered = query.order_by(ALERT_CHANGES.c.position).limit(limit)
            return changes_of(connection.execute(ordered).all())

    def newest_position(self) -> int:
        """Position of the newest change; 0 before the first."""
        with self._database.transaction() as connection:
            return _end_of_log(connection)

    def oldest_position(self) -> int:
        """Position of the oldest change that is still there; 1 before the first."""
        with self._database.transaction() as connection:
            found = connection.execute(sa.select(sa.func.min(ALERT_CHANGES.c.position)))
            return found.scalar_one() or 1

    # Retention

    def purge(self, before_seconds: float, limit: int = 500) -> Purged:
        """Delete some of the changes that were written down before a time, the oldest first.

        With its last change goes an alert that is over, and with each change its
        deliveries. The newest change stays whatever its age: it says where the log ends.

        Args:
            before_seconds: UTC.
            limit: most changes to delete; as many deleted means that there may be more.
        """
        position = ALERT_CHANGES.c.position
        with self._database.transaction() as connection:
            young = sa.select(position).where(ALERT_CHANGES.c.changed_seconds >= before_seconds)
            kept = connection.execute(young.order_by(position).limit(1)).scalar_one_or_none()
            old = sa.select(position, ALERT_CHANGES.c.alert_id).where(
                position < (_end_of_log(connection) if kept is None else kept)
            )
            rows = connection.execute(old.order_by(position).limit(limit)).all()
            if not rows:
                return Purged()
            return _delete(connection, rows[-1].position, {row.alert_id for row in rows})

    # Helpers

    def _append(
        self, connection: Connection, kind: ChangeKind, alert: Alert, changed_seconds: float
    ) -> AlertChange:
        found = connection.execute(
            sa.select(ALERTS).where(ALERTS.c.alert_id == alert.alert_id)
        ).one_or_none()
        if found is None:
            connection.execute(sa.insert(ALERTS).values(alert_columns(alert)))
            record = AlertRecord(alert)
        else:
            _update(connection, alert.alert_id, alert_columns(alert))
            record = replace(record_of(found), alert=alert)
        _use_up(connection, alert)
        return self._write(connection, kind, record, changed_seconds)

    def _write(
        self, connection: Connection, kind: ChangeKind, record: AlertRecord, seconds: float
    ) -> AlertChange:
        # Counted here: a database's own sequence has holes, and its order is not that of
        # the commits. Of two servers that count at once, the primary key refuses one.
        change = AlertChange(_end_of_log(connection) + 1, kind, without_scores(record), seconds)
        connection.execute(sa.insert(ALERT_CHANGES).values(change_columns(change)))
        for tell in self._on_change:
            tell(connection, change)
        return change


def _newest(connection: Connection, alert_id: str, kind: ChangeKind) -> AlertChange | None:
    """The newest change of an alert of this kind."""
    query = sa.select(ALERT_CHANGES).where(
        ALERT_CHANGES.c.alert_id == alert_id, ALERT_CHANGES.c.kind == kind.value
    )
    ordered = query.order_by(ALERT_CHANGES.c.position.desc()).limit(1)
    found = changes_of(connection.execute(ordered).all())
    return found[0] if found else None


def _known(connection: Connection, alert_id: str) -> AlertRecord:
    query = sa.select(ALERTS).where(ALERTS.c.alert_id == alert_id)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise UnknownAlertError(
            f"there is no alert {alert_id!r}; list them first, or its retention has ended"
        )
    return record_of(row, row.window_scores)


def _update(connection: Connection, alert_id: str, columns: Mapping[str, object]) -> None:
    connection.execute(sa.update(ALERTS).where(ALERTS.c.alert_id == alert_id).values(columns))


def _end_of_log(connection: Connection) -> int:
    return connection.execute(sa.select(sa.func.max(ALERT_CHANGES.c.position))).scalar_one() or 0


def _use_up(connection: Connection, alert: Alert) -> None:
    query = sa.select(STREAMS.c.stream_id).where(STREAMS.c.stream_id == alert.stream_id)
    if connection.execute(query).one_or_none() is None:
        retire_sequence(connection, alert.stream_id, alert.last_sequence + 1)


def _criteria(wanted: AlertFilter) -> list[sa.ColumnElement[bool]]:
    criteria = [ALERTS.c.peak_score >= wanted.min_peak_score]
    if wanted.stream_id is not None:
        criteria.append(ALERTS.c.stream_id == wanted.stream_id)
    if wanted.state is not None:
        criteria.append(ALERTS.c.state == wanted.state.value)
    if wanted.start_seconds is not None:
        criteria.append(ALERTS.c.start_seconds >= wanted.start_seconds)
    if wanted.end_seconds is not None:
        criteria.append(ALERTS.c.start_seconds < wanted.end_seconds)
    if wanted.unacknowledged:
        criteria.append(ALERTS.c.acknowledged_seconds.is_(None))
    if not wanted.include_suppressed:
        criteria.append(ALERTS.c.suppression.is_(None))
    return criteria


def _delete(connection: Connection, up_to: int, alert_ids: set[str]) -> Purged:
    changes = sa.delete(ALERT_CHANGES).where(ALERT_CHANGES.c.position <= up_to)
    deliveries = sa.delete(DELIVERIES).where(DELIVERIES.c.position <= up_to)
    told = sa.exists().where(ALERT_CHANGES.c.alert_id == ALERTS.c.alert_id)
    alerts = sa.delete(ALERTS).where(
        ALERTS.c.alert_id.in_(sorted(alert_ids)),
        ALERTS.c.state == AlertState.CLOSED.value,
        ~told,
    )
    counts = [connection.execute(each).rowcount for each in (changes, deliveries, alerts)]
    return Purged(changes=counts[0], deliveries=counts[1], alerts=counts[2])
