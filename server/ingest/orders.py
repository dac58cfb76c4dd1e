"""What the server asks of a worker about an alert's evidence, and what it hears back.

An event is held as soon as its first score is high: it may become an alert, and
the pictures before it must still be there then.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HoldEvidence:
    """An event may become an alert: let go of nothing from then on, and take its picture.

    Sent again with every higher peak.

    Attributes:
        alert_id: that the alert would have.
        from_seconds: UTC capture time at which its clip would begin.
        peak_seconds: UTC capture time at which the window with the peak ends.
    """

    alert_id: str
    from_seconds: float
    peak_seconds: float


@dataclass(frozen=True, slots=True)
class KeepEvidence:
    """It has become an alert: write its picture, begin its clip. Fields as of `HoldEvidence`."""

    alert_id: str
    from_seconds: float
    peak_seconds: float


@dataclass(frozen=True, slots=True)
class FinishEvidence:
    """The alert is over.

    Attributes:
        alert_id: the alert.
        until_seconds: UTC capture time at which its clip ends, the post-roll included.
    """

    alert_id: str
    until_seconds: float


@dataclass(frozen=True, slots=True)
class DropEvidence:
    """The event became no alert."""

    alert_id: str


@dataclass(frozen=True, slots=True)
class EvidenceReport:
    """What there is of an alert's evidence by now.

    Attributes:
        stream_id: the stream.
        alert_id: the alert.
        final: whether nothing more comes.
        snapshot_bytes: size of the picture; 0 where there is none.
        clip_bytes: size of the clip; 0 where there is none.
        clip_start_seconds: UTC capture time of the clip's first picture; None without a clip.
        clip_end_seconds: the same of its last one.
        problem: why something is missing that should be there; empty otherwise.
    """

    stream_id: str
    alert_id: str
    final: bool
    snapshot_bytes: int = 0
    clip_bytes: int = 0
    clip_start_seconds: float | None = None
    clip_end_seconds: float | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class EvidenceLost:
    """The worker of a stream is gone, with all that it had not written yet."""

    stream_id: str


EvidenceOrder = HoldEvidence | KeepEvidence | FinishEvidence | DropEvidence
