"""Alarms held against true events, and the choice of an operating point; pure.

An alarm is an event that the alert machine opened, from the moment at which the
score that opened it existed. Times are seconds since the start of a stream.

An alarm detects an event if it opens within the event, or opened earlier and is
still open after the event's start: an operator who looks at the camera anyway sees
the event begin, so its delay is 0 and the alarm is not false, however early it
was. So an alarm that never closes detects everything without a false alarm; read
recall beside `normal_duty`, the share of normal footage under an open alarm. An
alarm that opens once the event is over is false, and the event missed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from server.metrics import Rate, Scores

MAX_THRESHOLDS = 200

MAX_NORMAL_DUTY = 0.5
"""An alarm that is open over more of the normal footage than this tells nobody anything."""


@dataclass(frozen=True, slots=True)
class TruthEvent:
    """One anomaly of a stream, [start, end)."""

    start_seconds: float
    end_seconds: float

    def __post_init__(self) -> None:
        if not self.start_seconds < self.end_seconds:
            raise ValueError(
                f"an event must end ({self.end_seconds}) after its start ({self.start_seconds})"
            )

    @property
    def seconds(self) -> float:
        return self.end_seconds - self.start_seconds


@dataclass(frozen=True, slots=True)
class StreamTruth:
    """What truly happens on a stream.

    Attributes:
        stream_id: the stream.
        seconds: of footage, over 0.
        events: ascending, disjoint, inside [0, seconds].
    """

    stream_id: str
    seconds: float
    events: tuple[TruthEvent, ...]

    def __post_init__(self) -> None:
        edges = [0.0, *(edge for e in self.events for edge in (e.start_seconds, e.end_seconds))]
        if not self.seconds > 0 or any(a > b for a, b in pairwise([*edges, self.seconds])):
            raise ValueError(
                f"events of {self.stream_id} must be ascending, disjoint and inside "
                f"[0, {self.seconds}] seconds"
            )

    @property
    def normal_seconds(self) -> float:
        return max(0.0, self.seconds - sum(event.seconds for event in self.events))


@dataclass(frozen=True, slots=True)
class Alarm:
    """An event that the detector opened on a stream.

    Attributes:
        stream_id: the stream.
        opened_seconds: when the score that opened it existed.
        closed_seconds: when it closed, at `opened_seconds` or later.
    """

    stream_id: str
    opened_seconds: float
    closed_seconds: float

    def __post_init__(self) -> None:
        if not self.opened_seconds <= self.closed_seconds:
            raise ValueError(
                f"an alarm must close ({self.closed_seconds}) no earlier than it opens "
                f"({self.opened_seconds})"
            )

    def detects(self, event: TruthEvent) -> bool:
        """Whether it is open at some time within an event of its stream."""
        # An alarm may close as it opens: then it was open for that moment.
        if self.opened_seconds >= event.start_seconds:
            return self.opened_seconds < event.end_seconds
        return self.closed_seconds > event.start_seconds


@dataclass(frozen=True, slots=True)
class EventOutcome:
    """What became of a true event.

    Attributes:
        stream_id: its stream.
        event: the truth.
        opened_seconds: opening of the first alarm that detects it; None if missed.
    """

    stream_id: str
    event: TruthEvent
    opened_seconds: float | None

    @property
    def is_detected(self) -> bool:
        return self.opened_seconds is not None

    @property
    def was_open_before(self) -> bool:
        """Whether the alarm was open already when the event began."""
        return self.opened_seconds is not None and self.opened_seconds < self.event.start_seconds

    @property
    def delay_seconds(self) -> float:
        """From the event's start to the alarm, 0 or more; a miss counts the event's length."""
        if self.opened_seconds is None:
            return self.event.seconds
        return max(0.0, self.opened_seconds - self.event.start_seconds)


@dataclass(frozen=True, slots=True)
class EventFigures:
    """Alarms of some streams held against their truth.

    Attributes:
        outcomes: one a true event, in order of stream and time.
        false_alarms: alarms that detect no event.
        normal_hours: of footage outside events.
        normal_alarm_hours: of it, with an alarm open.
    """

    outcomes: tuple[EventOutcome, ...]
    false_alarms: tuple[Alarm, ...]
    normal_hours: float
    normal_alarm_hours: float

    @property
    def recall(self) -> float | None:
        """Share of the events that are detected; None without events."""
        if not self.outcomes:
            return None
        return sum(outcome.is_detected for outcome in self.outcomes) / len(self.outcomes)

    @property
    def mean_delay_seconds(self) -> float | None:
        """Over all events, misses with their own length; None without events."""
        return float(np.mean(self._delays_seconds())) if self.outcomes else None

    @property
    def p90_delay_seconds(self) -> float | None:
        """Like the mean, the 90th percentile, interpolated between events."""
        return float(np.quantile(self._delays_seconds(), 0.9)) if self.outcomes else None

    @property
    def false_alarm_rate(self) -> Rate:
        """False alarms per camera-hour of normal footage."""
        return Rate(len(self.false_alarms), self.normal_hours)

    @property
    def normal_duty(self) -> float | None:
        """Share of the normal footage with an alarm open; None without such footage."""
        return self.normal_alarm_hours / self.normal_hours if self.normal_hours else None

    def _delays_seconds(self) -> list[float]:
        return [outcome.delay_seconds for outcome in self.outcomes]


def event_figures(truths: Sequence[StreamTruth], alarms: Iterable[Alarm]) -> EventFigures:
    """Hold the alarms of all streams against the truth, by the module's rule.

    Raises:
        ValueError: a stream twice, or an alarm on a stream without truth.
    """
    by_stream: dict[str, list[Alarm]] = {truth.stream_id: [] for truth in truths}
    if len(by_stream) < len(truths):
        raise ValueError("a stream must have one truth, got one twice")
    for alarm in alarms:
        if alarm.stream_id not in by_stream:
            raise ValueError(f"alarm on {alarm.stream_id}, which has no truth; add it")
        by_stream[alarm.stream_id].append(alarm)
    pairs = [(truth, by_stream[truth.stream_id]) for truth in truths]
    return EventFigures(
        outcomes=tuple(_outcome(t, event, own) for t, own in pairs for event in t.events),
        false_alarms=tuple(
            alarm for t, own in pairs for alarm in own if not any(map(alarm.detects, t.events))
        ),
        normal_hours=sum(t.normal_seconds for t in truths) / 3600,
        normal_alarm_hours=sum(_normal_alarm_seconds(t, own) for t, own in pairs) / 3600,
    )


def _outcome(truth: StreamTruth, event: TruthEvent, alarms: list[Alarm]) -> EventOutcome:
    openings = [alarm.opened_seconds for alarm in alarms if alarm.detects(event)]
    return EventOutcome(truth.stream_id, event, min(openings, default=None))


def _normal_alarm_seconds(truth: StreamTruth, alarms: list[Alarm]) -> float:
    """Time with an alarm open and no event: what alarms add to the events' own time."""
    events = [(event.start_seconds, event.end_seconds) for event in truth.events]
    spans = [(alarm.opened_seconds, min(alarm.closed_seconds, truth.seconds)) for alarm in alarms]
    covered_seconds, until_seconds = 0.0, 0.0
    for start_seconds, end_seconds in sorted(events + spans):
        covered_seconds += max(0.0, end_seconds - max(start_seconds, until_seconds))
        until_seconds = max(until_seconds, end_seconds)
    return max(0.0, covered_seconds - sum(event.seconds for event in truth.events))


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """What one threshold gives.

    Attributes:
        threshold: on the scores' scale.
        false_alarms: per camera-hour of normal footage.
        recall: share of the events detected, in [0, 1]; None without events.
        mean_delay_seconds: over all events, misses with their own length.
        p90_delay_seconds: likewise.
        normal_duty: share of normal footage with an alarm open; None without any.
    """

    threshold: float
    false_alarms: Rate
    recall: float | None
    mean_delay_seconds: float | None
    p90_delay_seconds: float | None
    normal_duty: float | None


def candidate_thresholds(scores: Scores, at_most: int = MAX_THRESHOLDS) -> list[float]:
    """Thresholds that make a difference: the distinct scores, or a selection.

    Args:
        scores: (N,) of all windows.
        at_most: thresholds, 2 or more.

    Returns:
        Rising, highest and lowest score included. Where there are more than `at_most`,
        half are spread evenly by rank and half geometrically from the top, where a
        few false alarms a day are decided.
    """
    distinct = np.unique(scores)
    if len(distinct) <= at_most:
        return [float(score) for score in distinct]
    half = at_most // 2
    ranks = [np.linspace(1, len(distinct), at_most - half), np.geomspace(1, len(distinct), half)]
    from_the_top = np.unique(np.concatenate(ranks).round().astype(np.int64))
    return [float(score) for score in distinct[len(distinct) - from_the_top[::-1]]]


def operating_curve(
    truths: Sequence[StreamTruth],
    thresholds: Iterable[float],
    alarms_at: Callable[[float], Iterable[Alarm]],
) -> tuple[OperatingPoint, ...]:
    """What each threshold gives.

    Args:
        truths: of all streams.
        thresholds: such as `candidate_thresholds`.
        alarms_at: the alarms of all streams at a threshold, the caller's alert machine.

    Returns:
        One a threshold, rising.
    """
    return tuple(
        _point(threshold, event_figures(truths, alarms_at(threshold)))
        for threshold in sorted(set(thresholds))
    )


def _point(threshold: float, figures: EventFigures) -> OperatingPoint:
    return OperatingPoint(
        threshold=threshold,
        false_alarms=figures.false_alarm_rate,
        recall=figures.recall,
        mean_delay_seconds=figures.mean_delay_seconds,
        p90_delay_seconds=figures.p90_delay_seconds,
        normal_duty=figures.normal_duty,
    )


def at_budget(
    curve: Sequence[OperatingPoint],
    budget_per_hour: float,
    max_normal_duty: float = MAX_NORMAL_DUTY,
) -> OperatingPoint | None:
    """The lowest threshold that keeps within a budget of false alarms.

    Alarms of a low threshold run into one another, so that there are few again; so
    the search goes down from the highest threshold and ends at the first one that
    breaks the budget. Whether the footage can show such a rate is
    `false_alarms.measurable(budget_per_hour)`.

    Args:
        curve: rising.
        budget_per_hour: false alarms per camera-hour of normal footage.
        max_normal_duty: share of the normal footage that alarms may cover, in [0, 1].

    Returns:
        None where even the highest threshold breaks the budget.
    """
    best = None
    for point in reversed(curve):
        rate, duty = point.false_alarms.per_hour, point.normal_duty
        if rate is None or duty is None or rate > budget_per_hour or duty > max_normal_duty:
            break
        best = point
    return best


@dataclass(frozen=True, slots=True)
class ScoreTrace:
    """Scores of a stream over time; each holds until the next.

    Attributes:
        exist_seconds: (N,) when each score existed, never falling; N is 1 or more.
        scores: (N,)
        end_seconds: until when the last one holds.
    """

    exist_seconds: Scores
    scores: Scores
    end_seconds: float

    def __post_init__(self) -> None:
        if self.exist_seconds.shape != self.scores.shape or self.scores.ndim != 1:
            raise ValueError(
                f"need one time a score, got {self.exist_seconds.shape} and {self.scores.shape}"
            )
        if not len(self.scores) or not (self.held_seconds() >= 0).all():
            raise ValueError("a trace needs a score, and times that never fall up to its end")

    def held_seconds(self) -> Scores:
        """(N,) how long each score holds."""
        return np.diff(self.exist_seconds, append=self.end_seconds)


def flips_per_minute(trace: ScoreTrace, threshold: float) -> float | None:
    """Crossings of the threshold a minute, up and down; None in no time at all."""
    minutes = float(trace.held_seconds().sum()) / 60
    crossings = np.count_nonzero(np.diff(trace.scores >= threshold))
    return crossings / minutes if minutes else None


def alert_duty(trace: ScoreTrace, threshold: float) -> float | None:
    """Share of the time with a score at or over the threshold; None in no time at all."""
    held_seconds = trace.held_seconds()
    total_seconds = float(held_seconds.sum())
    over_seconds = float(held_seconds[trace.scores >= threshold].sum())
    return over_seconds / total_seconds if total_seconds else None
