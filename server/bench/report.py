"""A benchmark's findings as lines for people and as one object for programs; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from statistics import median

from server.bench.findings import Findings, LoadTrial
from server.bench.line import Line
from server.bench.machine import Machine
from server.bench.run import Run, Shares
from server.views import ModelInfo

Json = dict[str, object]

NOTED_CORES = 0.1
"""Of other programs: less is what any system does beside its work."""

_NAME_CELLS = 16
_QUANTILES = ("p50", "p95", "p99", "max")
_STAGES = {
    "decode": "decode",
    "preprocess": "to model size",
    "ingest": "other ingest",
    "engine": "engine",
    "rest": "gRPC and rest",
}


def head_lines(machine: Machine, model: ModelInfo | None) -> Iterator[str]:
    """What stands over everything."""
    yield f"gvvad bench on {machine}"
    if model is not None:
        yield (
            f"bundle {model.bundle_name} ({model.bundle_id[:12]}), encoder {model.encoder}, "
            f"{model.engine} on {model.device}, {model.precision}"
        )


def lines(found: Findings) -> Iterator[str]:
    """One mix of cameras; of what was not measured there is no line."""
    yield ", ".join(map(str, found.kinds))
    rows = [
        ("cameras", _cameras(found)),
        ("ceiling", _ceiling(found)),
        ("next stopped by", _stopped(found)),
        ("latency", _latency(found)),
        ("windows", _windows(found)),
        ("cores", _cores(found)),
        ("memory", _memory(found)),
        ("recorded clips", _replay(found)),
        ("naive program", _naive(found)),
        ("load generator", _generator(found)),
        ("other programs", _others(found)),
        ("twice as many", _twice(found)),
        ("for long", _soak(found)),
    ]
    for name, text in rows:
        if text:
            yield f"  {name:<{_NAME_CELLS}} {text}"


def trial_lines(found: Findings) -> Iterator[str]:
    """Every load that was tried, fewest cameras first."""
    yield "  cameras      p50      p95      p99  dropped  cores"
    for trial in sorted(found.all_trials(), key=lambda one: one.run.cameras):
        run = trial.run
        quantiles = [run.latency.p50, run.latency.p95, run.latency.p99] if run.latency else []
        cells = "".join(f"{one:8.3f}s" for one in quantiles) or f"{'no window':>27}"
        mark = "" if trial.holds else "  does not hold"
        yield f"  {run.cameras:7}{cells}{run.drops:9}{run.shares.total:7.2f}{mark}"


def as_json(
    machine: Machine, settings: Mapping[str, str], findings: Sequence[Findings], whole: bool
) -> Json:
    """Everything, in one object.

    Args:
        machine: that it was measured on.
        settings: that the server was given, without secrets.
        findings: by mix of cameras.
        whole: whether it ran to its end.
    """
    model = next((one.model for one in findings if one.model is not None), None)
    return {
        "complete": whole,
        "machine": asdict(machine) | {"packages": dict(machine.packages)},
        "settings": dict(settings),
        "model": asdict(model) if model is not None else None,
        "benches": [_bench_json(found) for found in findings],
    }


def in_words(cameras: int) -> str:
    """So many cameras.

    >>> in_words(1), in_words(2)
    ('1 camera', '2 cameras')
    """
    return f"{cameras} camera" if cameras == 1 else f"{cameras} cameras"


def _bench_json(found: Findings) -> Json:
    return {
        "cameras": [str(kind) for kind in found.kinds],
        "bound_seconds": found.bound_seconds,
        "cores": found.cores,
        "measured_at": found.cameras,
        "held": found.held,
        "rounds_held": found.rounds_held,
        "exact": found.ramp.exact if found.ramp is not None else None,
        "ceiling": found.ceiling,
        "goal": found.goal,
        "share": found.share,
        "stopped_by": found.stopped_by,
        "latency_seconds": {name: found.latency(name) for name in _QUANTILES},
        "dropped": found.drops,
        "replay_windows_per_second": found.replay_windows_per_second,
        "replay_share": found.replay_share,
        "naive": {
            "left_out": found.naive_lacking or None,
            "cameras": found.naive_cameras,
            "windows_per_second": found.naive_windows_per_second,
            "p95_seconds": found.naive_p95_seconds,
            "server_p95_seconds": found.p95_beside_naive_seconds,
        },
        "trials": [_trial_json(trial) for trial in found.trials],
        "rounds": [
            {
                "ceiling": asdict(one.ceiling),
                "load": _trial_json(one.trial),
                "replay": asdict(one.replay) if one.replay is not None else None,
                "naive": asdict(one.naive) if one.naive is not None else None,
            }
            for one in found.rounds
        ],
        "twice": _run_json(found.twice) if found.twice is not None else None,
        "memory": _memory_json(found),
        "soak": _soak_json(found),
    }


def _trial_json(trial: LoadTrial) -> Json:
    return _run_json(trial.run) | {"holds": trial.holds, "complaints": list(trial.complaints)}


def _run_json(run: Run) -> Json:
    return asdict(run) | {
        "dropped": dict(run.dropped),
        "windows_per_second": run.windows_per_second,
    }


def _memory_json(found: Findings) -> Json | None:
    if found.memory is None:
        return None
    line = found.memory.line
    points = [{"cameras": cameras, "pss_bytes": taken} for cameras, taken in found.memory.points]
    return {"points": points, "bytes_per_camera": asdict(line) if line is not None else None}


def _soak_json(found: Findings) -> Json | None:
    if found.soak is None:
        return None
    line = found.soak.line
    parts = [
        {"seconds": seconds, "pss_bytes": run.pss_bytes, "dropped": run.drops}
        for seconds, run in found.soak.parts
    ]
    return {"parts": parts, "bytes_per_hour": asdict(line) if line is not None else None}


def _cameras(found: Findings) -> str:
    rounds = f"; held in {found.rounds_held} of {len(found.rounds)} rounds" if found.rounds else ""
    if found.ramp is None:
        tried = sorted({one.trial.run.cameras for one in found.rounds}) or [found.cameras]
        told = f"{', '.join(map(str, tried))}, as asked for{rounds}"
        if any(one.trial.run.refused for one in found.rounds):
            held = ", ".join(str(one.trial.held) for one in found.rounds)
            told += f"; held without those refused: {held}"
        return told
    if not found.ramp.cameras:
        fewest = min(trial.run.cameras for trial in found.ramp.trials)
        return f"not one number that was tried held; the least was {fewest}"
    searched = "" if found.ramp.exact else " at least"
    told = f"with p99 under {found.bound_seconds:g} s and nothing dropped"
    return f"{found.ramp.cameras}{searched} {told}{rounds}"


def _ceiling(found: Findings) -> str:
    if found.ceiling is None or found.share is None or found.goal is None:
        return ""
    reached = "reached" if found.held >= found.goal else "missed"
    return (
        f"{found.ceiling:.1f} cameras: {found.share:.0%} of it held (goal {found.goal}: {reached})"
    )


def _stopped(found: Findings) -> str:
    return found.stopped_by if found.ramp is not None else ""


def _latency(found: Findings) -> str:
    values = {name: found.latency(name) for name in _QUANTILES}
    told = [f"{name} {value:.3f} s" for name, value in values.items() if value is not None]
    return f"{', '.join(told)}{_of_rounds(found)}" if told else ""


def _windows(found: Findings) -> str:
    if not found.rounds:
        return ""
    rate = median(one.trial.run.windows_per_second for one in found.rounds)
    return f"{rate:.1f} a second scored, {found.drops} dropped"


def _cores(found: Findings) -> str:
    if not found.rounds:
        return ""
    shares = [one.trial.run.shares for one in found.rounds]
    told = ", ".join(f"{text} {_share(shares, name):.2f}" for name, text in _STAGES.items())
    return f"{median(one.total for one in shares):.2f} of {found.cores}: {told}"


def _share(shares: Sequence[Shares], name: str) -> float:
    return float(median(getattr(one, name) for one in shares))


def _memory(found: Findings) -> str:
    if not found.rounds:
        return ""
    taken = median(one.trial.run.pss_bytes for one in found.rounds)
    text = f"{taken / 1e6:.0f} MB (PSS of the server and its workers)"
    line = found.memory.line if found.memory is not None else None
    return text if line is None else f"{text}, {_rate(line)} MB a further camera"


def _replay(found: Findings) -> str:
    rate, share = found.replay_windows_per_second, found.replay_share
    if rate is None:
        return ""
    of_ceiling = "" if share is None else f", {share:.0%} of their ceiling"
    return f"{rate:.1f} windows a second{of_ceiling}"


def _naive(found: Findings) -> str:
    if found.naive_lacking:
        return f"left out: {found.naive_lacking}"
    rate, ours = found.naive_windows_per_second, found.replay_windows_per_second
    if rate is None:
        return ""
    ratio = f": the server has {ours / rate:.1f} times as many" if ours is not None and rate else ""
    text = f"{rate:.1f} windows a second of recorded clips{ratio}"
    if found.naive_cameras is None:
        return text
    behind, p95 = found.naive_p95_seconds, found.p95_beside_naive_seconds
    if behind is None or p95 is None:
        return f"{text}; it keeps up with no camera"
    return (
        f"{text}; at the {in_words(found.naive_cameras)} that it keeps up with p95 {behind:.3f} s, "
        f"the server's {p95:.3f} s, {behind / p95:.1f} times lower"
    )


def _generator(found: Findings) -> str:
    if not found.rounds:
        return ""
    loads = [one.trial.run.generator for one in found.rounds]
    farm, own = median(one.farm_cores for one in loads), median(one.watcher_cores for one in loads)
    late = max(one.lateness_p99_seconds for one in loads)
    return (
        f"cameras {farm:.2f} cores, watcher {own:.2f}; "
        f"p99 of how late frames were sent {late * 1000:.0f} ms"
    )


def _others(found: Findings) -> str:
    if not found.rounds:
        return ""
    cores = median(one.trial.run.others_cores for one in found.rounds)
    if cores < NOTED_CORES:
        return ""
    return f"had {cores:.2f} cores in the meantime; on a quiet machine figures are better"


def _twice(found: Findings) -> str:
    run = found.twice
    if run is None:
        return ""
    p99 = f"p99 {run.latency.p99:.3f} s" if run.latency is not None else "no window scored"
    drops = ", ".join(f"{count} {reason}" for reason, count in run.dropped) or "nothing"
    return f"{run.cameras}: {run.refused} refused, {p99} of the rest, {drops} dropped"


def _soak(found: Findings) -> str:
    if found.soak is None:
        return ""
    minutes = found.soak.parts[-1][0] / 60
    line = found.soak.line
    slope = "" if line is None else f"memory {_rate(line)} MB an hour, "
    return f"{minutes:.1f} minutes: {slope}{found.soak.drops} dropped"


def _rate(line: Line) -> str:
    return f"{line.slope / 1e6:+.2f} ± {line.slope_error / 1e6:.2f}"


def _of_rounds(found: Findings) -> str:
    count, numbers = len(found.rounds), [one.trial.run.cameras for one in found.rounds]
    least, most = min(numbers), max(numbers)
    cameras = in_words(most) if least == most else f"{least} to {in_words(most)}"
    return f" with {cameras} (median of {count} rounds)" if count > 1 else f" with {cameras}"
