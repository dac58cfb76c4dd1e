"""What a stretch of normal footage says of a threshold."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Calibration:
    """The open threshold that keeps a stream's false alarms within a budget.

    Attributes:
        bundle_id: of the detector; with another one it means nothing.
        open_threshold: in (0, 1].
        false_alarms_per_day: the budget.
        watched_seconds: footage that was looked at, without gaps.
        events: that the threshold opens in it.
        low_per_day: lower end of the 95 % interval of their rate (Poisson).
        high_per_day: its upper end.
        measurable: at the budget at least three events are expected in so much footage.
        message: one sentence for people.
        made_seconds: UTC.
        reference: counts of the scores in it, by equal bins of [0, 1]; drift is told by them.
        applied: the stream's open threshold was set to it.
        drift: population stability index of the last day against `reference`; None where unknown.
        proposal: why to calibrate again; empty where there is no need.
    """

    bundle_id: str
    open_threshold: float
    false_alarms_per_day: float
    watched_seconds: float
    events: int
    low_per_day: float
    high_per_day: float
    measurable: bool
    message: str
    made_seconds: float
    reference: tuple[int, ...] = ()
    applied: bool = False
    drift: float | None = None
    proposal: str = ""
