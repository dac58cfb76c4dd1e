"""Alerts as rows and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import sqlalchemy as sa
from pydantic import TypeAdapter

from server.alert_records import AlertChange, AlertRecord, ChangeKind, Evidence
from server.alerts import Alert, AlertState, EndReason, Suppression
from server.bank import NearSentence
from server.store.tables import ALERTS

Row = sa.Row[tuple[object, ...]]

_RECORD = TypeAdapter(AlertRecord)
_EVIDENCE = TypeAdapter(Evidence)
_EXPLANATION = TypeAdapter(tuple[NearSentence, ...])

LISTED = [column for column in ALERTS.columns if column.name != "window_scores"]
"""What a list of alerts needs; the windows' scores are most of a row."""


def alert_columns(alert: Alert) -> dict[str, object]:
    """The columns that the state machine fills."""
    return {
        "alert_id": alert.alert_id,
        "stream_id": alert.stream_id,
        "bundle_id": alert.bundle_id,
        "state": alert.state.value,
        "first_sequence": alert.first_sequence,
        "last_sequence": alert.last_sequence,
        "start_seconds": alert.start_seconds,
        "end_seconds": alert.end_seconds,
        "peak_score": alert.peak_score,
        "peak_seconds": alert.peak_seconds,
        "explanation": _EXPLANATION.dump_json(alert.explanation).decode(),
        "end_reason": None if alert.end_reason is None else alert.end_reason.value,
        "continues": alert.continues,
        "suppression": None if alert.suppression is None else alert.suppression.value,
        "window_scores": np.asarray(alert.window_scores, "<f4").tobytes(),
    }


def evidence_text(evidence: Evidence) -> str:
    """Evidence as its column has it."""
    return _EVIDENCE.dump_json(evidence).decode()


def record_of(row: Row, scores: bytes = b"") -> AlertRecord:
    """The alert of a row; `scores` are those of its windows where they are wanted."""
    alert = Alert(
        alert_id=row.alert_id,
        stream_id=row.stream_id,
        bundle_id=row.bundle_id,
        state=AlertState(row.state),
        first_sequence=row.first_sequence,
        last_sequence=row.last_sequence,
        start_seconds=row.start_seconds,
        end_seconds=row.end_seconds,
        peak_score=row.peak_score,
        peak_seconds=row.peak_seconds,
        explanation=_EXPLANATION.validate_json(row.explanation),
        end_reason=None if row.end_reason is None else EndReason(row.end_reason),
        continues=row.continues,
        suppression=None if row.suppression is None else Suppression(row.suppression),
        window_scores=tuple(np.frombuffer(scores, "<f4").tolist()),
    )
    return AlertRecord(
        alert, row.acknowledged_seconds, row.note, _EVIDENCE.validate_json(row.evidence)
    )


def without_scores(record: AlertRecord) -> AlertRecord:
    """The record as the log of changes has it."""
    return replace(record, alert=replace(record.alert, window_scores=()))


def change_columns(change: AlertChange) -> dict[str, object]:
    """A row of the log of changes."""
    alert = change.record.alert
    return {
        "position": change.position,
        "alert_id": alert.alert_id,
        "stream_id": alert.stream_id,
        "kind": change.kind.value,
        "suppressed": alert.suppression is not None,
        "changed_seconds": change.changed_seconds,
        "record": _RECORD.dump_json(change.record).decode(),
    }


def changes_of(rows: Sequence[Row]) -> list[AlertChange]:
    """The changes of rows of the log."""
    return [
        AlertChange(
            row.position,
            ChangeKind(row.kind),
            _RECORD.validate_json(row.record),
            row.changed_seconds,
        )
        for row in rows
    ]
