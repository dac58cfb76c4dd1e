"""Out-of-fold figures: what the detector is worth on clips that it never saw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from server.alert_machine import AlertMachine
from server.alerts import CLOSE_RATIO, MIN_DURATION_SECONDS, AlertPolicy, ScoredSpan
from server.metrics import average_precision, frame_scores, roc_auc
from training.clips import Clip

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ClipScores:
    """A clip's windows as served, scored by a model that never saw its source.

    Attributes:
        clip: its truth.
        first_frames: first source frame of each window.
        scores: in [0, 1], by the head from a zero state.
        encoder: by the encoder's members alone, any scale.
        baseline: one number of the window, any scale.
    """

    clip: Clip
    first_frames: tuple[int, ...]
    scores: tuple[float, ...]
    encoder: tuple[float, ...]
    baseline: tuple[float, ...]

    def frames(self, values: Sequence[float]) -> Floats:
        return frame_scores(self.first_frames, values, self.clip.truth.frames)


Values = Callable[[ClipScores], Sequence[float]]


@dataclass(frozen=True, slots=True)
class Figures:
    """Frame-level figures of one scorer on some clips; None where a label is absent."""

    auc: float | None
    ap: float | None


def figures(clips: Sequence[ClipScores], values: Values) -> Figures:
    """ROC AUC and average precision over all frames of the clips together."""
    if not clips:
        return Figures(None, None)
    labels = np.concatenate([clip.clip.truth.labels() for clip in clips])
    scores = np.concatenate([clip.frames(values(clip)) for clip in clips])
    return Figures(roc_auc(labels, scores), average_precision(labels, scores))


def one_label_sources(clips: Sequence[ClipScores]) -> set[str]:
    """Sources that hold no anomaly."""
    anomalous = {clip.clip.source for clip in clips if clip.clip.anomalous}
    return {clip.clip.source for clip in clips} - anomalous


def mixed_clips(clips: Sequence[ClipScores]) -> list[ClipScores]:
    """Real clips of datasets that hold both labels: what figures are given for."""
    real = [clip for clip in clips if not clip.clip.synthetic]
    labels: dict[str, set[bool]] = {}
    for clip in real:
        labels.setdefault(clip.clip.dataset, set()).add(clip.clip.anomalous)
    return [clip for clip in real if len(labels[clip.clip.dataset]) == 2]


def pick_threshold(clips: Sequence[ClipScores], false_positive_rate: float) -> float:
    """The score that this share of normal windows reaches."""
    normal = [score for clip in clips if not clip.clip.anomalous for score in clip.scores]
    return float(np.quantile(normal, 1 - false_positive_rate, method="higher"))


def false_events(clip: ClipScores, threshold: float, window_seconds: float) -> int:
    """Alerts that the server would raise on a normal clip by its default policy.

    Args:
        clip: a normal clip.
        threshold: to open; the server's default share of it to close.
        window_seconds: first to last frame of a window.
    """
    policy = AlertPolicy(threshold, threshold * CLOSE_RATIO, MIN_DURATION_SECONDS)
    machine = AlertMachine(clip.clip.name, "", policy)
    alerts = set()
    for sequence, (first_frame, score) in enumerate(
        zip(clip.first_frames, clip.scores, strict=True)
    ):
        start_seconds = first_frame / clip.clip.truth.fps
        span = ScoredSpan(sequence, start_seconds, start_seconds + window_seconds, score, False)
        alerts |= {alert.alert_id for alert in machine.push(span)}
    return len(alerts)


@dataclass(frozen=True, slots=True)
class Report:
    """All out-of-fold figures of a run.

    Attributes:
        clips: every clip's scores.
        false_positive_rate: share of normal windows that the threshold lets through.
        threshold: in [0, 1].
        window_seconds: first to last frame of a window.
    """

    clips: tuple[ClipScores, ...]
    false_positive_rate: float
    threshold: float
    window_seconds: float

    @property
    def judged(self) -> list[ClipScores]:
        return mixed_clips(self.clips)

    @property
    def hard(self) -> list[ClipScores]:
        """Without the sources that hold no anomaly: telling sources apart does not help here."""
        easy = one_label_sources(self.judged)
        return [clip for clip in self.judged if clip.clip.source not in easy]

    def threshold_rule(self) -> str:
        return (
            f"from out-of-fold scores: reached by {self.false_positive_rate:.0%} of the normal "
            "windows, each scored by a model that never saw its source"
        )

    def metrics(self) -> dict[str, float]:
        """Figures by name, for the manifest; those that cannot be had are absent."""
        found = {}
        for name, values in SCORERS.items():
            for clips, suffix in ((self.judged, ""), (self.hard, "_without_normal_sources")):
                auc = figures(clips, values).auc
                if auc is not None:
                    found[f"oof_{name}_frame_auc{suffix}"] = round(auc, 4)
        average = figures(self.judged, SCORERS["head"]).ap
        if average is not None:
            found["oof_head_frame_ap"] = round(average, 4)
        found["oof_detected_share"] = round(self.reached(anomalous=True), 4)
        found["oof_normal_clips_reached_share"] = round(self.reached(anomalous=False), 4)
        return found

    def reached(self, *, anomalous: bool) -> float:
        """Share of the judged clips of one label with a window at the threshold."""
        peaks = [max(c.scores) for c in self.judged if c.clip.anomalous == anomalous]
        return float(np.mean([peak >= self.threshold for peak in peaks])) if peaks else 0.0

    def to_json(self) -> dict[str, object]:
        """Everything, for `metrics.json`."""
        return {
            "metrics": self.metrics(),
            "threshold": self.threshold,
            "threshold_rule": self.threshold_rule(),
            "sources": [asdict(line) for line in self.sources()],
        }

    def sources(self) -> list[SourceLine]:
        """One line a source, by name."""
        names = sorted({clip.clip.source for clip in self.clips})
        return [self._line(name) for name in names]

    def _line(self, source: str) -> SourceLine:
        clips = [clip for clip in self.clips if clip.clip.source == source]
        normal = [clip for clip in clips if not clip.clip.anomalous]
        return SourceLine(
            source=source,
            anomalous=len(clips) - len(normal),
            normal=len(normal),
            auc=figures(clips, SCORERS["head"]).auc,
            baseline_auc=figures(clips, SCORERS["baseline"]).auc,
            detected=sum(max(c.scores) >= self.threshold for c in clips if c.clip.anomalous),
            false_events=sum(
                false_events(clip, self.threshold, self.window_seconds) for clip in normal
            ),
            normal_minutes=sum(c.clip.truth.frames / c.clip.truth.fps for c in normal) / 60,
        )


@dataclass(frozen=True, slots=True)
class SourceLine:
    """Figures of one source; an AUC is None where a label is absent."""

    source: str
    anomalous: int
    normal: int
    auc: float | None
    baseline_auc: float | None
    detected: int
    false_events: int
    normal_minutes: float


SCORERS: dict[str, Values] = {
    "head": lambda clip: clip.scores,
    "encoder": lambda clip: clip.encoder,
    "baseline": lambda clip: clip.baseline,
}


def report(
    clips: Sequence[ClipScores], false_positive_rate: float, window_seconds: float
) -> Report:
    """Figures of out-of-fold scores, with the threshold chosen from them."""
    threshold = pick_threshold(clips, false_positive_rate)
    return Report(tuple(clips), false_positive_rate, threshold, window_seconds)
