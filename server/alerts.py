"""Scores to events to alerts; pure.

An event opens at the open threshold and closes only below the lower close
threshold (hysteresis). It becomes an alert once it has lasted the minimum
duration. A gap in the stream closes what is open: nothing is known beyond it. So
does a clock that was set: an alert's times are all of one clock, so that it lasts
as long as they say and never a negative time.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from enum import Enum

from server.bank import Explanation

CLOSE_RATIO = 0.8
"""Default close threshold as a share of the open threshold."""

MIN_DURATION_SECONDS = 2.0
"""Default minimum duration: one window of the embedded default is not an event yet."""


CLOCK_STEP_SECONDS = 60.0
"""Windows without a gap between them that lie further apart: the clock was set ahead.

A camera that sends a frame every ten seconds is no gap, so it cannot be much less.
"""


class AlertState(Enum):
    """Whether an alert still goes on."""

    OPEN = "open"
    CLOSED = "closed"


class EndReason(Enum):
    """Why an alert ended."""

    SCORE_FELL = "score_fell"  # and stayed low for the merge gap
    GAP = "gap"  # the stream broke off
    SPLIT = "split"  # it had reached the maximum duration; another continues it
    STOPPED = "stopped"  # the stream was deleted or the server stopped in good order
    LOST = "lost"  # the server was killed while it went on
    CLOCK_SET = "clock_set"


class Suppression(Enum):
    """Why an alert is kept but delivered to nobody."""

    COOLDOWN = "cooldown"
    QUIET_HOURS = "quiet_hours"
    SNOOZED = "snoozed"


@dataclass(frozen=True, slots=True)
class AlertPolicy:
    """When an event opens, closes and counts.

    Attributes:
        open_threshold: score in [0, 1] at or above which an event opens.
        close_threshold: score below which it closes, at most `open_threshold`.
        min_duration_seconds: capture time an event must span to become an alert.
    """

    open_threshold: float
    close_threshold: float
    min_duration_seconds: float

    def __post_init__(self) -> None:
        if not 0 <= self.close_threshold <= self.open_threshold <= 1:
            raise ValueError(
                f"thresholds must be 0 <= close ({self.close_threshold}) "
                f"<= open ({self.open_threshold}) <= 1"
            )
        if self.min_duration_seconds < 0:
            raise ValueError(f"min_duration_seconds ({self.min_duration_seconds}) must be >= 0")


@dataclass(frozen=True, slots=True)
class ScoredSpan:
    """What the state machine sees of a window.

    Attributes:
        sequence: the window's number in its stream, rising for ever.
        start_seconds: UTC capture time of the first frame.
        end_seconds: UTC capture time of the last frame.
        score: in [0, 1]; None where the window was dropped.
        after_gap: the window begins after a gap, so an open event ends before it.
        explanation: the nearest sentences of the bundle's bank.
    """

    sequence: int
    start_seconds: float
    end_seconds: float
    score: float | None
    after_gap: bool
    explanation: Explanation = ()


@dataclass(frozen=True, slots=True)
class Alert:
    """A run of scores over the threshold, as it leaves the system.

    Attributes:
        alert_id: 16 hex digits, a hash of stream, bundle and first sequence.
        stream_id: the stream it happened on.
        bundle_id: the bundle that scored it.
        state: OPEN, then once CLOSED.
        first_sequence: window that opened the event.
        last_sequence: newest window that belongs to it.
        start_seconds: UTC capture time at which the first window begins.
        end_seconds: UTC capture time at which the last window ends.
        peak_score: highest score so far, in [0, 1].
        peak_seconds: UTC capture time at which the peak's window ends.
        explanation: the nearest sentences to that window, nearest first.
        end_reason: why it ended; None while it goes on.
        continues: the alert that this one goes on from after a split.
        suppression: why it is delivered to nobody; None delivers it.
        window_scores: one for each sequence from first to last, NaN where a window was
            dropped; as of this change.
    """

    alert_id: str
    stream_id: str
    bundle_id: str
    state: AlertState
    first_sequence: int
    last_sequence: int
    start_seconds: float
    end_seconds: float
    peak_score: float
    peak_seconds: float
    explanation: Explanation = ()
    end_reason: EndReason | None = None
    continues: str | None = None
    suppression: Suppression | None = None
    window_scores: tuple[float, ...] = ()

    @property
    def is_closed(self) -> bool:
        return self.state is AlertState.CLOSED


def alert_id(stream_id: str, bundle_id: str, first_sequence: int) -> str:
    """Identity of an alert: the same event always has the same id."""
    identity = f"{stream_id}\n{bundle_id}\n{first_sequence}".encode()
    return hashlib.sha256(identity).hexdigest()[:16]


@dataclass(slots=True)
class AlertMachine:
    """Follows one stream. Emits each alert twice: when it opens and when it closes."""

    stream_id: str
    bundle_id: str
    policy: AlertPolicy
    _event: Alert | None = field(default=None, init=False)
    _announced: bool = field(default=False, init=False)
    _seen_until_seconds: float | None = field(default=None, init=False)

    def push(self, span: ScoredSpan) -> list[Alert]:
        """Take the next window of the stream.

        Returns:
            Changes in order: at most one alert that closed and one that opened.
            A dropped window says nothing, so it neither opens nor closes.
        """
        changes = self.finish() if span.after_gap or self._clock_was_set(span) else []
        self._seen_until_seconds = span.end_seconds
        if span.score is None:
            return changes
        if self._event is None and span.score >= self.policy.open_threshold:
            self._event = self._open(span, span.score)
        elif self._event is not None and span.score >= self.policy.close_threshold:
            self._event = _extended(self._event, span, span.score)
        elif self._event is not None:
            return changes + self.finish()
        return changes + self._announce()

    def finish(self) -> list[Alert]:
        """The stream has ended or broken off: close what is open."""
        event, self._event = self._event, None
        if event is None or not self._announced:
            return []
        self._announced = False
        return [replace(event, state=AlertState.CLOSED)]

    def _clock_was_set(self, span: ScoredSpan) -> bool:
        until_seconds = self._seen_until_seconds
        return until_seconds is not None and (
            span.end_seconds < until_seconds
            or span.start_seconds > until_seconds + CLOCK_STEP_SECONDS
        )

    def _announce(self) -> list[Alert]:
        event = self._event
        if event is None or self._announced:
            return []
        if event.end_seconds - event.start_seconds < self.policy.min_duration_seconds:
            return []
        self._announced = True
        return [event]

    def _open(self, span: ScoredSpan, score: float) -> Alert:
        return Alert(
            alert_id=alert_id(self.stream_id, self.bundle_id, span.sequence),
            stream_id=self.stream_id,
            bundle_id=self.bundle_id,
            state=AlertState.OPEN,
            first_sequence=span.sequence,
            last_sequence=span.sequence,
            start_seconds=span.start_seconds,
            end_seconds=span.end_seconds,
            peak_score=score,
            peak_seconds=span.end_seconds,
            explanation=span.explanation,
        )


def _extended(event: Alert, span: ScoredSpan, score: float) -> Alert:
    event = replace(event, last_sequence=span.sequence, end_seconds=span.end_seconds)
    if score <= event.peak_score:
        return event
    return replace(
        event, peak_score=score, peak_seconds=span.end_seconds, explanation=span.explanation
    )
