"""What the command line shows: streams, scores and alerts as lines or JSON objects; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from server.alerts import Alert
from server.bank import Explanation
from server.calibration import Calibration
from server.pushed import PushCounts
from server.sampling import sampling_text
from server.scoring import DropReason, WindowScore
from server.tuning import AlertTuning
from server.tuning_text import quiet_text
from server.views import ModelInfo, StreamView
from server.wording import one_line

Json = dict[str, object]

_BAR_CELLS = 20
_ID_CELLS = 12


def stream_json(view: StreamView) -> Json:
    """A stream for programs; the URL is redacted by its type."""
    config, status = view.config, view.status
    return {
        "id": config.stream_id,
        "url": str(config.url),
        "mode": config.mode.value,
        "transport": config.transport.value,
        "open_threshold": config.open_threshold,
        **_tuning_json(config.alerts),
        "evidence": config.evidence_mode.value if config.evidence_mode is not None else None,
        "masks": [mask.corners for mask in config.masks] or None,
        "sampling": sampling_text(config.sampling),
        "sampling_when_full": (
            None if config.sampling_when_full is None else sampling_text(config.sampling_when_full)
        ),
        "thinned": view.thinned,
        "priority": config.priority,
        "state": status.state.value,
        "reason": status.reason.value if status.reason is not None else None,
        "message": status.message,
        "frames_decoded": status.frames_decoded,
        "reconnects": status.reconnects,
        "last_frame_time": rfc3339(status.last_frame_seconds),
        "next_sequence": view.next_sequence,
        "last_score": view.last_score,
        "create_time": rfc3339(view.created_seconds),
        **_calibration_json(view.calibration),
    }


def _calibration_json(calibration: Calibration | None) -> Json:
    """What is known of a stream's threshold; nothing where it was never calibrated."""
    if calibration is None:
        return {"calibrated": None}
    return {
        "calibrated": rfc3339(calibration.made_seconds),
        "calibrated_threshold": calibration.open_threshold,
        "false_alarms_per_day": calibration.false_alarms_per_day,
        "drift": calibration.drift,
        "recalibrate": calibration.proposal or None,
    }


def _tuning_json(tuning: AlertTuning) -> Json:
    """What a stream tunes; None is the server's default."""
    return {
        "close_threshold": tuning.close_threshold,
        "min_duration_seconds": tuning.min_duration_seconds,
        "merge_gap_seconds": tuning.merge_gap_seconds,
        "max_duration_seconds": tuning.max_duration_seconds,
        "cooldown_seconds": tuning.cooldown_seconds,
        "quiet_hours": [quiet_text(quiet) for quiet in tuning.quiet_hours],
        "snooze_until": rfc3339(tuning.snooze_until_seconds),
    }


def score_json(score: WindowScore, missed: int) -> Json:
    """A score for programs; `missed` is how many this watcher lost before it."""
    reason = score.drop_reason
    return {
        "type": "score",
        "stream": score.stream_id,
        "sequence": score.sequence,
        "window_number": score.span.number,
        "frames": [score.span.first_frame, score.span.end_frame],
        "start_time": rfc3339(score.span.start_capture_seconds),
        "end_time": rfc3339(score.span.end_capture_seconds),
        "score": score.score,
        "drop_reason": reason.value if reason is not None else None,
        "latency_seconds": score.latency_seconds,
        "explanation": _explanation_json(score.explanation),
        "missed": missed,
    }


def alert_json(alert: Alert, missed: int) -> Json:
    """An alert for programs; `missed` is how many this watcher lost before it."""
    return {
        "type": "alert",
        "id": alert.alert_id,
        "stream": alert.stream_id,
        "bundle": alert.bundle_id,
        "state": alert.state.value,
        "sequences": [alert.first_sequence, alert.last_sequence],
        "start_time": rfc3339(alert.start_seconds),
        "end_time": rfc3339(alert.end_seconds),
        "peak_score": alert.peak_score,
        "peak_time": rfc3339(alert.peak_seconds),
        "explanation": _explanation_json(alert.explanation),
        "end_reason": alert.end_reason.value if alert.end_reason is not None else None,
        "continues": alert.continues,
        "suppression": alert.suppression.value if alert.suppression is not None else None,
        "missed": missed,
    }


def push_json(counts: PushCounts, seconds: float) -> Json:
    """The end of a push for programs, so long after its start."""
    return {
        "type": "end",
        "frames_received": counts.received,
        "frames_dropped": counts.dropped,
        "frames_damaged": counts.damaged,
        "seconds": seconds,
    }


def push_line(counts: PushCounts, seconds: float) -> str:
    """The end of a push for people.

    >>> from server.pushed import PushCounts
    >>> push_line(PushCounts(received=500, damaged=2), 4.0)
    '500 frames in 4.0 s (125 a second), 0 dropped, 2 damaged'
    """
    rate = counts.received / max(seconds, 1e-9)
    return (
        f"{counts.received} frames in {seconds:.1f} s ({rate:.0f} a second), "
        f"{counts.dropped} dropped, {counts.damaged} damaged"
    )


def model_json(model: ModelInfo) -> Json:
    """What the server scores with, for programs."""
    return {name: getattr(model, name) for name in ModelInfo.__slots__}


def stream_table(views: Sequence[StreamView], now_seconds: float) -> list[str]:
    """Streams as lines under a heading."""
    rows = [("STREAM", "STATE", "FRAMES", "SCORE", "SAMPLING", "PRIORITY", "ALERTS", "SOURCE")]
    rows += [
        (
            view.config.stream_id,
            _state(view),
            str(view.status.frames_decoded),
            _number(view.last_score),
            _sampled(view),
            str(view.config.priority),
            _tuned(view.config.alerts, now_seconds),
            str(view.config.url),
        )
        for view in views
    ]
    return table(rows)


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of as many cells each as lines, every column as wide as its longest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def fields(content: Json) -> list[str]:
    """A JSON object as lines of name and value; what is unset is left out."""
    shown = {name: value for name, value in content.items() if value not in (None, "", [])}
    width = max(map(len, shown), default=0)
    lines = []
    for name, value in shown.items():
        parts = value if isinstance(value, list) else [value]
        lines.append(f"{name.ljust(width)}  {', '.join(map(str, parts))}")
    return lines


def score_line(score: WindowScore, missed: int) -> str:
    """A score for people: time, stream, number, bar, latency."""
    what = (
        f"{score.score:.3f} {bar(score.score)} latency {score.latency_seconds:.3f} s"
        if score.score is not None
        else _unscored(score.drop_reason)
    )
    what += _nearest(score.explanation)
    return _line(score.span.end_capture_seconds, score.stream_id, what, missed)


def _unscored(reason: DropReason | None) -> str:
    if reason is None:
        return "dropped (unknown)"
    return f"{'not scored' if reason.is_wanted else 'dropped'} ({reason.value})"


def alert_line(alert: Alert, missed: int) -> str:
    """An alert for people: when it opened or closed, and how high it went."""
    length_seconds = alert.end_seconds - alert.start_seconds
    # A capital is a call, and what is delivered to nobody should not call anybody.
    name = "ALERT" if alert.suppression is None else "alert"
    what = f"{name} {alert.state.value}{alert.remarks} after {length_seconds:.1f} s"
    what += f", peak {alert.peak_score:.3f}"
    what += _nearest(alert.explanation)
    return _line(alert.end_seconds, alert.stream_id, what, missed)


def _nearest(explanation: Explanation) -> str:
    """What it resembles most, where the bundle can say so."""
    if not explanation:
        return ""
    return f' like "{one_line(explanation[0].text)}" ({100 * explanation[0].weight:.0f} %)'


def _explanation_json(explanation: Explanation) -> list[Json]:
    return [
        {"text": near.text, "anomalous": near.anomalous, "weight": near.weight}
        for near in explanation
    ]


def bar(score: float) -> str:
    """A score as a bar of twenty cells.

    >>> bar(0.26)
    '#####...............'
    """
    # Plain ASCII: it survives every terminal, log and pipe.
    filled = round(min(max(score, 0.0), 1.0) * _BAR_CELLS)
    return "#" * filled + "." * (_BAR_CELLS - filled)


def clock(utc_seconds: float) -> str:
    """The time of day for people: UTC, as in the server's log and in every API message."""
    return f"{datetime.fromtimestamp(utc_seconds, UTC).strftime('%H:%M:%S.%f')[:-3]}Z"


def _line(utc_seconds: float, stream_id: str, what: str, missed: int) -> str:
    lost = f" ({missed} lost before: read faster)" if missed else ""
    return f"{clock(utc_seconds)} {stream_id.ljust(_ID_CELLS)} {what}{lost}"


def _state(view: StreamView) -> str:
    reason = view.status.reason
    return view.status.state.value + (f" ({reason.value})" if reason is not None else "")


def _tuned(tuning: AlertTuning, now_seconds: float) -> str:
    """How a stream's alerts differ from the server's defaults, in a few words."""
    words = []
    if replace(tuning, quiet_hours=(), snooze_until_seconds=None) != AlertTuning():
        words.append("tuned")
    if tuning.quiet_hours:
        words.append("quiet hours")
    until_seconds = tuning.snooze_until_seconds
    if until_seconds is not None and until_seconds > now_seconds:
        until = datetime.fromtimestamp(until_seconds, UTC)
        words.append(f"snoozed until {until:%Y-%m-%d %H:%M}Z")
    return ", ".join(words) or "-"


def _sampled(view: StreamView) -> str:
    """By which rule a stream is scored now."""
    when_full = view.config.sampling_when_full
    if view.thinned and when_full is not None:
        return f"{sampling_text(when_full)} (thinned)"
    return sampling_text(view.config.sampling)


def _number(score: float | None) -> str:
    return "-" if score is None else f"{score:.3f}"


def rfc3339(utc_seconds: float | None) -> str | None:
    """UTC seconds as programs read them; None stays None."""
    if utc_seconds is None:
        return None
    return datetime.fromtimestamp(utc_seconds, UTC).isoformat(timespec="milliseconds")
