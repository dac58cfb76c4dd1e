"""A change of an alert as a CloudEvent 1.0 in structured JSON; pure.

The same change makes the same bytes on every attempt. Times are RFC 3339 in UTC and
what is unset is null; `window_scores` comes with the end of an alert only.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from datetime import UTC, datetime

from cloudevents.core.bindings.http import to_structured_event
from cloudevents.core.v1.event import CloudEvent

from server.alert_records import AlertChange, AlertRecord, ChangeKind
from server.alerts import Alert
from server.store.outbox import event_id

TYPE_PREFIX = "gvvad.v1.alert."
"""Of an event's type; opened, closed, acknowledged or evidence follows."""

CONTENT_TYPE = "application/cloudevents+json"

_SCORE_DIGITS = 4

Json = dict[str, object]


def event_bytes(change: AlertChange, source: str) -> bytes:
    """The event that receivers get.

    Args:
        change: what happened.
        source: the server, as the settings call it.
    """
    alert = change.record.alert
    attributes = {
        "id": event_id(change),
        "source": source,
        "type": TYPE_PREFIX + change.kind.value,
        "subject": f"streams/{alert.stream_id}",
        "time": datetime.fromtimestamp(change.changed_seconds, UTC),
        "datacontenttype": "application/json",
    }
    data = record_json(change.record)
    if change.kind is ChangeKind.CLOSED:
        data["window_scores"] = [_score(score) for score in alert.window_scores]
    return to_structured_event(CloudEvent(attributes, data)).body


def record_json(record: AlertRecord) -> Json:
    """An alert with all that is kept of it but the scores of its windows."""
    evidence = record.evidence
    return _alert_json(record.alert) | {
        "acknowledge_time": _rfc3339(record.acknowledged_seconds),
        "acknowledge_note": record.note,
        "evidence": {
            "state": evidence.state.value,
            "snapshot_bytes": evidence.snapshot_bytes,
            "clip_bytes": evidence.clip_bytes,
            "clip_start_time": _rfc3339(evidence.clip_start_seconds),
            "clip_end_time": _rfc3339(evidence.clip_end_seconds),
        },
    }


def _alert_json(alert: Alert) -> Json:
    return {
        "alert_id": alert.alert_id,
        "stream": f"streams/{alert.stream_id}",
        "bundle_id": alert.bundle_id,
        "state": alert.state.value,
        "first_sequence": alert.first_sequence,
        "last_sequence": alert.last_sequence,
        "start_time": _rfc3339(alert.start_seconds),
        "end_time": _rfc3339(alert.end_seconds),
        "peak_score": alert.peak_score,
        "peak_time": _rfc3339(alert.peak_seconds),
        "explanation": [asdict(near) for near in alert.explanation],
        "end_reason": alert.end_reason.value if alert.end_reason else None,
        "continues": alert.continues,
    }


def _score(score: float) -> float | None:
    # JSON knows no NaN; single precision has no more digits that mean anything.
    return None if math.isnan(score) else round(score, _SCORE_DIGITS)


def _rfc3339(utc_seconds: float | None) -> str | None:
    if utc_seconds is None:
        return None
    shown = datetime.fromtimestamp(utc_seconds, UTC).isoformat(timespec="microseconds")
    return shown.replace("+00:00", "Z")
