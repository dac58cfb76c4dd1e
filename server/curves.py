"""Curves over all thresholds, calibration, and intervals by resampling videos; pure.

Frames of one video are alike, so an interval resamples whole videos (or whole
groups of them). A resample is a re-weighting of counts that were sorted once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from server.metrics import Labels, Scores, Video, pooled

Indices = npt.NDArray[np.int64]

CALIBRATION_BINS = 10
INTERVAL_PERCENT = 95.0


@dataclass(frozen=True, slots=True)
class RocCurve:
    """Points of a ROC curve, from (0, 0) to (1, 1).

    Attributes:
        false_positive_rate: (K,) in [0, 1], never falling.
        true_positive_rate: (K,) in [0, 1], never falling.
        thresholds: (K,) falling; a frame at or above it is called anomalous. The first is infinite.
    """

    false_positive_rate: Scores
    true_positive_rate: Scores
    thresholds: Scores


@dataclass(frozen=True, slots=True)
class ScoreCounts:
    """Frames at each distinct score, by label.

    Attributes:
        scores: (U,) rising.
        positives: (U,) weight of the anomalous frames, 0 or more; 1 a frame unless resampled.
        negatives: (U,) weight of the normal frames, 0 or more.
    """

    scores: Scores
    positives: Scores
    negatives: Scores


Statistic = Callable[[ScoreCounts], float | None]


def roc_curve(labels: Labels, scores: Scores) -> RocCurve | None:
    """ROC curve with one point a distinct score, so that ties are one step.

    Args:
        labels: (N,) true where anomalous.
        scores: (N,)

    Returns:
        None where one of the classes is absent. Unlike scikit-learn's default,
        points on a straight line are kept.
    """
    counts = _SortedFrames.of([(labels, scores)]).counts(np.ones(1))
    hits, false_alarms = _from_the_top(counts.positives), _from_the_top(counts.negatives)
    if not hits[-1] or not false_alarms[-1]:
        return None
    return RocCurve(
        false_positive_rate=false_alarms / false_alarms[-1],
        true_positive_rate=hits / hits[-1],
        thresholds=np.concatenate([[np.inf], counts.scores[::-1]]),
    )


def _from_the_top(weights: Scores) -> Scores:
    """(U + 1,) weight at or above each score, from the highest score down, after a 0."""
    return np.concatenate([[0.0], np.cumsum(weights[::-1])])


def counts_auc(counts: ScoreCounts) -> float | None:
    """`roc_auc` of weighted frames; None where one of the classes has no weight."""
    positives, negatives = float(counts.positives.sum()), float(counts.negatives.sum())
    if not positives or not negatives:
        return None
    negatives_up_to = np.cumsum(counts.negatives)
    beaten = counts.positives @ (negatives_up_to - counts.negatives / 2)
    return float(beaten) / positives / negatives


def counts_average_precision(counts: ScoreCounts) -> float | None:
    """`average_precision` of weighted frames; None where nothing anomalous has weight."""
    positives = float(counts.positives.sum())
    if not positives:
        return None
    hits = _from_the_top(counts.positives)[1:]
    seen = hits + _from_the_top(counts.negatives)[1:]
    precision = np.divide(hits, seen, out=np.zeros_like(hits), where=seen > 0)
    return float(counts.positives[::-1] @ precision) / positives


def counts_false_alarm_rate(counts: ScoreCounts, threshold: float = 0.5) -> float | None:
    """`false_alarm_rate` of weighted frames; None where nothing normal has weight."""
    negatives = float(counts.negatives.sum())
    if not negatives:
        return None
    return float(counts.negatives[counts.scores >= threshold].sum()) / negatives


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Frames whose scores lie close together: one point of a reliability diagram.

    Attributes:
        mean_score: in [0, 1].
        positive_share: share of anomalous frames, in [0, 1].
        frames: their number, or the sum of their weights; over 0.
    """

    mean_score: float
    positive_share: float
    frames: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far scores are from being probabilities.

    Attributes:
        bins: those that hold a frame, by rising score.
        expected_error: mean distance of score and share over the bins, weighted by
            frames, in [0, 1]; 0 where each score is the share of anomalous frames.
    """

    bins: tuple[CalibrationBin, ...]
    expected_error: float


def calibration(
    labels: Labels, scores: Scores, weights: Scores | None = None, bins: int = CALIBRATION_BINS
) -> Calibration | None:
    """Expected calibration error over bins of equal width.

    Args:
        labels: (N,) true where anomalous.
        scores: (N,) in [0, 1].
        weights: (N,) frames that each entry stands for, 0 or more; None for one each.
        bins: 1 or more; the one at the top holds a score of 1.

    Returns:
        None without frames.

    Raises:
        ValueError: a score outside [0, 1].

    Source: Guo et al. 2017 (arXiv:1706.04599), equation 3, on the score of one class.
    Deviation: a bin holds its lower edge, not its upper one.
    """
    # Written so that a score that is no number is refused too.
    if not ((scores >= 0) & (scores <= 1)).all():
        raise ValueError("scores must be in [0, 1] to be held against shares")
    frames = np.ones(len(scores)) if weights is None else weights
    which = np.minimum((scores * bins).astype(np.int64), bins - 1)
    held = np.bincount(which, frames, bins)
    used = held > 0
    if not used.any():
        return None
    mean_scores = np.bincount(which, frames * scores, bins)[used] / held[used]
    shares = np.bincount(which, frames * labels, bins)[used] / held[used]
    error = np.average(np.abs(mean_scores - shares), weights=held[used])
    found = zip(mean_scores.tolist(), shares.tolist(), held[used].tolist(), strict=True)
    return Calibration(tuple(CalibrationBin(*each) for each in found), float(error))


@dataclass(frozen=True, slots=True)
class BootstrapInterval:
    """A figure with its 95% percentile interval.

    Attributes:
        value: of the videos as they are; None where it is not defined.
        low: 2.5th percentile of the resamples; None where none has a value.
        high: 97.5th percentile.
        rounds: resamples drawn.
        undefined: resamples that have no value and are left out.
    """

    value: float | None
    low: float | None
    high: float | None
    rounds: int
    undefined: int


def bootstrap(
    videos: Sequence[Video],
    statistic: Statistic,
    *,
    seed: int,
    rounds: int = 1000,
    groups: Sequence[str] | None = None,
) -> BootstrapInterval:
    """Interval of a frame figure under resampling of whole videos.

    Args:
        videos: one or more.
        statistic: such as `counts_auc`.
        seed: of the draws; the same seed gives the same interval.
        rounds: resamples, 1 or more.
        groups: of each video its group, such as its camera; groups are drawn whole.

    Raises:
        ValueError: no video, or a length that does not fit.

    Source: Efron and Tibshirani 1993, chapter 13 (percentile interval); Field and
    Welsh 2007 (whole clusters).
    """
    frames = _SortedFrames.of(videos)
    return bootstrap_weighted(
        len(videos),
        lambda weights: statistic(frames.counts(weights)),
        seed=seed,
        rounds=rounds,
        groups=groups,
    )


def bootstrap_weighted(
    units: int,
    statistic: Callable[[Scores], float | None],
    *,
    seed: int,
    rounds: int = 1000,
    groups: Sequence[str] | None = None,
) -> BootstrapInterval:
    """Interval of any figure that can be had from how often each unit was drawn.

    Args:
        units: videos, streams or whatever is drawn whole, 1 or more.
        statistic: of the (units,) weights: whole numbers, 1 each for the units as they are.
        seed: of the draws.
        rounds: resamples, 1 or more.
        groups: of each unit its group; groups are drawn whole.

    Raises:
        ValueError: no unit, no round, or not one group a unit.
    """
    if units < 1 or rounds < 1:
        raise ValueError(f"units ({units}) and rounds ({rounds}) must be >= 1")
    if groups is not None and len(groups) != units:
        raise ValueError(f"need one group a unit, got {len(groups)} groups and {units} units")
    member = np.arange(units) if groups is None else np.unique(groups, return_inverse=True)[1]
    count = int(member.max()) + 1
    random = np.random.default_rng(seed)
    drawn = (random.multinomial(count, np.full(count, 1 / count)) for _ in range(rounds))
    values = [statistic(times[member].astype(np.float64)) for times in drawn]
    defined = [value for value in values if value is not None]
    low, high = _percentile_interval(defined) if defined else (None, None)
    value = statistic(np.ones(units))
    return BootstrapInterval(value, low, high, rounds, rounds - len(defined))


def _percentile_interval(values: list[float]) -> tuple[float, float]:
    tail = (100 - INTERVAL_PERCENT) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)


@dataclass(frozen=True, slots=True)
class _SortedFrames:
    """Frames of videos, sorted by score once; equal scores of a video are one entry.

    Attributes:
        scores: (U,) distinct, rising.
        starts: (U,) first entry of each score.
        video: (K,) of each entry.
        positives: (K,) anomalous frames of each entry.
        negatives: (K,) normal ones.
    """

    scores: Scores
    starts: Indices
    video: Indices
    positives: Scores
    negatives: Scores

    @classmethod
    def of(cls, videos: Sequence[Video]) -> _SortedFrames:
        labels, scores = pooled(videos)
        lengths = np.array([len(own) for own, _ in videos], np.int64)
        owner = np.repeat(np.arange(len(videos)), lengths)
        distinct, rank = np.unique(scores, return_inverse=True)
        keys, entry = np.unique(rank * max(1, len(videos)) + owner, return_inverse=True)
        rank_of_entry, video = np.divmod(keys, max(1, len(videos)))
        positives = np.bincount(entry, labels, len(keys)).astype(np.float64)
        return cls(
            scores=distinct,
            starts=np.searchsorted(rank_of_entry, np.arange(len(distinct))),
            video=video,
            positives=positives,
            negatives=np.bincount(entry, ~labels, len(keys)).astype(np.float64),
        )

    def counts(self, weights: Scores) -> ScoreCounts:
        """The frames with each video counted as often as its (V,) weight says."""
        if not len(self.scores):
            return ScoreCounts(self.scores, self.positives, self.negatives)
        entry_weights = weights[self.video]
        return ScoreCounts(
            self.scores,
            np.add.reduceat(entry_weights * self.positives, self.starts),
            np.add.reduceat(entry_weights * self.negatives, self.starts),
        )
