"""Scores to events to alerts, one stream at a time; pure.

An event opens at the open threshold; once it spans the minimum duration it is
announced as an alert. One that falls below the close threshold before is forgotten.
An alert ends when scores have stayed below the close threshold for the merge gap: a
score at or above it within goes on with the alert, for no other threshold says what
low is, and so a longer merge gap never makes more alerts. Its end is that of its last
window at or above the close threshold, whenever it is told.

A dropped window says nothing, so that the last score goes on. A gap in the stream ends
what is open, for nothing is known beyond it; so does a clock that was set, since an
alert's times are all of one clock. An alert that would last longer than the maximum
duration is ended with SPLIT and continued by another at once, whose first window
follows the last one of the former, whatever the score of the windows in between.

Nothing here knows what time it is: the capture end of an event's first window decides
whether its alert is suppressed, so that a replay suppresses what the camera did.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from server.alerts import (
    Alert,
    AlertPolicy,
    AlertState,
    EndReason,
    ScoredSpan,
    Suppression,
    alert_id,
)

CLOCK_STEP_SECONDS = 60.0
"""Windows without a gap between them that lie further apart: the clock was set ahead.

A camera that sends a frame every ten seconds is no gap, so it cannot be much less.
"""


@dataclass(slots=True)
class _Event:
    """What is open.

    Attributes:
        alert: as of its newest window that belongs to it, without the windows' scores.
        began_seconds: capture end of the window that opened the event, before any split.
        scores: one a sequence from the alert's first one on, NaN where there is none;
            goes on to the newest window seen, which may not belong.
        announced: it became an alert.
        low: the newest score lies below the close threshold.
        rest_start_seconds: where the first window after the last one that belongs begins;
            None where there is none.
    """

    alert: Alert
    began_seconds: float
    scores: list[float]
    announced: bool = False
    low: bool = False
    rest_start_seconds: float | None = None

    def note(self, span: ScoredSpan) -> None:
        """Keep a window's score, and NaN for those before it that never came."""
        place = span.sequence - self.alert.first_sequence
        self.scores.extend([math.nan] * (place - len(self.scores)))
        self.scores.append(math.nan if span.score is None else span.score)

    def told(self) -> Alert:
        """The alert with the scores of its windows."""
        alert = self.alert
        windows = alert.last_sequence - alert.first_sequence + 1
        return replace(alert, window_scores=tuple(self.scores[:windows]))


@dataclass(slots=True)
class AlertMachine:
    """Follows one stream. Emits each alert twice: when it opens and when it closes.

    `policy` may be replaced at any time and holds from the next window on. What is open
    stays open, as the same alert, and ends by the new policy; an event that is no alert
    yet must reach the new open threshold and minimum duration to become one. Whether an
    alert is suppressed is settled as it opens.

    Attributes:
        stream_id: the stream.
        bundle_id: the bundle that scores it.
        policy: how scores become alerts.
        delivered_until_seconds: UTC capture time at which the newest delivered alert ended,
            from which the cooldown counts; None where there was none.
    """

    stream_id: str
    bundle_id: str
    policy: AlertPolicy
    delivered_until_seconds: float | None = None
    _event: _Event | None = field(default=None, init=False)
    _seen_until_seconds: float | None = field(default=None, init=False)

    @property
    def event(self) -> Alert | None:
        """What is an alert or may become one, without its windows' scores."""
        return None if self._event is None else self._event.alert

    def push(self, span: ScoredSpan) -> list[Alert]:
        """Take the next window of the stream.

        Returns:
            Changes in order: at most two alerts, the first one closed and the next one opened.
        """
        changes = self._broken_off(span)
        self._seen_until_seconds = span.end_seconds
        event = self._event
        if event is None:
            self._open(span)
        elif self._is_low(event, span):
            changes += self._wait(event, span)
        elif span.score is None:
            _rest(event, span)
        else:
            changes += self._extend(event, span, span.score)
        return changes + self._announce()

    def finish(self, reason: EndReason = EndReason.GAP) -> list[Alert]:
        """The stream has ended or broken off: close what is open."""
        event, self._event = self._event, None
        if event is None or not event.announced:
            return []
        closed = replace(event.told(), state=AlertState.CLOSED, end_reason=reason)
        if closed.suppression is None:
            self.delivered_until_seconds = closed.end_seconds
        return [closed]

    def _broken_off(self, span: ScoredSpan) -> list[Alert]:
        if span.after_gap:
            return self.finish(EndReason.GAP)
        return self.finish(EndReason.CLOCK_SET) if self._clock_was_set(span) else []

    def _clock_was_set(self, span: ScoredSpan) -> bool:
        until_seconds = self._seen_until_seconds
        return until_seconds is not None and (
            span.end_seconds < until_seconds
            or span.start_seconds > until_seconds + CLOCK_STEP_SECONDS
        )

    def _is_low(self, event: _Event, span: ScoredSpan) -> bool:
        return event.low if span.score is None else span.score < self.policy.close_threshold

    def _open(self, span: ScoredSpan) -> None:
        if span.score is None or span.score < self.policy.open_threshold:
            return
        alert = Alert(
            alert_id=alert_id(self.stream_id, self.bundle_id, span.sequence),
            stream_id=self.stream_id,
            bundle_id=self.bundle_id,
            state=AlertState.OPEN,
            first_sequence=span.sequence,
            last_sequence=span.sequence,
            start_seconds=span.start_seconds,
            end_seconds=span.end_seconds,
            peak_score=span.score,
            peak_seconds=span.end_seconds,
            explanation=span.explanation,
        )
        self._event = _Event(alert, span.end_seconds, [span.score])

    def _wait(self, event: _Event, span: ScoredSpan) -> list[Alert]:
        """A low window, or a dropped one after it: end the event once it was low long enough."""
        _rest(event, span)
        event.low = True
        low_seconds = span.end_seconds - event.alert.end_seconds
        if event.announced and low_seconds < self.policy.merge_gap_seconds:
            return []
        return self.finish(EndReason.SCORE_FELL)

    def _extend(self, event: _Event, span: ScoredSpan, score: float) -> list[Alert]:
        event.note(span)
        event.low = False
        length_seconds = span.end_seconds - event.alert.start_seconds
        if event.announced and length_seconds > self.policy.max_duration_seconds:
            return self._split(event, span, score)
        event.alert = _extended(event.alert, span, score)
        event.rest_start_seconds = None
        return []

    def _split(self, event: _Event, span: ScoredSpan, score: float) -> list[Alert]:
        changes = self.finish(EndReason.SPLIT)
        former = event.alert
        first_sequence = former.last_sequence + 1
        start_seconds = event.rest_start_seconds
        alert = replace(
            former,
            alert_id=alert_id(self.stream_id, self.bundle_id, first_sequence),
            first_sequence=first_sequence,
            last_sequence=span.sequence,
            start_seconds=span.start_seconds if start_seconds is None else start_seconds,
            end_seconds=span.end_seconds,
            peak_score=score,
            peak_seconds=span.end_seconds,
            explanation=span.explanation,
            continues=former.alert_id,
        )
        scores = event.scores[first_sequence - former.first_sequence :]
        self._event = _Event(alert, event.began_seconds, scores, announced=True)
        return [*changes, self._event.told()]

    def _announce(self) -> list[Alert]:
        event = self._event
        if event is None or event.announced:
            return []
        alert = event.alert
        if alert.peak_score < self.policy.open_threshold:
            self._event = None  # the threshold was raised, and nobody has heard of it
            return []
        if alert.end_seconds - alert.start_seconds < self.policy.min_duration_seconds:
            return []
        event.announced = True
        event.alert = replace(alert, suppression=self._suppression(event.began_seconds))
        return [event.told()]

    def _suppression(self, began_seconds: float) -> Suppression | None:
        # What somebody asked for by hand is named first.
        if self.policy.schedule.is_snoozed(began_seconds):
            return Suppression.SNOOZED
        if self.policy.schedule.is_quiet(began_seconds):
            return Suppression.QUIET_HOURS
        until_seconds = self.delivered_until_seconds
        if until_seconds is None:
            return None
        # A clock that was set back must not make one cooldown of all the time in between.
        within = 0 <= began_seconds - until_seconds < self.policy.cooldown_seconds
        return Suppression.COOLDOWN if within else None


def _rest(event: _Event, span: ScoredSpan) -> None:
    """A window that does not belong to the event, or not yet."""
    event.note(span)
    if event.rest_start_seconds is None:
        event.rest_start_seconds = span.start_seconds


def _extended(alert: Alert, span: ScoredSpan, score: float) -> Alert:
    alert = replace(alert, last_sequence=span.sequence, end_seconds=span.end_seconds)
    if score <= alert.peak_score:
        return alert
    return replace(
        alert, peak_score=score, peak_seconds=span.end_seconds, explanation=span.explanation
    )
