"""What the alert machine opens in one stream's past, at any threshold; pure.

Counted with the machine itself, under the policy that the stream would have at each
threshold. Nothing here knows its rules but that it compares scores with two
thresholds and rests once they stayed low for the merge gap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from server.alert_machine import AlertMachine
from server.alerts import AlertPolicy
from server.series import ScoreSeries

Indices = npt.NDArray[np.intp]
PolicyAt = Callable[[float], AlertPolicy]


@dataclass(frozen=True, slots=True)
class Opened:
    """What a threshold opens in some footage.

    Attributes:
        events: alerts that opened; one that is split counts as often as it reaches somebody.
        seconds: from their start to their end, together.
    """

    events: int = 0
    seconds: float = 0.0

    def __add__(self, other: Opened) -> Opened:
        return Opened(self.events + other.events, self.seconds + other.seconds)


class EventCounter:
    """Counts what the alert machine opens in one series, at many thresholds.

    Only windows that can matter are pushed: from one that reaches the open threshold to
    where scores have stayed below the close threshold for longer than the merge gap. And
    since a machine does nothing with a score but compare it, a stretch in which the same
    windows reach both thresholds as before needs no second push.
    """

    def __init__(self, series: ScoreSeries, policy_at: PolicyAt) -> None:
        self._series = series
        self._policy_at = policy_at
        # Dropped windows reach no threshold, but close nothing either.
        self._dropped = np.isnan(series.scores)
        self._scores = np.where(self._dropped, -1.0, series.scores)
        known = np.where(self._dropped, -1, np.arange(len(series)))
        self._known_before = np.maximum.accumulate(np.concatenate([[-1], known[:-1]]))
        self._unbroken = np.cumsum(series.after_gap)
        lengths = series.end_seconds - series.start_seconds
        # Windows are judged as a whole: one may begin within a gap and end beyond it.
        self._slack_seconds = 2 * float(lengths.max(initial=0.0))
        self._pushed_before: dict[tuple[int, int, int, int], Opened] = {}
        self.pushed = 0  # windows so far

    def at(self, threshold: float) -> Opened:
        """What opens at an open threshold."""
        policy = self._policy_at(threshold)
        reach_seconds = policy.merge_gap_seconds + self._slack_seconds
        high = np.flatnonzero(self._scores >= policy.open_threshold)
        if not len(high):
            return Opened()
        active = np.flatnonzero(self._scores >= policy.close_threshold)
        total = Opened()
        for first, last, counts in _stretches(high, active, self._breaks(active, reach_seconds)):
            key = (first, last, *counts)
            if key not in self._pushed_before:
                self._pushed_before[key] = self._push(policy, first, last, reach_seconds)
            total += self._pushed_before[key]
        return total

    def surely_open_seconds(self, threshold: float) -> float:
        """At least so long events are open, told without a push.

        Counts from a window that opens as long as every window reaches the close threshold.
        """
        policy = self._policy_at(threshold)
        high = np.flatnonzero(self._scores >= policy.open_threshold)
        if not len(high):
            return 0.0
        active = np.flatnonzero(self._scores >= policy.close_threshold)
        breaks = self._breaks(active, -math.inf)
        lasting = (
            float(self._series.end_seconds[last] - self._series.start_seconds[first])
            for first, last, _ in _stretches(high, active, breaks)
        )
        return sum(seconds for seconds in lasting if seconds >= policy.min_duration_seconds)

    def _breaks(self, active: Indices, reach_seconds: float) -> Indices:
        """Places in `active` at which no event can still be open from before."""
        before, after = active[:-1], active[1:]
        low = self._known_before[after]  # the last window that may have closed it
        silent = self._series.start_seconds[low] - self._series.end_seconds[before]
        apart = (low > before) & (silent > reach_seconds)
        return np.flatnonzero(apart | (self._unbroken[before] != self._unbroken[after])) + 1

    def _push(self, policy: AlertPolicy, first: int, last: int, reach_seconds: float) -> Opened:
        series = self._series
        machine = AlertMachine("", "", policy)
        until_seconds = series.end_seconds[last] + reach_seconds
        changes = []
        for index in range(first, len(series)):
            if index > last and (
                series.after_gap[index]
                or (not self._dropped[index] and series.start_seconds[index] > until_seconds)
            ):
                break
            changes += machine.push(series.span(index))
            self.pushed += 1
        changes += machine.finish()
        closed = [alert for alert in changes if alert.is_closed]
        return Opened(
            events=len(changes) - len(closed),
            seconds=sum(alert.end_seconds - alert.start_seconds for alert in closed),
        )


def _stretches(
    high: Indices, active: Indices, breaks: Indices
) -> Iterator[tuple[int, int, tuple[int, int]]]:
    """First window that opens, last active one, and how many of both kinds, each stretch."""
    edges = np.concatenate([[0], breaks, [len(active)]])
    lasts = active[edges[1:] - 1]
    # A stretch begins to matter with its first window over the open threshold.
    stretch_of = np.searchsorted(lasts, high)
    found, places = np.unique(stretch_of, return_index=True)
    highs = np.diff(np.append(places, len(high)))
    firsts = high[places]
    actives = edges[found + 1] - np.searchsorted(active, firsts)
    rows = zip(firsts, lasts[found], highs, actives, strict=True)
    for first, last, count_high, count_active in rows:
        yield int(first), int(last), (int(count_high), int(count_active))
