"""From a budget of false alarms to the open threshold that keeps within it; pure.

Everything in the footage counts as normal, so every event that opens is a false
alarm; what opens is counted by `server.opening`, with the alert machine itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from server.calibration import Calibration, CalibrationError, CurvePoint
from server.metrics import MEASURABLE_EVENTS, Rate
from server.opening import EventCounter, Opened, PolicyAt
from server.operating import candidate_thresholds
from server.series import Floats, ScoreSeries

SHORTEST_SECONDS = 600.0
FEWEST_WINDOWS = 500

MAX_CANDIDATES = 1000
"""Thresholds of one walk: every distinct score near the top, a selection below."""

SCORE_STEP = 1 / 65535
"""How finely the past is kept; a threshold over every score lies so far over the highest."""

MAX_OPEN_SHARE = 0.1
"""Events that are open over more of the normal footage tell nobody anything, however few."""

DEAR_PUSHES = 20_000
"""Windows that a walk pushes before it takes every second step only; and so on.

Where scores change slowly, hours of footage are one event at hundreds of thresholds.
"""

_CURVE_POINTS = 60
_BELOW_POINTS = 10
_DAY_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Question:
    """What to learn, and for whom.

    Attributes:
        bundle_id: the detector that made the scores.
        policy_at: how the stream's scores become alerts at an open threshold.
        false_alarms_per_day: the budget.
        asked_seconds: UTC.
        lowest_threshold: open thresholds below it cannot be: the stream's own close threshold.
    """

    bundle_id: str
    policy_at: PolicyAt
    false_alarms_per_day: float
    asked_seconds: float
    lowest_threshold: float = 0.0


def calibrate(series: ScoreSeries, question: Question) -> Calibration:
    """The lowest open threshold that keeps the expected rate of events within a budget.

    From the top down through the distinct scores, down to the first that breaks the
    budget: fewer events at a still lower one are those that have run into each other.
    The next event's peak lies just below the threshold, so that n events in D days let
    (n + 1) / D a day be expected of other footage, and that is held against the budget.
    A threshold whose events are open for a tenth of the footage breaks it too.

    Args:
        series: normal footage.
        question: the budget, and how the stream makes alerts.

    Raises:
        CalibrationError: the footage is too short for any answer.
    """
    days = float(series.watched_seconds().sum()) / _DAY_SECONDS
    windows = len(series.known())
    if windows < FEWEST_WINDOWS or days * _DAY_SECONDS < SHORTEST_SECONDS:
        raise CalibrationError(
            f"{days * _DAY_SECONDS / 60:.1f} minutes of scores in {windows} windows are too few "
            f"to learn from; it takes at least {SHORTEST_SECONDS / 60:g} minutes "
            f"and {FEWEST_WINDOWS} windows"
        )
    counter = EventCounter(series, question.policy_at)
    walk = _walk(series, counter, question)
    events = counter.at(walk.threshold).events
    rate = Rate(events, 24 * days)
    low, high = (24 * bound for bound in rate.interval or (0.0, 0.0))
    held_out = _held_out(series, question)
    return Calibration(
        bundle_id=question.bundle_id,
        open_threshold=walk.threshold,
        false_alarms_per_day=question.false_alarms_per_day,
        watched_seconds=days * _DAY_SECONDS,
        events=events,
        low_per_day=low,
        high_per_day=high,
        measurable=rate.measurable(question.false_alarms_per_day / 24),
        message=_message(walk.threshold, rate, question.false_alarms_per_day, held_out),
        made_seconds=question.asked_seconds,
        reference=tuple(int(count) for count in series.histogram()),
        held_out_per_day=held_out.per_day if held_out is not None else None,
        curve=_curve(walk, counter, MAX_OPEN_SHARE * days * _DAY_SECONDS),
    )


@dataclass(frozen=True, slots=True)
class _Walk:
    """A walk down the scores.

    Attributes:
        threshold: the lowest that keeps within the budget, with all above it.
        seen: thresholds that were tried, falling, and what they open.
        steps: falling thresholds to go on with.
    """

    threshold: float
    seen: tuple[tuple[float, Opened], ...]
    steps: tuple[float, ...]


def _walk(series: ScoreSeries, counter: EventCounter, question: Question) -> _Walk:
    watched_seconds = float(series.watched_seconds().sum())
    expected = question.false_alarms_per_day * watched_seconds / _DAY_SECONDS

    most_seconds = MAX_OPEN_SHARE * watched_seconds
    seen: dict[float, Opened] = {}

    def is_within(step: float) -> bool:
        if counter.surely_open_seconds(step) > most_seconds:
            return False
        seen[step] = opened = counter.at(step)
        # Days are sums over windows, which may end just below a round number.
        return opened.events + 1 <= expected * (1 + 1e-9) and opened.seconds <= most_seconds

    scores = series.known()
    usable = scores[scores >= max(question.lowest_threshold, SCORE_STEP)]
    over_all = max(float(usable.max(initial=0.0)) + SCORE_STEP, question.lowest_threshold)
    best, steps = min(1.0, over_all), _falling(usable)
    seen[best] = counter.at(best)
    best, broken = _descent(steps, best, counter, is_within)
    # The steps are a selection: look at what lies between the last two as well.
    between = _falling(usable[(usable > broken) & (usable < best)]) if broken else []
    best, _ = _descent(between, best, counter, is_within)
    falling = sorted(seen.items(), reverse=True)
    lowest = falling[-1][0]
    return _Walk(best, tuple(falling), tuple(step for step in steps if step < lowest))


def _falling(scores: Floats) -> list[float]:
    return candidate_thresholds(scores, MAX_CANDIDATES)[::-1] if len(scores) else []


def _descent(
    steps: list[float], best: float, counter: EventCounter, is_within: Callable[[float], bool]
) -> tuple[float, float | None]:
    """The lowest step within the budget, and the first that breaks it, None where none does."""
    place, stride, dear = 0, 1, counter.pushed + DEAR_PUSHES
    while place < len(steps):
        if not is_within(steps[place]):
            return best, steps[place]
        best = steps[place]
        if counter.pushed > dear:
            stride, dear = 2 * stride, counter.pushed + DEAR_PUSHES
        place += stride
    return best, None


@dataclass(frozen=True, slots=True)
class _HeldOut:
    """What the threshold of the first half opens in the second."""

    events: int
    days: float

    @property
    def per_day(self) -> float:
        return self.events / self.days


def _held_out(series: ScoreSeries, question: Question) -> _HeldOut | None:
    first, second = series.halves()
    days = float(second.watched_seconds().sum()) / _DAY_SECONDS
    if not len(first.known()) or not days:
        return None
    threshold = _walk(first, EventCounter(first, question.policy_at), question).threshold
    return _HeldOut(EventCounter(second, question.policy_at).at(threshold).events, days)


def _curve(walk: _Walk, counter: EventCounter, most_seconds: float) -> tuple[CurvePoint, ...]:
    """Where the count changes down to the choice, and some steps on; thinned."""
    counts = [opened.events for _, opened in walk.seen]
    edges = [
        place
        for place, count in enumerate(counts)
        if {count} != set(counts[max(0, place - 1) : place + 2])
        or walk.seen[place][0] == walk.threshold
    ]
    places = np.linspace(0, len(edges) - 1, min(len(edges), _CURVE_POINTS)).astype(int)
    kept = [walk.seen[edges[place]] for place in places]
    kept += [pair for pair in walk.seen if pair[0] == walk.threshold and pair not in kept]
    kept.sort(key=lambda pair: -pair[0])
    more = []
    dear = counter.pushed + DEAR_PUSHES
    for step in walk.steps[:_BELOW_POINTS]:
        if counter.pushed > dear or counter.surely_open_seconds(step) > most_seconds:
            break
        more.append((step, counter.at(step)))
    return tuple(CurvePoint(step, opened.events) for step, opened in kept + more)


def _message(threshold: float, rate: Rate, budget: float, held_out: _HeldOut | None) -> str:
    days = rate.hours / 24
    low, high = (24 * bound for bound in rate.interval or (0.0, 0.0))
    opened = f"{_counted(rate.events)} in {_length(days)}"
    if rate.events / days > budget:
        return (
            f"even a threshold of {threshold:.4f} opens {opened}, {_rate(rate.events / days)} "
            f"a day: no threshold keeps within {budget:g} a day here"
        )
    if not rate.measurable(budget / 24):
        return (
            f"too short to know: {budget:g} a day takes {_length(MEASURABLE_EVENTS / budget)} "
            f"of footage; at {threshold:.4f} it opens {opened}, "
            f"so it is at most {_rate(high)} a day (95%)"
        )
    later = (
        f"; learnt from the first half alone, it would open {_counted(held_out.events)} "
        f"in the second ({_rate(held_out.per_day)} a day)"
        if held_out is not None
        else ""
    )
    return (
        f"{threshold:.4f} opens {opened}: {_rate(rate.events / days)} a day, "
        f"95% interval {_rate(low)} to {_rate(high)}{later}"
    )


def _counted(events: int) -> str:
    return f"{events or 'no'} event{'' if events == 1 else 's'}"


def _rate(per_day: float) -> str:
    return f"{per_day:.3g}" if per_day < 1000 else f"{per_day:,.0f}"


def _length(days: float) -> str:
    return f"{days:.1f} days" if days >= 2 else f"{24 * days:.1f} hours"
