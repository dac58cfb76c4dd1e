"""What a stretch of normal footage says of a threshold."""

from __future__ import annotations

from dataclasses import dataclass

from server.series import ScoreSeries

LONGEST_BUDGET = 1000.0
"""False alarms a day; nobody can ask for more."""


class CalibrationError(ValueError):
    """The footage cannot answer; the message is the sentence for the client."""


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """What one threshold opens in the footage.

    Attributes:
        threshold: in (0, 1].
        events: that it opens.
    """

    threshold: float
    events: int


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
        held_out_per_day: events a day in the second half of the footage at the threshold
            that the first half alone gives; None where a half is too short.
        curve: falling thresholds and what they open; only with a fresh answer.
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
    held_out_per_day: float | None = None
    curve: tuple[CurvePoint, ...] = ()


@dataclass(frozen=True, slots=True)
class RecordedScores:
    """Scores of recorded footage.

    Attributes:
        bundle_id: the detector that made them.
        series: of all of it.
    """

    bundle_id: str
    series: ScoreSeries


@dataclass(frozen=True, slots=True)
class CalibrationAsk:
    """What a client wants to know of a stream.

    Attributes:
        false_alarms_per_day: the budget, over 0 and at most `LONGEST_BUDGET`.
        past_seconds: look so far back; None takes all that is kept.
        recorded: look at this footage and not at the stream's past.
        apply: set the stream's open threshold to what is found.

    Raises:
        ValueError: a budget or a past that is none.
    """

    false_alarms_per_day: float
    past_seconds: float | None = None
    recorded: RecordedScores | None = None
    apply: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.false_alarms_per_day <= LONGEST_BUDGET:  # NaN fails too
            raise ValueError(
                f"false_alarms_per_day ({self.false_alarms_per_day:g}) must be over 0 "
                f"and at most {LONGEST_BUDGET:g}"
            )
        if self.past_seconds is not None and not self.past_seconds > 0:
            raise ValueError(f"past ({self.past_seconds:g} s) must be over 0 s")
