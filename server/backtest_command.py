"""`gvvad backtest` as a command: its policy from flags, its report for people or programs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from server.alerts import AlertDefaults, AlertPolicy
from server.backtest import BacktestReport, ClipReport, Total, backtest
from server.bundle import DEFAULT_BUNDLE, load_bundle
from server.engine.flags import EngineFlags
from server.event_figures import EventFigures
from server.metrics import poisson_interval
from server.tuning import AlertTuning


@dataclass(frozen=True, slots=True)
class Attempt:
    """How clips are replayed and judged.

    Attributes:
        threshold: score that opens an alert; None takes the bundle's.
        tuning: what differs from the server's default policy.
        engine: that runs the bundle.
    """

    threshold: float | None = None
    tuning: AlertTuning = field(default_factory=AlertTuning)
    engine: EngineFlags = field(default_factory=EngineFlags)


_SERVED = Attempt()


def run_backtest_command(
    place: Path, bundle_directory: Path | None, attempt: Attempt = _SERVED, *, as_json: bool
) -> int:
    """Replay, print, and return the exit code: 2 where a clip could not be read.

    Args:
        place: a folder of clips, or one clip.
        bundle_directory: of the detector; None takes the embedded one.
        attempt: how.
        as_json: for programs.

    Raises:
        ValueError, FileNotFoundError, EngineError: see `backtest` and `load_bundle`; or
            thresholds that make no sense.
    """
    threshold = attempt.threshold
    if threshold is not None and not 0 < threshold <= 1:
        raise ValueError(f"threshold ({threshold:g}) must be over 0 and at most 1")
    errors = Console(stderr=True)
    bundle = load_bundle(bundle_directory or DEFAULT_BUNDLE)
    opens = bundle.manifest.threshold.value if threshold is None else threshold
    policy = AlertDefaults().policy(opens, attempt.tuning)
    report = backtest(place, bundle, policy, errors, attempt.engine)
    if as_json:
        Console().out(json.dumps(report.to_json()), highlight=False)
    else:
        _print_report(report, Console())
    broken = [clip for clip in report.clips if clip.replay.error]
    for clip in broken:
        errors.print(f"gvvad: {clip.replay.error}", markup=False, highlight=False, soft_wrap=True)
    return 2 if broken else 0


def _print_report(report: BacktestReport, console: Console) -> None:
    """A table of the clips, and the totals in sentences."""
    table = Table("clip", "windows", "highest", "alerts", "false alarms", "")
    for clip in report.clips:
        table.add_row(*_row(clip))
    console.print(table)
    for line in _lines(report):
        console.print(line, highlight=False, soft_wrap=True)


def _row(clip: ClipReport) -> Iterator[str]:
    scores = clip.replay.scores
    note = "seen" if clip.seen else ""
    yield clip.name
    yield str(len(scores))
    yield f"{max(scores):.3f}" if scores else "-"
    yield str(len(clip.replay.alerts))
    yield "-" if clip.false_alarms is None else str(clip.false_alarms)
    yield note if scores else f"{note} no window".strip()


def _lines(report: BacktestReport) -> Iterator[str]:
    for name, seen in (("unseen", False), ("seen", True)):
        total = report.total(seen=seen)
        if total.clips or total.without_window:
            yield f"{name}: {_frames_sentence(total)}"
            if total.events.events:
                yield f"  {_events_sentence(total.events)}"
            yield f"  {_false_alarms_sentence(total.events)}"
    yield _policy_sentence(report.policy)
    rate = report.windows / report.seconds if report.seconds else 0.0
    yield (
        f"{report.windows} windows in {report.seconds:.1f} s ({rate:.0f} windows/s), "
        f"bundle {report.bundle_id[:12]}, {report.engine}"
    )


def _frames_sentence(total: Total) -> str:
    auc = "not defined (one class only)" if total.auc is None else f"{total.auc:.3f}"
    ap = "not defined" if total.ap is None else f"{total.ap:.3f}"
    short = f", {total.without_window} without a window left out" if total.without_window else ""
    return f"{total.clips} clips{short}, frame AUC {auc}, AP {ap}"


def _events_sentence(events: EventFigures) -> str:
    recall, precision = events.recall, events.precision
    found = f"{events.detected} of {events.events} events detected (recall {recall:.3f})"
    told = f"{events.alerts} alerts, " + (
        "precision not defined" if precision is None else f"precision {precision:.3f}"
    )
    if not events.detected:
        return f"{found} by {told}"
    median, p90 = events.delay_seconds(0.5), events.delay_seconds(0.9)
    return f"{found} by {told}; opened {median:.1f} s after the start (median), {p90:.1f} s (p90)"


def _false_alarms_sentence(events: EventFigures) -> str:
    low, high = poisson_interval(events.false_alarms)
    rate = events.false_alarm_rate(unit_hours=24)
    told = (
        "rate not measurable"
        if rate is None
        else f"{rate[0]:.1f} per camera-day, 95% interval {rate[1]:.1f} to {rate[2]:.1f}"
    )
    return (
        f"{events.false_alarms} false alarms (95% interval {low:.1f} to {high:.1f}) in "
        f"{events.normal_hours:.3f} h of normal footage: {told}"
    )


def _policy_sentence(policy: AlertPolicy) -> str:
    return (
        f"alerts open at {policy.open_threshold:.3f} over {policy.min_duration_seconds:g} s, end "
        f"below {policy.close_threshold:.3f} for {policy.merge_gap_seconds:g} s, are split after "
        f"{policy.max_duration_seconds:g} s, cooldown {policy.cooldown_seconds:g} s"
    )
