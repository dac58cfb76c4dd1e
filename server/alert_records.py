"""Alerts at rest: what became of an alert after it left the state machine."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from server.alerts import Alert, AlertState


class EvidenceState(Enum):
    """Whether there is evidence of an alert."""

    NONE = "none"  # none is kept on this stream
    PENDING = "pending"
    READY = "ready"
    FAILED = "failed"
    DELETED = "deleted"  # its retention ended


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is kept of an alert's pictures.

    Attributes:
        state: whether there is any.
        snapshot_bytes: size of the JPEG file; 0 where there is none.
        clip_bytes: size of the MP4 file; 0 where there is none.
        clip_start_seconds: UTC capture time at which the clip begins; None where there is none.
        clip_end_seconds: the same of its end.
    """

    state: EvidenceState = EvidenceState.NONE
    snapshot_bytes: int = 0
    clip_bytes: int = 0
    clip_start_seconds: float | None = None
    clip_end_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class AlertRecord:
    """An alert as it is kept.

    Attributes:
        alert: as the state machine had it last.
        acknowledged_seconds: UTC at which somebody first said to have seen it; None before.
        note: the newest word of those who did.
        evidence: what is kept of the pictures.
    """

    alert: Alert
    acknowledged_seconds: float | None = None
    note: str = ""
    evidence: Evidence = Evidence()


class ChangeKind(Enum):
    """What happened to an alert."""

    OPENED = "opened"
    CLOSED = "closed"
    ACKNOWLEDGED = "acknowledged"
    EVIDENCE = "evidence"  # it can be read, or could not be made


@dataclass(frozen=True, slots=True)
class AlertChange:
    """One change of an alert, as it was written down.

    Attributes:
        position: place in the log of changes; rises for ever, 1 or more.
        kind: what happened.
        record: the alert after it.
        changed_seconds: UTC at which it was written down.
    """

    position: int
    kind: ChangeKind
    record: AlertRecord
    changed_seconds: float

    @property
    def stream_id(self) -> str:
        return self.record.alert.stream_id


@dataclass(frozen=True, slots=True)
class AlertFilter:
    """Which alerts to list; None leaves a criterion out.

    Attributes:
        stream_id: of this stream.
        state: in this state.
        start_seconds: that begin at this UTC time or later.
        end_seconds: that begin before this UTC time.
        min_peak_score: with at least this peak.
        unacknowledged: that nobody has acknowledged.
        include_suppressed: also those that were delivered to nobody.
    """

    stream_id: str | None = None
    state: AlertState | None = None
    start_seconds: float | None = None
    end_seconds: float | None = None
    min_peak_score: float = 0.0
    unacknowledged: bool = False
    include_suppressed: bool = False
