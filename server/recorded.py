"""Scores of a folder of clips, by the very same path as a camera's, to learn from.

Where ground truth stands beside a clip, windows that touch an anomalous frame are left
out: nothing of it may count as normal.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import track

from server.alerts import CLOSE_RATIO, AlertPolicy
from server.backtest import find_clips
from server.bundle import Bundle
from server.calibration import RecordedScores
from server.engine.onnxruntime import EngineOptions, OnnxDetector
from server.replay import ClipReplay, replay
from server.series import ScoreSeries
from server.truth import TRUTH_FILE, ClipTruth, load_truth


def record(place: Path, bundle: Bundle, console: Console) -> tuple[RecordedScores, list[str]]:
    """Replay every clip of a folder (or one clip), with progress on `console`.

    Returns:
        The scores, and a sentence for each clip that could not be read to its end.

    Raises:
        TruthError: a ground-truth file is broken.
        FileNotFoundError: no clip.
        EngineError: the engine cannot run.
    """
    _, paths = find_clips(place)
    truths = {folder: _truths(folder) for folder in {path.parent for path in paths}}
    detector = OnnxDetector(bundle, EngineOptions())
    detector.warm_up(1)
    threshold = bundle.manifest.threshold.value
    # Its alerts are not asked for: the server makes them of the scores, by the stream's policy.
    policy = AlertPolicy(threshold, CLOSE_RATIO * threshold, 0.0)
    replays: Iterable[ClipReplay] = track(
        replay(paths, bundle, detector, policy),
        description="replaying",
        total=len(paths),
        console=console,
        disable=not console.is_terminal,
    )
    parts, broken = [], []
    for result in replays:
        parts.append(normal_windows(result, truths[result.path.parent].get(result.path.name)))
        if result.error is not None:
            broken.append(result.error.sentence)
    return RecordedScores(bundle.bundle_id, ScoreSeries.joined(parts)), broken


def normal_windows(result: ClipReplay, truth: ClipTruth | None) -> ScoreSeries:
    """A clip's windows; those that touch an anomaly count as dropped."""
    if truth is None:
        return ScoreSeries.of(result.windows)
    frames = zip(result.windows, result.first_frames, result.end_frames, strict=True)
    return ScoreSeries.of(
        replace(window, score=None) if truth.overlaps(first, end) else window
        for window, first, end in frames
    )


def _truths(folder: Path) -> dict[str, ClipTruth]:
    path = folder / TRUTH_FILE
    return load_truth(path) if path.is_file() else {}
