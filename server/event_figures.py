"""Alerts held against the anomalous intervals of recorded clips; pure.

An event is one anomalous interval. It is detected if an alert covers any frame of
it, and an alert that covers no anomalous frame is a false alarm. Of several alerts
over one event all count as true and the event as detected once, so that precision
neither gains nor loses by them: it is detected events over those and false alarms.
One alert over several events detects each of them.

Source: the overlap rule of Hundman et al. 2018 (arXiv:1802.04431); its recall is that of
Tatbul et al. 2018 (arXiv:1803.03639) with the existence reward alone. `server.operating`,
which looks for a threshold, counts an alarm that opens after the event as a miss instead;
here the delay tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from server.metrics import MEASURABLE_EVENTS, poisson_interval
from server.truth import ClipTruth


@dataclass(frozen=True, slots=True)
class CoveringAlert:
    """An alert that somebody was told of.

    Attributes:
        first_frame: first source frame that it covers.
        end_frame: one past the last.
        opened_frame: one past the last frame that was known when it opened.
    """

    first_frame: int
    end_frame: int
    opened_frame: int


@dataclass(frozen=True, slots=True)
class EventFigures:
    """Alerts of some clips held against their truth; the sum of two is that of both.

    Attributes:
        events: anomalous intervals.
        alerts: that somebody was told of.
        false_alarms: of them, those that cover no anomalous frame.
        delays_seconds: one a detected event, from its start to the first opening of an alert
            that covers some of it; 0 where one was open before.
        normal_hours: of footage outside events.
    """

    events: int = 0
    alerts: int = 0
    false_alarms: int = 0
    delays_seconds: tuple[float, ...] = ()
    normal_hours: float = 0.0

    def __add__(self, other: EventFigures) -> EventFigures:
        return EventFigures(
            self.events + other.events,
            self.alerts + other.alerts,
            self.false_alarms + other.false_alarms,
            self.delays_seconds + other.delays_seconds,
            self.normal_hours + other.normal_hours,
        )

    @property
    def detected(self) -> int:
        """Events of which an alert covers some."""
        return len(self.delays_seconds)

    @property
    def recall(self) -> float | None:
        """Share of the events that are detected; None without events."""
        return self.detected / self.events if self.events else None

    @property
    def precision(self) -> float | None:
        """Detected events over those and false alarms; None without either."""
        told = self.detected + self.false_alarms
        return self.detected / told if told else None

    def delay_seconds(self, quantile: float) -> float | None:
        """A quantile of the delays, interpolated; None where nothing is detected."""
        if not self.delays_seconds:
            return None
        return float(np.quantile(self.delays_seconds, quantile))

    def false_alarm_rate(self, unit_hours: float) -> tuple[float, float, float] | None:
        """False alarms of one camera in so many hours of normal footage.

        Returns:
            The rate with its 95% Poisson interval; None where it is not measurable, with
            fewer than three of them.
        """
        if self.false_alarms < MEASURABLE_EVENTS or self.normal_hours == 0:
            return None
        units = self.normal_hours / unit_hours
        low, high = poisson_interval(self.false_alarms)
        return self.false_alarms / units, low / units, high / units


def clip_figures(truth: ClipTruth, alerts: Sequence[CoveringAlert]) -> EventFigures:
    """Hold the alerts of one clip against its truth."""
    delays = []
    for start, end in truth.anomalous:
        openings = [a.opened_frame for a in alerts if a.first_frame < end and start < a.end_frame]
        if openings:
            delays.append(max(0, min(openings) - start) / truth.fps)
    anomalous_frames = sum(end - start for start, end in truth.anomalous)
    return EventFigures(
        events=len(truth.anomalous),
        alerts=len(alerts),
        false_alarms=sum(not truth.overlaps(a.first_frame, a.end_frame) for a in alerts),
        delays_seconds=tuple(delays),
        normal_hours=(truth.frames - anomalous_frames) / truth.fps / 3600,
    )
