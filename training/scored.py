"""Videos with a score a window: what every figure is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from server.alert_machine import AlertMachine
from server.alerts import CLOSE_RATIO, AlertPolicy, ScoredSpan
from server.bundle import Bundle
from server.contract import WINDOW_FRAMES
from server.engine.choice import Engine
from server.engine.onnxruntime import EngineOptions, OnnxDetector
from server.metrics import Labels, Scores, frame_scores, strict_causal_scores
from server.operating import Alarm, ScoreTrace, StreamTruth, TruthEvent
from server.replay import replay
from training.bags import Bag
from training.clips import TrainingError
from training.density import Density
from training.density_run import density_scores
from training.head_run import AnyHead
from training.manifest import Manifest, Row
from training.mil import window_scores

_BOTH = "both labels are needed"

FPS = 30.0
"""Of a video whose manifest does not say; that of UCF-Crime."""


@dataclass(frozen=True, slots=True)
class VideoScores:
    """A video as a detector scored it.

    Attributes:
        row: what is known of it, its truth included.
        first_frames: first frame of each window.
        end_frames: one past the last frame of each.
        scores: one a window, in [0, 1].
    """

    row: Row
    first_frames: tuple[int, ...]
    end_frames: tuple[int, ...]
    scores: tuple[float, ...]

    @property
    def frames(self) -> int:
        """As the manifest says, else as far as windows and truth reach."""
        known = [self.end_frames[-1], *(end for _, end in self.row.anomalous or ())]
        return self.row.frames or max(known)

    @property
    def fps(self) -> float:
        return self.row.fps or FPS

    @property
    def seconds(self) -> float:
        return self.frames / self.fps

    def labels(self) -> Labels:
        """(frames,) true where anomalous."""
        found = np.zeros(self.frames, np.bool_)
        for start, end in self.row.anomalous or ():
            found[start:end] = True
        return found

    def back_filled(self) -> Scores:
        """(frames,) Each window's score on its own frames, as papers count it."""
        return frame_scores(self.first_frames, self.scores, self.frames)

    def causal(self) -> Scores:
        """(frames,) Each score from the moment on at which it exists."""
        return strict_causal_scores(self.first_frames, self.end_frames, self.scores, self.frames)

    def truth(self) -> StreamTruth:
        """Its events in seconds."""
        events = tuple(
            TruthEvent(start / self.fps, end / self.fps) for start, end in self.row.anomalous or ()
        )
        return StreamTruth(self.row.id, self.seconds, events)

    def trace(self) -> ScoreTrace:
        """Its scores over time."""
        exist = np.array(self.end_frames) / self.fps
        return ScoreTrace(exist, np.array(self.scores), max(self.seconds, float(exist[-1])))

    def alarms(self, threshold: float, min_duration_seconds: float) -> list[Alarm]:
        """What the server's alert machine would have opened, each when its score existed."""
        policy = AlertPolicy(threshold, CLOSE_RATIO * threshold, min_duration_seconds)
        machine = AlertMachine(self.row.id, "", policy)
        opened: float | None = None
        found = []
        for sequence, (first, end, score) in enumerate(
            zip(self.first_frames, self.end_frames, self.scores, strict=True)
        ):
            now = end / self.fps
            # The times of a window are those of its first and its last frame.
            span = ScoredSpan(sequence, first / self.fps, (end - 1) / self.fps, score, False)
            for change in machine.push(span):
                if change.is_closed:
                    assert opened is not None
                    found.append(Alarm(self.row.id, opened, now))
                opened = None if change.is_closed else now
        if opened is not None:
            found.append(Alarm(self.row.id, opened, max(opened, self.seconds)))
        return found


def check_truth(rows: Sequence[Row]) -> None:
    """Refuse videos of which it is not known when they are anomalous.

    Raises:
        TrainingError: an anomalous video without intervals; or all frames of one label.
    """
    for row in rows:
        if row.label == "anomalous" and not row.anomalous:
            raise TrainingError(
                f"{row.id!r} is anomalous, but nothing says when: give `anomalous` intervals to "
                "evaluate on it"
            )
    if not any(row.label == "anomalous" for row in rows):
        raise TrainingError(f"{len(rows)} videos to evaluate on, none is anomalous; {_BOTH}")
    if not any(_has_normal_frames(row) for row in rows):
        raise TrainingError(f"{len(rows)} videos to evaluate on, no frame is normal; {_BOTH}")


def _has_normal_frames(row: Row) -> bool:
    """As far as is known: of an anomalous video without a number of frames nothing is."""
    if row.label == "normal" or row.frames is None:
        return row.label == "normal"
    return sum(end - start for start, end in row.anomalous or ()) < row.frames


def by_head(
    head: AnyHead,
    manifest: Manifest,
    bags: Sequence[Bag],
    progress: Callable[[Sequence[Bag]], Iterable[Bag]] = iter,
) -> list[VideoScores]:
    """Score features.

    Raises:
        TrainingError: a video's windows do not fit its features or its frames.
    """
    return [_by_head(head, manifest, bag) for bag in progress(bags)]


def _by_head(head: AnyHead, manifest: Manifest, bag: Bag) -> VideoScores:
    spans = window_spans(manifest, bag)
    known = density_scores(head, bag) if isinstance(head, Density) else window_scores(head, bag)
    scores = tuple(known.tolist())
    first, end = (tuple(edge.tolist()) for edge in spans.T)
    return VideoScores(bag.row, first, end, scores)


def window_spans(manifest: Manifest, bag: Bag) -> np.ndarray:
    """(n, 2) first and end frame of each window.

    Raises:
        TrainingError: as many were expected as there are features, inside the video.
    """
    row = bag.row
    if row.spans is None:
        first = np.arange(bag.windows) * WINDOW_FRAMES
        end = first + WINDOW_FRAMES
        # Published features round the last window up; its frames end with the video.
        spans = np.stack([first, end if row.frames is None else np.minimum(end, row.frames)], 1)
    else:
        path = manifest.file(row.spans)
        try:
            spans = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise TrainingError(f"{path} cannot be read as .npy ({error})") from None
    if spans.shape != (bag.windows, 2) or (spans[:, 0] >= spans[:, 1]).any():
        last = int(spans[-1, 0]) if spans.ndim == 2 and len(spans) else 0
        raise TrainingError(
            f"{row.id!r} has {bag.windows} windows of features, up to frame {last}, but "
            f"{row.frames} frames; extract it again or correct `frames`"
        )
    return spans


def by_bundle(
    bundle: Bundle,
    manifest: Manifest,
    rows: Sequence[Row],
    tick: Callable[[], None],
    engine: Engine | None = None,
) -> tuple[list[VideoScores], dict[str, str]]:
    """Score videos as the server would, with ONNX Runtime on the CPU or with another engine.

    Returns:
        Those that could be read and fill a window; why the others could not, by id.

    Raises:
        TrainingError: a row without a video.
    """
    for row in rows:
        if row.video is None:
            raise TrainingError(f"{row.id!r} has no video; a bundle scores videos")
    detector = engine or OnnxDetector(bundle, EngineOptions())
    threshold = bundle.manifest.threshold.value
    policy = AlertPolicy(threshold, CLOSE_RATIO * threshold, 0.0)
    paths = [Path(manifest.file(str(row.video))) for row in rows]
    scored, skipped = [], {}
    for row, found in zip(rows, replay(paths, bundle, detector, policy), strict=True):
        tick()
        if found.error is not None:
            skipped[row.id] = str(found.error)
        elif not found.scores:
            skipped[row.id] = f"{found.path} is shorter than a window"
        else:
            scored.append(VideoScores(row, found.first_frames, found.end_frames, found.scores))
    return scored, skipped
