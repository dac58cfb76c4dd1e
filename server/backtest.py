"""`gvvad backtest`: recorded clips, and what the detector would have made of them.

Where ground truth stands beside the clips the report gives frame-level metrics
and those of alerts, made by the server's own state machine, in two totals: clips
that the bundle was trained on (`seen`) never count with the others.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from server.alerts import Alert, AlertPolicy
from server.bundle import Bundle, file_sha256
from server.engine.choice import choice_of, load_engine
from server.engine.flags import EngineFlags, telling_of_builds
from server.event_figures import CoveringAlert, EventFigures, clip_figures
from server.metrics import average_precision, frame_scores, poisson_interval, roc_auc
from server.replay import BATCH, ClipReplay, replay
from server.truth import TRUTH_FILE, ClipTruth, TruthError, load_truth
from server.wording import one_line

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mts"}
    | {".mpg", ".mpeg", ".flv", ".wmv", ".h264", ".h265", ".hevc"}
)

_SERVED = EngineFlags()


@dataclass(frozen=True, slots=True)
class ClipReport:
    """One clip, replayed and held against its truth.

    Attributes:
        name: path relative to the folder.
        replay: its windows, scores and alerts.
        truth: None where there is none.
        seen: the bundle was trained on it.
        events: its alerts held against its truth; None without truth.
    """

    name: str
    replay: ClipReplay
    truth: ClipTruth | None
    seen: bool
    events: EventFigures | None

    @property
    def false_alarms(self) -> int | None:
        """Delivered alerts that cover no anomalous frame; None without truth."""
        return self.events.false_alarms if self.events else None

    def to_json(self) -> dict[str, Any]:
        return {
            "scores": list(self.replay.scores),
            "first_frames": list(self.replay.first_frames),
            "seen": self.seen,
            "truth": self.truth is not None,
            "alerts": [
                _alert_json(alert, opened)
                for alert, opened in zip(self.replay.alerts, self.replay.opened_frames, strict=True)
            ],
            "false_alarms": self.false_alarms,
            "error": self.replay.error.sentence if self.replay.error else None,
        }


@dataclass(frozen=True, slots=True)
class Total:
    """Several clips with truth together.

    Attributes:
        clips: clips that gave at least one window.
        without_window: clips too short for one window; left out.
        auc: frame-level ROC AUC; None where one class is absent.
        ap: average precision; None where nothing is anomalous.
        events: alerts held against the truth.
    """

    clips: int
    without_window: int
    auc: float | None
    ap: float | None
    events: EventFigures

    def to_json(self) -> dict[str, Any]:
        events = self.events
        return {
            "auc": self.auc,
            "ap": self.ap,
            "false_alarms": events.false_alarms,
            "false_alarms_interval": list(poisson_interval(events.false_alarms)),
            "false_alarms_per_hour": _rate_json(events, 1),
            "false_alarms_per_day": _rate_json(events, 24),
            "hours": events.normal_hours,
            "clips": self.clips,
            "clips_without_window": self.without_window,
            "events": {
                "count": events.events,
                "detected": events.detected,
                "alerts": events.alerts,
                "precision": events.precision,
                "recall": events.recall,
                "median_delay_seconds": events.delay_seconds(0.5),
                "p90_delay_seconds": events.delay_seconds(0.9),
            },
        }


@dataclass(frozen=True, slots=True)
class BacktestReport:
    """All clips of a folder.

    Attributes:
        bundle_id: the bundle that scored them.
        policy: by which scores became alerts.
        clips: in order of their names.
        windows: scored in all.
        seconds: that took, decoding included.
        engine: that ran its encoder, and where.
    """

    bundle_id: str
    policy: AlertPolicy
    clips: tuple[ClipReport, ...]
    windows: int
    seconds: float
    engine: str

    def total(self, *, seen: bool) -> Total:
        """Totals over the clips that the bundle was, or was not, trained on."""
        return _total([clip for clip in self.clips if clip.truth and clip.seen == seen])

    def to_json(self) -> dict[str, Any]:
        return {
            "bundle": self.bundle_id,
            "policy": _policy_json(self.policy),
            "engine": self.engine,
            "clips": {clip.name: clip.to_json() for clip in self.clips},
            "unseen": self.total(seen=False).to_json(),
            "seen": self.total(seen=True).to_json(),
            "windows": self.windows,
            "windows_per_second": self.windows / self.seconds if self.seconds else 0.0,
        }


def backtest(
    place: Path,
    bundle: Bundle,
    policy: AlertPolicy,
    console: Console,
    engine: EngineFlags = _SERVED,
) -> BacktestReport:
    """Replay every clip of a folder (or one clip), with progress on `console`.

    Raises:
        TruthError: a ground-truth file is broken or names a clip that is not there.
        FileNotFoundError: no clip.
        EngineError: the engine asked for cannot run.
    """
    root, paths = find_clips(place)
    truths = _truths(root) if place.is_dir() else _own_truth(place)
    with telling_of_builds():
        detector = load_engine(bundle, choice_of(engine, BATCH))
        detector.warm_up(BATCH)
    trained_on = frozenset(bundle.manifest.training.clips)
    started = time.monotonic()
    replays = track(
        replay(paths, bundle, detector, policy),
        description="replaying",
        total=len(paths),
        console=console,
        disable=not console.is_terminal,
    )
    clips = [
        _report(result, root, truths, seen=file_sha256(result.path) in trained_on)
        for result in replays
    ]
    seconds = time.monotonic() - started
    detector.close()
    windows = sum(len(clip.replay.scores) for clip in clips)
    told = f"{detector.name} on {detector.device}"
    return BacktestReport(bundle.bundle_id, policy, tuple(clips), windows, seconds, told)


def find_clips(place: Path) -> tuple[Path, list[Path]]:
    """The folder and its clips, in order of their names; `place` may be one clip.

    Raises:
        FileNotFoundError: there is nothing to replay.
    """
    if place.is_file():
        return place.parent, [place]
    if not place.is_dir():
        raise FileNotFoundError(f"{place} does not exist; give a folder of clips or one clip")
    paths = sorted(p for p in place.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES)
    if not paths:
        raise FileNotFoundError(
            f"{place} holds no clip ({', '.join(sorted(VIDEO_SUFFIXES)[:4])}, ...); "
            "give a folder of clips"
        )
    return place, paths


def _truths(root: Path) -> dict[Path, ClipTruth]:
    truths: dict[Path, ClipTruth] = {}
    for path in sorted(root.rglob(TRUTH_FILE)):
        for name, truth in load_truth(path).items():
            truths[_named_clip(path, name)] = truth
    return truths


def _named_clip(path: Path, name: str) -> Path:
    """The clip that a ground-truth file speaks of, links resolved."""
    try:
        clip = (path.parent / name).resolve()
        is_there = clip.is_file()
    except (OSError, RuntimeError):  # a name too long for any file, a circle of links
        is_there = False
    if not is_there:
        raise TruthError(f"{path} names {one_line(name)}, which is not there; add it or remove it")
    return clip


def _own_truth(clip: Path) -> dict[Path, ClipTruth]:
    """Truth of one clip, where the file beside it has an entry for it."""
    beside = clip.parent / TRUTH_FILE
    truth = load_truth(beside).get(clip.name) if beside.is_file() else None
    return {} if truth is None else {clip.resolve(): truth}


def _report(
    result: ClipReplay, root: Path, truths: dict[Path, ClipTruth], *, seen: bool
) -> ClipReport:
    truth = truths.get(result.path.resolve())
    events = None if truth is None else clip_figures(truth, delivered(result, truth.frames))
    name = result.path.relative_to(root).as_posix()
    return ClipReport(name, result, truth, seen, events)


def delivered(clip: ClipReplay, frames: int) -> list[CoveringAlert]:
    """The alerts of a clip of so many frames that somebody was told of, pieces of one joined."""
    found: list[CoveringAlert] = []
    for alert, opened_frame in zip(clip.alerts, clip.opened_frames, strict=True):
        if alert.suppression is not None:
            continue
        first_frame, end_frame = clip.alert_frames(alert, frames)
        if alert.continues is None:
            found.append(CoveringAlert(first_frame, end_frame, opened_frame))
        else:
            found[-1] = replace(found[-1], end_frame=end_frame)
    return found


def _total(clips: Sequence[ClipReport]) -> Total:
    labels, scores = [np.zeros(0, np.bool_)], [np.zeros(0)]
    events, without_window = EventFigures(), 0
    for clip in clips:
        if not clip.replay.scores or clip.truth is None or clip.events is None:
            without_window += 1
            continue
        truth = clip.truth
        labels.append(truth.labels())
        scores.append(frame_scores(clip.replay.first_frames, clip.replay.scores, truth.frames))
        events += clip.events
    every_label, every_score = np.concatenate(labels), np.concatenate(scores)
    return Total(
        clips=len(clips) - without_window,
        without_window=without_window,
        auc=roc_auc(every_label, every_score),
        ap=average_precision(every_label, every_score),
        events=events,
    )


def _alert_json(alert: Alert, opened_frame: int) -> dict[str, Any]:
    return {
        "start_seconds": alert.start_seconds,
        "end_seconds": alert.end_seconds,
        "peak_score": alert.peak_score,
        "opened_frame": opened_frame,
        "end_reason": alert.end_reason.value if alert.end_reason else None,
        "continues_the_former": alert.continues is not None,
        "suppression": alert.suppression.value if alert.suppression else None,
    }


def _policy_json(policy: AlertPolicy) -> dict[str, Any]:
    values = {name: getattr(policy, name) for name in AlertPolicy.__slots__ if name != "schedule"}
    # JSON has no infinity, which stands for events that are never split.
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _rate_json(events: EventFigures, unit_hours: float) -> dict[str, float] | None:
    rate = events.false_alarm_rate(unit_hours)
    return None if rate is None else dict(zip(("rate", "low", "high"), rate, strict=True))
