"""An evaluation as Markdown that a person reads without reading code."""

from __future__ import annotations

from collections.abc import Sequence

from server.curves import BootstrapInterval
from training.evaluation import Evaluation

ROC, DELAY, CURVES, CALIBRATION = "roc.png", "delay.png", "scores.png", "calibration.png"

_FIGURES = {
    "auc": ("ROC AUC of frames", "chance that an anomalous frame scores above a normal one"),
    "ap": ("average precision", "area under precision and recall"),
    "anomalous_auc": ("AUC on anomalous videos", "the same within videos that hold an anomaly"),
    "false_alarm_rate": ("false-alarm rate at 0.5", "share of normal frames at 0.5 or more"),
}


def markdown(title: str, found: Evaluation, notes: Sequence[str], pictures: Sequence[str]) -> str:
    """The report.

    Args:
        title: what was judged.
        found: its figures.
        notes: sentences that a reader must know before the figures.
        pictures: files beside the report that were drawn.
    """
    parts = [
        f"# {title}",
        f"{found.videos} videos of {_groups(found)}, {found.anomalous} of them "
        f"with an anomaly; {found.events.normal_hours:.2f} hours of normal footage.",
        *notes,
        *([_fps_note(found)] if found.unknown_fps else []),
        "## By frames",
        _frames(found),
        "## As an operator sees it",
        _operator(found),
        _budgets(found),
        *([_classes(found)] if found.classes else []),
        *_shown(pictures),
    ]
    return "\n\n".join(parts) + "\n"


def _fps_note(found: Evaluation) -> str:
    return f"Of {found.unknown_fps} videos nothing says the frame rate; they are taken at 30 Hz."


def _frames(found: Evaluation) -> str:
    rows = [
        f"| {name} | {_interval(found.frames[key])} | {meaning} |"
        for key, (name, meaning) in _FIGURES.items()
    ]
    rows.append(
        f"| strict-causal AUC | {_interval(found.causal_auc)} | as the first, but a score counts "
        "only from the moment at which it exists |"
    )
    if found.calibration is not None:
        rows.append(
            f"| calibration error | {found.calibration.expected_error:.3f} | how far a score is "
            "from the share of anomalous frames that have it |"
        )
    resampled = (
        f"In brackets 95 % of resamples of whole {_units(found)} ({found.spec.rounds} of them)."
    )
    return "\n".join(["| figure | value | what it is |", "|---|---|---|", *rows, "", resampled])


def _groups(found: Evaluation) -> str:
    return (
        f"{found.groups} cameras or recordings" if found.groups > 1 else "one camera or recording"
    )


def _units(found: Evaluation) -> str:
    return "cameras or recordings" if found.groups > 1 else "videos, all of one camera"


def _operator(found: Evaluation) -> str:
    spec, events = found.spec, found.events
    lines = [
        f"At the threshold of {spec.threshold:.3f} ({spec.threshold_rule}), and where an event "
        f"must last {spec.min_duration_seconds:g} s to be told:",
        "",
        f"- {_share(events.recall)} of {len(events.outcomes)} events are found, after "
        f"{_seconds(events.mean_delay_seconds)} on average and {_seconds(events.p90_delay_seconds)}"
        " for nine of ten; an event that is missed counts with its whole length.",
        f"- False alarms: {events.false_alarm_rate} of normal footage.",
        f"- An alarm is open during {_share(events.normal_duty)} of the normal footage; the score "
        f"crosses the threshold {_number(found.flips_per_minute, 2)} times a minute.",
    ]
    brief = sum(one.event.seconds <= spec.min_duration_seconds for one in events.outcomes)
    if brief:
        lines.append(
            f"- {brief} of the events last no longer than {spec.min_duration_seconds:g} s, so most "
            "of them cannot be told; `--min-duration 0` shows what the scores alone would find."
        )
    return "\n".join(lines)


def _budgets(found: Evaluation) -> str:
    rows = []
    for budget in found.budgets:
        point = budget.point
        if point is None:
            hours = found.events.false_alarm_rate.sentence(budget.per_hour)
            cells = ["no threshold keeps within it", "-", "-", "" if budget.measurable else hours]
        else:
            cells = [
                f"{point.threshold:.3f}",
                _share(point.recall),
                f"{_seconds(point.mean_delay_seconds)} / {_seconds(point.p90_delay_seconds)}",
                point.false_alarms.sentence(budget.per_hour),
            ]
        rows.append(f"| {budget.per_hour:g} | " + " | ".join(cells) + " |")
    head = "| false alarms an hour | threshold | events found | delay, mean / p90 | measured |"
    told = (
        "The lowest threshold that keeps within a budget of false alarms per camera-hour. The "
        "thresholds are picked on the very videos that are judged, so new footage will do worse."
    )
    return "\n".join([told, "", head, "|---|---|---|---|---|", *rows])


def _classes(found: Evaluation) -> str:
    rows = [f"| {one.name} | {one.videos} | {_number(one.auc, 3)} |" for one in found.classes]
    rows.append(f"| mean of the classes | | {_number(found.macro_auc, 3)} |")
    head = ["## By kind of anomaly", "", "Each kind against all normal videos.", ""]
    return "\n".join([*head, "| kind | videos | AUC |", "|---|---|---|", *rows])


def _shown(pictures: Sequence[str]) -> list[str]:
    captions = {
        CURVES: "Scores over time. Red bands: when it is anomalous. Dashed: the threshold. Under "
        "each curve, frames of the video. Chosen by rule, not by hand: of the videos with an "
        "anomaly the one that is told apart best, the middle one and the worst, and the normal "
        "video of the highest score.",
        ROC: "Anomalous frames found against normal frames that are wrongly called so.",
        DELAY: "What a budget of false alarms buys: events found, and how late.",
        CALIBRATION: "Scores against the share of anomalous frames among those that have them; on "
        "the diagonal a score is a probability.",
    }
    found = [f"![{name}]({name})\n\n{captions[name]}" for name in captions if name in pictures]
    return ["## Pictures", *found] if found else []


def _interval(figure: BootstrapInterval) -> str:
    if figure.value is None:
        return "cannot be had"
    if figure.low is None or figure.high is None:
        return f"{figure.value:.3f}"
    return f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"


def _share(value: float | None) -> str:
    return "none" if value is None else f"{100 * value:.0f} %"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
