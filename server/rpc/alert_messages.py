"""Alerts and their changes to messages and back, and what clients ask of them, checked."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp
from gvvad.v1 import alert_pb2

from server.alert_records import (
    AlertChange,
    AlertFilter,
    AlertRecord,
    ChangeKind,
    Evidence,
    EvidenceState,
)
from server.alerts import Alert, AlertState, EndReason, Suppression
from server.rpc.mapping import explanation_of, stream_id, stream_name, told
from server.rpc.requests import DEFAULT_PAGE, LARGEST_PAGE
from server.rpc.wire import InvalidError, seconds, timestamp
from server.streams import shown

CURSOR_KEY = "gvvad-cursor"
"""Initial metadata of a watch of alerts: the place where it begins."""

LONGEST_NOTE = 2000

_ALERT_ID = re.compile("[0-9a-f]{16}")
_CURSOR = re.compile(rb"alerts/1/(0|[1-9][0-9]{0,17})")
"""A version, in case that a cursor ever means something else, and a position."""

# What a Timestamp may hold, in seconds since 1970.
_YEAR_1, _YEAR_10000 = -62_135_596_800, 253_402_300_800


@dataclass(frozen=True, slots=True)
class WatchedAlert:
    """A change of an alert as a watcher gets it.

    Attributes:
        kind: what happened.
        record: the alert after it, without the scores of its windows.
        changed_seconds: UTC at which it was written down.
        cursor: a watch that begins with it goes on after this change.
    """

    kind: ChangeKind
    record: AlertRecord
    changed_seconds: float
    cursor: str

    @property
    def alert(self) -> Alert:
        return self.record.alert


def alert_message(record: AlertRecord) -> alert_pb2.Alert:
    """An alert as it is now."""
    alert = record.alert
    message = alert_pb2.Alert(
        alert_id=alert.alert_id,
        stream=stream_name(alert.stream_id),
        bundle_id=alert.bundle_id,
        state=_STATE[alert.state],
        first_sequence=alert.first_sequence,
        last_sequence=alert.last_sequence,
        start_time=timestamp(alert.start_seconds),
        end_time=timestamp(alert.end_seconds),
        peak_score=alert.peak_score,
        peak_time=timestamp(alert.peak_seconds),
        explanation=told(alert.explanation),
        end_reason=_END[alert.end_reason],
        continues=alert.continues or "",
        suppression=_SUPPRESSION[alert.suppression],
        acknowledge_time=_given(record.acknowledged_seconds),
        acknowledge_note=record.note,
        window_scores=alert.window_scores,
    )
    evidence = record.evidence
    if evidence != Evidence():
        message.evidence.CopyFrom(
            alert_pb2.Evidence(
                state=_EVIDENCE[evidence.state],
                snapshot_bytes=evidence.snapshot_bytes,
                clip_bytes=evidence.clip_bytes,
                clip_start_time=_given(evidence.clip_start_seconds),
                clip_end_time=_given(evidence.clip_end_seconds),
            )
        )
    return message


def alert_record(message: alert_pb2.Alert) -> AlertRecord:
    """An alert as it was when it was sent."""
    alert = Alert(
        alert_id=message.alert_id,
        stream_id=stream_id(message.stream, "stream"),
        bundle_id=message.bundle_id,
        state=_STATE_OF[message.state],
        first_sequence=message.first_sequence,
        last_sequence=message.last_sequence,
        start_seconds=seconds(message.start_time),
        end_seconds=seconds(message.end_time),
        peak_score=message.peak_score,
        peak_seconds=seconds(message.peak_time),
        explanation=explanation_of(message.explanation),
        end_reason=_END_OF[message.end_reason],
        continues=message.continues or None,
        suppression=_SUPPRESSION_OF[message.suppression],
        window_scores=tuple(message.window_scores),
    )
    found = message.evidence
    evidence = Evidence(
        state=_EVIDENCE_OF[found.state],
        snapshot_bytes=found.snapshot_bytes,
        clip_bytes=found.clip_bytes,
        clip_start_seconds=(
            seconds(found.clip_start_time) if found.HasField("clip_start_time") else None
        ),
        clip_end_seconds=seconds(found.clip_end_time) if found.HasField("clip_end_time") else None,
    )
    acknowledged = message.HasField("acknowledge_time")
    return AlertRecord(
        alert=alert,
        acknowledged_seconds=seconds(message.acknowledge_time) if acknowledged else None,
        note=message.acknowledge_note,
        evidence=evidence,
    )


def change_message(change: AlertChange) -> alert_pb2.WatchAlertsResponse:
    """A change as a watcher gets it."""
    return alert_pb2.WatchAlertsResponse(
        alert=alert_message(change.record),
        cursor=cursor(change.position),
        change=_CHANGE[change.kind],
        change_time=timestamp(change.changed_seconds),
    )


def watched_alert(message: alert_pb2.WatchAlertsResponse) -> WatchedAlert:
    """A change as a watcher got it."""
    return WatchedAlert(
        kind=_CHANGE_OF[message.change],
        record=alert_record(message.alert),
        changed_seconds=seconds(message.change_time),
        cursor=message.cursor,
    )


def cursor(position: int) -> str:
    """The place after a change of the log."""
    return base64.urlsafe_b64encode(f"alerts/1/{position}".encode()).decode()


def position_of(text: str) -> int:
    """Position of the change that a cursor came with.

    Raises:
        InvalidError: it is no cursor.
    """
    try:
        found = _CURSOR.fullmatch(base64.b64decode(text, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        found = None
    if found is None:
        raise InvalidError(
            f"cursor ({shown(text)[:80]!r}) must be the cursor of an earlier answer, or empty"
        )
    return int(found[1])


def filter_message(wanted: AlertFilter) -> alert_pb2.ListAlertsRequest:
    """What to list, as a client asks for it."""
    return alert_pb2.ListAlertsRequest(
        stream="" if wanted.stream_id is None else stream_name(wanted.stream_id),
        state=alert_pb2.ALERT_STATE_UNSPECIFIED if wanted.state is None else _STATE[wanted.state],
        start_time=_given(wanted.start_seconds),
        end_time=_given(wanted.end_seconds),
        min_peak_score=wanted.min_peak_score,
        unacknowledged=wanted.unacknowledged,
        include_suppressed=wanted.include_suppressed,
    )


def alert_filter(request: alert_pb2.ListAlertsRequest) -> AlertFilter:
    """What a client asks to list.

    Raises:
        InvalidError: a field cannot be used.
    """
    state = None
    if request.state != alert_pb2.ALERT_STATE_UNSPECIFIED:
        if request.state not in _STATE_OF:
            raise InvalidError(
                f"state ({request.state}) must be ALERT_STATE_OPEN (1) or ALERT_STATE_CLOSED (2)"
            )
        state = _STATE_OF[request.state]
    if not 0 <= request.min_peak_score <= 1:
        raise InvalidError(f"min_peak_score ({request.min_peak_score:g}) must be 0 to 1")
    return AlertFilter(
        stream_id=stream_id(request.stream, "stream") if request.stream else None,
        state=state,
        start_seconds=(
            _time(request.start_time, "start_time") if request.HasField("start_time") else None
        ),
        end_seconds=_time(request.end_time, "end_time") if request.HasField("end_time") else None,
        min_peak_score=request.min_peak_score,
        unacknowledged=request.unacknowledged,
        include_suppressed=request.include_suppressed,
    )


def page_size(request: alert_pb2.ListAlertsRequest) -> int:
    """Most alerts of a page.

    Raises:
        InvalidError: a negative size.
    """
    if request.page_size < 0:
        raise InvalidError(
            f"page_size ({request.page_size}) must be 0 to {LARGEST_PAGE}; 0 means {DEFAULT_PAGE}"
        )
    return min(request.page_size or DEFAULT_PAGE, LARGEST_PAGE)


def alert_id(text: str) -> str:
    """Id of an alert that a client names.

    Raises:
        InvalidError: it cannot be one.
    """
    if not _ALERT_ID.fullmatch(text):
        raise InvalidError(
            f"alert_id ({shown(text)[:80]!r}) must be the alert_id of an alert, 16 hex digits"
        )
    return text


def note(text: str) -> str:
    """What an operator has to say of an alert.

    Raises:
        InvalidError: it is too long, or holds a zero character.
    """
    if len(text) > LONGEST_NOTE:
        raise InvalidError(
            f"note has {len(text)} characters and must have at most {LONGEST_NOTE}; shorten it"
        )
    if "\0" in text:  # PostgreSQL keeps none
        raise InvalidError("note holds a zero character and must not; leave it out")
    return text


def _given(utc_seconds: float | None) -> Timestamp | None:
    return None if utc_seconds is None else timestamp(utc_seconds)


def _time(message: Timestamp, field: str) -> float:
    if not (_YEAR_1 <= message.seconds < _YEAR_10000 and 0 <= message.nanos < 10**9):
        raise InvalidError(
            f"{field} ({message.seconds} s, {message.nanos} ns) must lie between the "
            "years 1 and 9999, with 0 to 999999999 ns"
        )
    return seconds(message)


# Enums bear the same names on both sides; None is the value that was not given.
_STATE = {item: alert_pb2.AlertState.Value(f"ALERT_STATE_{item.name}") for item in AlertState}
_CHANGE = {
    item: alert_pb2.AlertChangeKind.Value(f"ALERT_CHANGE_KIND_{item.name}") for item in ChangeKind
}
_END = {
    item: alert_pb2.AlertEndReason.Value(f"ALERT_END_REASON_{item.name}") for item in EndReason
} | {None: alert_pb2.ALERT_END_REASON_UNSPECIFIED}
_SUPPRESSION = {
    item: alert_pb2.AlertSuppression.Value(f"ALERT_SUPPRESSION_{item.name}") for item in Suppression
} | {None: alert_pb2.ALERT_SUPPRESSION_UNSPECIFIED}
_EVIDENCE = {
    item: alert_pb2.EvidenceState.Value(f"EVIDENCE_STATE_{item.name}")
    for item in EvidenceState
    if item is not EvidenceState.NONE
} | {EvidenceState.NONE: alert_pb2.EVIDENCE_STATE_UNSPECIFIED}

_STATE_OF = {value: key for key, value in _STATE.items()}
_CHANGE_OF = {value: key for key, value in _CHANGE.items()}
_END_OF = {value: key for key, value in _END.items()}
_SUPPRESSION_OF = {value: key for key, value in _SUPPRESSION.items()}
_EVIDENCE_OF = {value: key for key, value in _EVIDENCE.items()}
