"""Detection metrics over frames, one definition each; pure.

Curves and their intervals are in `server.curves`, alarms held against events in
`server.operating`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float64]
Labels = npt.NDArray[np.bool_]
Video = tuple[Labels, Scores]
"""A video's (N,) frame labels, true where anomalous, and (N,) frame scores."""

MEASURABLE_EVENTS = 3
"""Below this many expected events a rate is "not measurable"."""


def frame_scores(first_frames: Sequence[int], scores: Sequence[float], frames: int) -> Scores:
    """Window scores spread over a clip's frames.

    A window's score holds from its first frame until the next window begins,
    so the tail that fills no window takes the last window's score.

    Args:
        first_frames: first source frame of each window, ascending, the first 0 or later.
        scores: one a window, in [0, 1].
        frames: frames of the clip.

    Returns:
        (frames,)

    Raises:
        ValueError: no window, or lengths differ.
    """
    if not scores or len(first_frames) != len(scores):
        raise ValueError(
            f"need one score a window and at least one window, got {len(first_frames)} windows "
            f"and {len(scores)} scores"
        )
    which = np.searchsorted(np.asarray(first_frames), np.arange(frames), side="right") - 1
    return np.asarray(scores, np.float64)[np.maximum(which, 0)]


def strict_causal_scores(
    first_frames: Sequence[int],
    end_frames: Sequence[int],
    scores: Sequence[float],
    frames: int,
    delay_frames: int = 0,
) -> Scores:
    """Window scores on the frames that come while each is the newest one known.

    A score exists once its window's last frame has come and `delay_frames` more
    have passed, and holds until the next score exists. Frames before the first
    score get 0, also where there is no window at all. `frame_scores` instead
    credits a window's own frames with a score that was not known yet.

    Args:
        first_frames: first source frame of each window.
        end_frames: frame after the last one of each window, never falling.
        scores: one a window, in [0, 1].
        frames: frames of the clip.
        delay_frames: from a window's end to its score, in source frames, 0 or more.

    Returns:
        (frames,)

    Raises:
        ValueError: lengths differ, a window is empty, ends fall, or the delay is negative.
    """
    if not len(first_frames) == len(end_frames) == len(scores):
        raise ValueError(
            f"need a first frame, an end and a score of each window, got {len(first_frames)}, "
            f"{len(end_frames)} and {len(scores)}"
        )
    first, end = np.asarray(first_frames, np.int64), np.asarray(end_frames, np.int64)
    if (first >= end).any() or (np.diff(end) < 0).any():
        raise ValueError("each window must end after its first frame and no earlier than the last")
    if delay_frames < 0:
        raise ValueError(f"delay_frames ({delay_frames}) must be >= 0")
    newest = np.searchsorted(end + delay_frames, np.arange(frames), side="right")
    return np.concatenate([[0.0], np.asarray(scores, np.float64)])[newest]


def roc_auc(labels: Labels, scores: Scores) -> float | None:
    """Area under the ROC curve; ties count half.

    Args:
        labels: (N,) true where anomalous.
        scores: (N,)

    Returns:
        In [0, 1]; None where one of the classes is absent. Unchanged by any
        strictly rising map of the scores.

    Source: Hanley and McNeil 1982, the Mann-Whitney form.
    """
    positives = int(labels.sum())
    negatives = len(labels) - positives
    if positives == 0 or negatives == 0:
        return None
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    mean_ranks = np.cumsum(counts) - (counts - 1) / 2
    rank_sum = float(mean_ranks[inverse][labels].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def average_precision(labels: Labels, scores: Scores) -> float | None:
    """Area under the precision-recall steps, without interpolation.

    Args:
        labels: (N,) true where anomalous.
        scores: (N,)

    Returns:
        In [0, 1]; None where nothing is anomalous.
    """
    positives = int(labels.sum())
    if positives == 0:
        return None
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(labels[order])
    # Equal scores are one threshold: only the last of a tie is a point of the curve.
    last_of_tie = np.append(np.diff(scores[order]) != 0, True)
    hits, seen = hits[last_of_tie], np.flatnonzero(last_of_tie) + 1
    recall_steps = np.diff(hits, prepend=0) / positives
    return float(np.sum(recall_steps * hits / seen))


def false_alarm_rate(labels: Labels, scores: Scores, threshold: float = 0.5) -> float | None:
    """Share of the normal frames at or above a threshold: the papers' FAR.

    Args:
        labels: (N,) true where anomalous.
        scores: (N,)
        threshold: on the scores' scale.

    Returns:
        In [0, 1]; None without normal frames.

    Source: Sultani et al. 2018 (arXiv:1801.04264), there on normal videos alone.
    Deviation: on all normal frames given, those of anomalous videos too.
    """
    normal = scores[~labels]
    return float(np.mean(normal >= threshold)) if len(normal) else None


@dataclass(frozen=True, slots=True)
class FrameFigures:
    """What papers on weakly supervised detection report, all frames pooled.

    Attributes:
        auc: frame-level ROC AUC; None where one class is absent.
        ap: average precision; None where nothing is anomalous.
        anomalous_auc: AUC over the videos that have an anomalous frame, all their frames.
        false_alarm_rate: share of the normal frames of all videos at or above 0.5.
    """

    auc: float | None
    ap: float | None
    anomalous_auc: float | None
    false_alarm_rate: float | None


def frame_figures(videos: Sequence[Video]) -> FrameFigures:
    """The papers' four figures of a set of videos.

    Raises:
        ValueError: a video's labels and scores differ in length.
    """
    labels, scores = pooled(videos)
    return FrameFigures(
        auc=roc_auc(labels, scores),
        ap=average_precision(labels, scores),
        anomalous_auc=roc_auc(*pooled([video for video in videos if video[0].any()])),
        false_alarm_rate=false_alarm_rate(labels, scores),
    )


@dataclass(frozen=True, slots=True)
class ClassAuc:
    """One anomaly class against the normal videos.

    Attributes:
        name: of the class.
        videos: of the class, the normal ones not counted.
        auc: frame-level ROC AUC; None where no frame is normal.
    """

    name: str
    videos: int
    auc: float | None


def class_aucs(videos: Sequence[Video], classes: Sequence[str | None]) -> tuple[ClassAuc, ...]:
    """AUC of each class's videos together with all normal videos.

    Args:
        videos: all of them.
        classes: of each video its anomaly class, None for a normal one.

    Returns:
        One a class, by name.

    Raises:
        ValueError: lengths differ, or a video has a class and no anomalous frame or
            an anomalous frame and no class.
    """
    named = list(zip(videos, classes, strict=True))
    for index, ((labels, _), name) in enumerate(named):
        if labels.any() != (name is not None):
            raise ValueError(
                f"video {index} of class {name} must have an anomalous frame if it has a class "
                f"and none otherwise, got {int(labels.sum())}"
            )
    normal = [video for video, name in named if name is None]
    return tuple(
        _class_auc(name, [video for video, own in named if own == name], normal)
        for name in sorted({name for name in classes if name is not None})
    )


def _class_auc(name: str, videos: list[Video], normal: list[Video]) -> ClassAuc:
    return ClassAuc(name, len(videos), roc_auc(*pooled(videos + normal)))


def macro_auc(aucs: Sequence[ClassAuc]) -> float | None:
    """Mean over the classes, each of the same weight; None where no class has an AUC."""
    defined = [found.auc for found in aucs if found.auc is not None]
    return sum(defined) / len(defined) if defined else None


def pooled(videos: Sequence[Video]) -> Video:
    """All frames of the videos as one, in order.

    Raises:
        ValueError: a video's labels and scores differ in length.
    """
    for index, (labels, scores) in enumerate(videos):
        if labels.shape != scores.shape:
            raise ValueError(
                f"video {index} must have one score a label, got {scores.shape} scores "
                f"and {labels.shape} labels"
            )
    if not videos:
        return np.zeros(0, np.bool_), np.zeros(0)
    labels, scores = (np.concatenate(parts) for parts in zip(*videos, strict=True))
    return labels, scores


@dataclass(frozen=True, slots=True)
class Rate:
    """A count over hours of footage.

    Attributes:
        events: counted, 0 or more.
        hours: in which they could have happened, 0 or more.
    """

    events: int
    hours: float

    def __post_init__(self) -> None:
        if self.events < 0 or not 0 <= self.hours < math.inf:
            raise ValueError(f"events ({self.events}) and hours ({self.hours}) must be >= 0")

    @property
    def per_hour(self) -> float | None:
        """None in no time at all."""
        return self.events / self.hours if self.hours else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95% Poisson interval per hour; None in no time at all."""
        if not self.hours:
            return None
        low, high = poisson_interval(self.events)
        return low / self.hours, high / self.hours

    def measurable(self, per_hour: float) -> bool:
        """Whether a rate of `per_hour` would show: three events or more expected in the hours."""
        # Hours are sums over clips: ten times 0.3 h add up to just under three.
        return self.hours * per_hour >= MEASURABLE_EVENTS * (1 - 1e-9)

    def sentence(self, per_hour: float) -> str:
        """For reports: the rate, or that a rate of `per_hour` (over 0) could not show."""
        if self.measurable(per_hour):
            return str(self)
        return (
            f"not measurable: {self.hours:.2f} h of normal footage, "
            f"{MEASURABLE_EVENTS / per_hour:.2f} h needed"
        )

    def __str__(self) -> str:
        count = f"{self.events} in {self.hours:.2f} h"
        if self.interval is None:
            return count
        low, high = self.interval
        return f"{count}: {self.per_hour:.2f} per hour ({low:.2f} to {high:.2f})"


def poisson_interval(events: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact interval for the mean of a Poisson count.

    Args:
        events: observed count, 0 or more.
        confidence: in (0, 1).

    Returns:
        Lower and upper bound of the expected count; the lower one is 0 for 0 events.

    Source: Garwood 1936; solved by bisection, since the lean runtime has no SciPy.
    """
    tail = (1 - confidence) / 2
    lower = 0.0
    if events > 0:
        lower = _poisson_mean_where(events - 1, 1 - tail)
    return lower, _poisson_mean_where(events, tail)


def _poisson_mean_where(events: int, probability: float) -> float:
    """The mean at which P(X <= events) equals `probability`; the CDF falls with the mean."""
    low, high = 0.0, 10.0 + 4.0 * events
    for _ in range(100):
        middle = (low + high) / 2
        if _poisson_cdf(events, middle) > probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _poisson_cdf(events: int, mean: float) -> float:
    if mean == 0:
        return 1.0
    logs = (k * math.log(mean) - mean - math.lgamma(k + 1) for k in range(events + 1))
    return math.fsum(math.exp(log) for log in logs)
