"""Evaluate: the papers' figures, and those that an operator lives with; pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from server.alerts import MIN_DURATION_SECONDS
from server.curves import (
    BootstrapInterval,
    Calibration,
    RocCurve,
    Statistic,
    bootstrap,
    calibration,
    counts_auc,
    counts_average_precision,
    counts_false_alarm_rate,
    roc_curve,
)
from server.metrics import ClassAuc, Rate, Video, class_aucs, macro_auc, pooled
from server.operating import (
    Alarm,
    EventFigures,
    OperatingPoint,
    ScoreTrace,
    alert_duty,
    at_budget,
    candidate_thresholds,
    event_figures,
    flips_per_minute,
    operating_curve,
)
from training.scored import VideoScores

BUDGETS_PER_HOUR = (0.1, 1.0, 10.0)
"""False alarms per camera-hour that figures are given at."""

_FEW_WINDOWS = 20_000
_MANY_THRESHOLDS, _FEW_THRESHOLDS = 200, 60


@dataclass(frozen=True, slots=True)
class EvaluationSpec:
    """How videos are judged.

    Attributes:
        threshold: of an alert, in (0, 1].
        threshold_rule: how it was chosen.
        min_duration_seconds: that an event must last to become an alert.
        rounds: of the bootstrap.
        seed: of it.
    """

    threshold: float
    threshold_rule: str
    min_duration_seconds: float = MIN_DURATION_SECONDS
    rounds: int = 1000
    seed: int = 0


@dataclass(frozen=True, slots=True)
class AtBudget:
    """What a budget of false alarms allows.

    Attributes:
        per_hour: the budget.
        measurable: whether there is enough normal footage to know.
        point: the lowest threshold within it; None where even the highest breaks it.
    """

    per_hour: float
    measurable: bool
    point: OperatingPoint | None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All figures of a detector on some videos.

    Attributes:
        spec: how they were judged.
        videos: how many.
        anomalous: of them.
        groups: cameras or recordings that they come from.
        unknown_fps: videos that were taken at 30 Hz, since nothing said theirs.
        frames: the papers' four, each with its interval by group: auc, ap, anomalous_auc,
            false_alarm_rate.
        causal_auc: with scores that count from the moment at which they exist.
        classes: AUC of each kind of anomaly against the normal videos.
        macro_auc: mean over them; None where nothing says the kinds.
        events: alarms at the threshold, held against the events.
        budgets: the same at budgets of false alarms.
        curve: by threshold, rising.
        roc: of frames.
        calibration: of frames' scores.
        flips_per_minute: crossings of the threshold.
        duty: share of the time with a score over the threshold.
    """

    spec: EvaluationSpec
    videos: int
    anomalous: int
    groups: int
    unknown_fps: int
    frames: dict[str, BootstrapInterval]
    causal_auc: BootstrapInterval
    classes: tuple[ClassAuc, ...]
    macro_auc: float | None
    events: EventFigures
    budgets: tuple[AtBudget, ...]
    curve: tuple[OperatingPoint, ...]
    roc: RocCurve | None
    calibration: Calibration | None
    flips_per_minute: float | None
    duty: float | None

    def to_json(self) -> dict[str, object]:
        """For programs; curves are left to the pictures."""
        events = self.events
        return {
            "spec": asdict(self.spec),
            "videos": self.videos,
            "anomalous": self.anomalous,
            "groups": self.groups,
            "frames": {name: asdict(figure) for name, figure in self.frames.items()},
            "causal_auc": asdict(self.causal_auc),
            "classes": [asdict(found) for found in self.classes],
            "macro_auc": self.macro_auc,
            "at_threshold": {
                "events": len(events.outcomes),
                "recall": events.recall,
                "mean_delay_seconds": events.mean_delay_seconds,
                "p90_delay_seconds": events.p90_delay_seconds,
                "false_alarms": rate_json(events.false_alarm_rate),
                "normal_duty": events.normal_duty,
                "flips_per_minute": self.flips_per_minute,
                "duty": self.duty,
            },
            "budgets": [_budget_json(budget) for budget in self.budgets],
            "calibration_error": (
                None if self.calibration is None else self.calibration.expected_error
            ),
        }


def rate_json(rate: Rate) -> dict[str, object]:
    """A rate with its interval."""
    return asdict(rate) | {"per_hour": rate.per_hour, "interval": rate.interval}


def _budget_json(budget: AtBudget) -> dict[str, object]:
    point = budget.point
    content: dict[str, object] = {
        "per_hour": budget.per_hour,
        "measurable": budget.measurable,
        "threshold": None,
    }
    if point is None:
        return content
    return content | {
        "threshold": point.threshold,
        "recall": point.recall,
        "mean_delay_seconds": point.mean_delay_seconds,
        "p90_delay_seconds": point.p90_delay_seconds,
        "false_alarms": rate_json(point.false_alarms),
    }


def evaluate(videos: Sequence[VideoScores], spec: EvaluationSpec) -> Evaluation:
    """Judge scored videos of both labels."""
    filled: list[Video] = [(video.labels(), video.back_filled()) for video in videos]
    causal: list[Video] = [(video.labels(), video.causal()) for video in videos]
    truths = [video.truth() for video in videos]
    windows = [score for video in videos for score in video.scores]
    many = _MANY_THRESHOLDS if len(windows) <= _FEW_WINDOWS else _FEW_THRESHOLDS
    shortest = spec.min_duration_seconds

    def alarms_at(threshold: float) -> list[Alarm]:
        return [alarm for video in videos for alarm in video.alarms(threshold, shortest)]

    _, pooled_scores = pooled(filled)
    thresholds = [t for t in candidate_thresholds(pooled_scores, many) if 0 < t <= 1]
    curve = operating_curve(truths, thresholds, alarms_at)
    classes = _classes(videos, filled)
    return Evaluation(
        spec=spec,
        videos=len(videos),
        anomalous=sum(video.row.label == "anomalous" for video in videos),
        groups=len({video.row.group for video in videos}),
        unknown_fps=sum(video.row.fps is None for video in videos),
        frames=_frame_figures(videos, filled, spec),
        causal_auc=_interval(videos, causal, counts_auc, spec),
        classes=classes,
        macro_auc=macro_auc(classes),
        events=event_figures(truths, alarms_at(spec.threshold)),
        budgets=tuple(_at_budget(curve, budget) for budget in BUDGETS_PER_HOUR),
        curve=curve,
        roc=roc_curve(*pooled(filled)),
        calibration=calibration(*pooled(filled)),
        flips_per_minute=_by_time(videos, spec.threshold, flips_per_minute),
        duty=_by_time(videos, spec.threshold, alert_duty),
    )


def _frame_figures(
    videos: Sequence[VideoScores], filled: Sequence[Video], spec: EvaluationSpec
) -> dict[str, BootstrapInterval]:
    anomalous = [n for n, (labels, _) in enumerate(filled) if labels.any()]
    chosen = [videos[n] for n in anomalous]
    return {
        "auc": _interval(videos, filled, counts_auc, spec),
        "ap": _interval(videos, filled, counts_average_precision, spec),
        "anomalous_auc": _interval(chosen, [filled[n] for n in anomalous], counts_auc, spec),
        "false_alarm_rate": _interval(videos, filled, counts_false_alarm_rate, spec),
    }


def _interval(
    videos: Sequence[VideoScores],
    frames: Sequence[Video],
    statistic: Statistic,
    spec: EvaluationSpec,
) -> BootstrapInterval:
    groups = [video.row.group for video in videos]
    return bootstrap(
        frames,
        statistic,
        seed=spec.seed,
        rounds=spec.rounds,
        # Of one camera alone every resample would be the same.
        groups=groups if len(set(groups)) > 1 else None,
    )


def _classes(videos: Sequence[VideoScores], filled: Sequence[Video]) -> tuple[ClassAuc, ...]:
    """By kind of anomaly, where the manifest names kinds."""
    if not any(video.row.class_name for video in videos if video.row.label == "anomalous"):
        return ()
    names = [
        (video.row.class_name or "unnamed") if video.row.label == "anomalous" else None
        for video in videos
    ]
    return class_aucs(filled, names)


def _at_budget(curve: Sequence[OperatingPoint], per_hour: float) -> AtBudget:
    measurable = bool(curve) and curve[0].false_alarms.measurable(per_hour)
    return AtBudget(per_hour, measurable, at_budget(curve, per_hour))


def _by_time(
    videos: Sequence[VideoScores],
    threshold: float,
    figure: Callable[[ScoreTrace, float], float | None],
) -> float | None:
    """A figure of each video's scores, averaged by how long they hold."""
    traces = [video.trace() for video in videos]
    found = [
        (value, float(trace.held_seconds().sum()))
        for trace in traces
        if (value := figure(trace, threshold)) is not None
    ]
    total_seconds = sum(seconds for _, seconds in found)
    return sum(value * seconds for value, seconds in found) / total_seconds if found else None
