"""`gvvad backtest`: recorded clips, and what the detector would have made of them.

Where ground truth stands beside the clips the report gives frame-level
metrics and false alarms, in two totals: clips that the bundle was trained on
(`seen`) never count with the others.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from server.alerts import CLOSE_RATIO, MIN_DURATION_SECONDS, AlertPolicy
from server.bundle import DEFAULT_BUNDLE, Bundle, file_sha256, load_bundle
from server.engine.choice import choice_of, load_engine
from server.engine.flags import EngineFlags, telling_of_builds
from server.metrics import (
    MEASURABLE_EVENTS,
    average_precision,
    frame_scores,
    poisson_interval,
    roc_auc,
)
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
        false_alarms: alerts that touch no anomalous frame; None without truth.
    """

    name: str
    replay: ClipReplay
    truth: ClipTruth | None
    seen: bool
    false_alarms: int | None

    def to_json(self) -> dict[str, Any]:
        return {
            "scores": list(self.replay.scores),
            "first_frames": list(self.replay.first_frames),
            "seen": self.seen,
            "truth": self.truth is not None,
            "alerts": [
                {
                    "start_seconds": alert.start_seconds,
                    "end_seconds": alert.end_seconds,
                    "peak_score": alert.peak_score,
                }
                for alert in self.replay.alerts
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
        false_alarms: opened events that touch no anomalous frame.
        hours: of normal footage.
    """

    clips: int
    without_window: int
    auc: float | None
    ap: float | None
    false_alarms: int
    hours: float

    def false_alarms_per_hour(self) -> tuple[float, float, float] | None:
        """Rate with its 95% Poisson interval; None where it is not measurable."""
        if self.false_alarms < MEASURABLE_EVENTS or self.hours == 0:
            return None
        low, high = poisson_interval(self.false_alarms)
        return self.false_alarms / self.hours, low / self.hours, high / self.hours

    def to_json(self) -> dict[str, Any]:
        rate = self.false_alarms_per_hour()
        low, high = poisson_interval(self.false_alarms)
        return {
            "auc": self.auc,
            "ap": self.ap,
            "false_alarms": self.false_alarms,
            "false_alarms_interval": [low, high],
            "false_alarms_per_hour": None
            if rate is None
            else dict(zip(("rate", "low", "high"), rate, strict=True)),
            "hours": self.hours,
            "clips": self.clips,
            "clips_without_window": self.without_window,
        }


@dataclass(frozen=True, slots=True)
class BacktestReport:
    """All clips of a folder.

    Attributes:
        bundle_id: the bundle that scored them.
        clips: in order of their names.
        windows: scored in all.
        seconds: that took, decoding included.
        engine: that ran its encoder, and where.
    """

    bundle_id: str
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
            "engine": self.engine,
            "clips": {clip.name: clip.to_json() for clip in self.clips},
            "unseen": self.total(seen=False).to_json(),
            "seen": self.total(seen=True).to_json(),
            "windows": self.windows,
            "windows_per_second": self.windows / self.seconds if self.seconds else 0.0,
        }


def backtest(
    place: Path, bundle: Bundle, console: Console, engine: EngineFlags = _SERVED
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
    threshold = bundle.manifest.threshold.value
    policy = AlertPolicy(threshold, CLOSE_RATIO * threshold, MIN_DURATION_SECONDS)
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
    return BacktestReport(bundle.bundle_id, tuple(clips), windows, seconds, told)


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


def run_backtest_command(
    place: Path,
    bundle_directory: Path | None,
    *,
    as_json: bool,
    engine: EngineFlags = _SERVED,
) -> int:
    """Replay, print, and return the exit code: 2 where a clip could not be read.

    Raises:
        ValueError, FileNotFoundError, EngineError: see `backtest` and `load_bundle`.
    """
    errors = Console(stderr=True)
    report = backtest(place, load_bundle(bundle_directory or DEFAULT_BUNDLE), errors, engine)
    if as_json:
        Console().out(json.dumps(report.to_json()), highlight=False)
    else:
        _print_report(report, Console())
    broken = [clip for clip in report.clips if clip.replay.error]
    for clip in broken:
        errors.print(f"gvvad: {clip.replay.error}", markup=False, highlight=False, soft_wrap=True)
    return 2 if broken else 0


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
    false_alarms = None
    if truth is not None:
        covered = [result.alert_frames(alert, truth.frames) for alert in result.alerts]
        false_alarms = sum(not truth.overlaps(first, end) for first, end in covered)
    name = result.path.relative_to(root).as_posix()
    return ClipReport(name, result, truth, seen, false_alarms)


def _total(clips: Sequence[ClipReport]) -> Total:
    labels, scores = [np.zeros(0, np.bool_)], [np.zeros(0)]
    false_alarms, hours, without_window = 0, 0.0, 0
    for clip in clips:
        if not clip.replay.scores or clip.truth is None:
            without_window += 1
            continue
        truth = clip.truth
        labels.append(truth.labels())
        scores.append(frame_scores(clip.replay.first_frames, clip.replay.scores, truth.frames))
        false_alarms += clip.false_alarms or 0
        hours += float((~labels[-1]).sum()) / truth.fps / 3600
    every_label, every_score = np.concatenate(labels), np.concatenate(scores)
    return Total(
        clips=len(clips) - without_window,
        without_window=without_window,
        auc=roc_auc(every_label, every_score),
        ap=average_precision(every_label, every_score),
        false_alarms=false_alarms,
        hours=hours,
    )


def _print_report(report: BacktestReport, console: Console) -> None:
    table = Table("clip", "windows", "highest", "alerts", "false alarms", "")
    for clip in report.clips:
        scores = clip.replay.scores
        note = "seen" if clip.seen else ""
        table.add_row(
            clip.name,
            str(len(scores)),
            f"{max(scores):.3f}" if scores else "-",
            str(len(clip.replay.alerts)),
            "-" if clip.false_alarms is None else str(clip.false_alarms),
            note if scores else f"{note} no window".strip(),
        )
    console.print(table)
    for name, seen in (("unseen", False), ("seen", True)):
        total = report.total(seen=seen)
        if total.clips or total.without_window:
            console.print(f"{name}: {_sentence(total)}", highlight=False, soft_wrap=True)
    rate = report.windows / report.seconds if report.seconds else 0.0
    console.print(
        f"{report.windows} windows in {report.seconds:.1f} s ({rate:.0f} windows/s), "
        f"bundle {report.bundle_id[:12]}, {report.engine}",
        highlight=False,
    )


def _sentence(total: Total) -> str:
    auc = "not defined (one class only)" if total.auc is None else f"{total.auc:.3f}"
    ap = "not defined" if total.ap is None else f"{total.ap:.3f}"
    low, high = poisson_interval(total.false_alarms)
    rate = total.false_alarms_per_hour()
    rate_text = (
        "rate not measurable"
        if rate is None
        else f"{rate[0]:.1f} an hour, 95% interval {rate[1]:.1f} to {rate[2]:.1f}"
    )
    short = f", {total.without_window} without a window left out" if total.without_window else ""
    return (
        f"{total.clips} clips{short}, frame AUC {auc}, AP {ap}, {total.false_alarms} false alarms "
        f"(95% interval {low:.1f} to {high:.1f}) in {total.hours:.3f} h of normal footage: "
        f"{rate_text}"
    )
