"""Alerts that are written down as the desk does it: the row, the change, and who is owed it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from server.alert_records import AlertChange, AlertRecord, ChangeKind
from server.alerts import Alert, AlertState, EndReason, alert_id
from server.bank import NearSentence
from server.store.alerts import AlertLog
from server.store.database import Database
from server.store.tables import STREAMS

BUNDLE = "ab" * 32
START = 1_700_000_000.0

OnChange = Callable[[Connection, AlertChange], None]


def an_alert(stream_id: str = "door", sequence: int = 3, **fields: object) -> Alert:
    """One that has just opened."""
    alert = Alert(
        alert_id=alert_id(stream_id, BUNDLE, sequence),
        stream_id=stream_id,
        bundle_id=BUNDLE,
        state=AlertState.OPEN,
        first_sequence=sequence,
        last_sequence=sequence + 1,
        start_seconds=START + sequence,
        end_seconds=START + sequence + 2.5,
        peak_score=0.875,
        peak_seconds=START + sequence + 1.25,
        explanation=(NearSentence("a person falls", True, 0.75),),
    )
    return replace(alert, **fields)  # type: ignore[arg-type]


def closed(alert: Alert) -> Alert:
    return replace(
        alert,
        state=AlertState.CLOSED,
        end_reason=EndReason.SCORE_FELL,
        window_scores=(0.625, float("nan"), 0.875),
    )


def append(
    database: Database,
    kind: ChangeKind,
    record: AlertRecord | Alert,
    on_change: OnChange,
    seconds: float = START,
) -> AlertChange:
    """Write a change down as the desk does, and tell `on_change` of it."""
    record = record if isinstance(record, AlertRecord) else AlertRecord(record)
    log = AlertLog(database, [on_change])
    if kind is ChangeKind.ACKNOWLEDGED:
        return log.acknowledge(record.alert.alert_id, record.note, seconds)
    if kind is ChangeKind.EVIDENCE:
        told = log.set_evidence(record.alert.alert_id, record.evidence, seconds)
        assert told is not None
        return told
    return log.append(kind, record.alert, seconds)


def add_stream(database: Database, stream_id: str) -> None:
    with database.transaction() as connection:
        connection.execute(
            sa.insert(STREAMS).values(
                stream_id=stream_id,
                url="push://",
                mode="pull",
                transport="tcp",
                next_sequence=0,
                created_seconds=START,
            )
        )


def remove_stream(database: Database, stream_id: str) -> None:
    with database.transaction() as connection:
        connection.execute(sa.delete(STREAMS).where(STREAMS.c.stream_id == stream_id))


def lives(stream_id: str = "door", first: int = 0) -> Iterator[Sequence[tuple[ChangeKind, Alert]]]:
    """Alert after alert, each with its two changes."""
    for number in itertools.count(first):
        alert = an_alert(stream_id, number * 10)
        yield (ChangeKind.OPENED, alert), (ChangeKind.CLOSED, closed(alert))
