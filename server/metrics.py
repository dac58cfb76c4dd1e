"""Detection metrics, one definition each; pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float64]
Labels = npt.NDArray[np.bool_]

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
