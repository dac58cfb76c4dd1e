"""The objective in NumPy and double precision, video by video, from the formulas alone."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass
class ReferenceBatch:
    """As `Judged` says, with the weights of the videos and a mask on magnitudes."""

    scores: Array
    features: Array
    labels: Array
    suspicion: Array
    weights: Array
    mask: Array


def chosen(batch: ReferenceBatch, k: int, *, by_score: bool) -> Array:
    """(B, k) windows that stand for each video."""
    sizes = np.sqrt((batch.features**2).sum(3)).mean(1) * batch.mask
    ranks = batch.scores if by_score else sizes
    return np.argsort(-ranks, axis=1)[:, :k]


def entropy(score: Array, mark: Array) -> Array:
    return -(mark * np.log(score) + (1 - mark) * np.log(1 - score))


def video_losses(batch: ReferenceBatch, chosen: Array, deviations: float = 1.0) -> Array:
    """(B, 5): MIL, magnitude, smoothness, sparsity, PAL, all without their weights."""
    marks = suspects(batch, deviations)
    rows = []
    for video, label in enumerate(batch.labels):
        scores, windows = batch.scores[video], chosen[video]
        mil = entropy(scores[windows].mean(), label)
        sizes = [np.linalg.norm(crop[windows].mean(0)) for crop in batch.features[video]]
        magnitude = np.mean([(100 - size) ** 2 if label else size**2 for size in sizes])
        smooth = sum((b - a) ** 2 for a, b in pairwise(scores))
        sparse = np.sqrt((scores**2).sum())
        pal = entropy(scores, marks[video]).mean()
        rows.append([mil, magnitude, *(label * term for term in (smooth, sparse, pal))])
    return np.array(rows)


def suspects(batch: ReferenceBatch, deviations: float) -> Array:
    repeated = np.repeat(batch.weights, batch.suspicion.shape[1])
    flat = batch.suspicion.ravel()
    mean = np.average(flat, weights=repeated)
    deviation = np.sqrt(np.average((flat - mean) ** 2, weights=repeated))
    return (batch.suspicion > mean + deviations * deviation).astype(float)


def multi_prompt(batch: ReferenceBatch, windows: int) -> float:
    """LAP's triplet of weighted means."""
    instances = [
        (batch.labels[v], batch.scores[v, t], batch.suspicion[v, t], batch.weights[v], feature)
        for v in range(len(batch.labels))
        for t, feature in enumerate(batch.features[v].mean(0))
        if batch.weights[v] > 0
    ]

    def mean(label: float, rank: int, sign: int) -> Array:
        ranked = sorted((i for i in instances if i[0] == label), key=lambda i: sign * i[rank])
        best = ranked[:windows]
        return np.average([i[4] for i in best], axis=0, weights=[i[3] for i in best])

    anchor, positive, negative = mean(0, 1, 1), mean(1, 1, 1), mean(1, 2, -1)
    near, far = np.linalg.norm(anchor - positive), np.linalg.norm(anchor - negative)
    return float(max(0.0, near - far + 1))


def lap_total(batch: ReferenceBatch, chosen: Array, prompts: int) -> float:
    """L of LAP with SSLS, under its published weights."""
    weights = np.array([1, 1e-4, 8e-4, 8e-3, 1e-3])
    losses = video_losses(batch, chosen) @ weights
    return float((batch.weights * losses).mean() + 0.1 * multi_prompt(batch, prompts))


def released_total(batch: ReferenceBatch, chosen: Array, share: float, scale: float) -> float:
    """The released code's total, for T = 64 and two crops or more; `mask` is not read again."""
    normal, anomalous = batch.labels == 0, batch.labels == 1
    rows = np.arange(len(chosen))[:, None]
    mil = entropy(batch.scores[rows, chosen].mean(1), batch.labels).mean()
    sizes = np.array(
        [
            [np.linalg.norm(crop[windows].mean(0)) for crop in video]
            for video, windows in zip(batch.features, chosen, strict=True)
        ]
    )
    magnitude = ((np.abs(100 - sizes[anomalous]) + sizes[normal]) ** 2).mean()
    flat = batch.scores[anomalous].ravel()
    smooth = ((flat[2:] - flat[:-2]) ** 2).sum()
    sparse = (np.linalg.norm(flat[::2]) + np.linalg.norm(flat[1::2])) / 2
    suspicion = batch.suspicion[anomalous]
    marks = (suspicion > suspicion.mean() + suspicion.std(ddof=1)).astype(float)
    pal = entropy(1 - batch.scores[anomalous], marks).mean()
    wide = np.concatenate(list(batch.features.transpose(1, 0, 2, 3)), axis=2)
    flat_wide = wide.reshape(len(wide) * wide.shape[1], -1)
    ranks = [
        (normal, batch.scores, 1),
        (anomalous, batch.scores, 1),
        (anomalous, batch.scores * _spread(marks, anomalous), -1),
    ]
    picks = []
    for which, value, sign in ranks:
        places = np.flatnonzero(np.repeat(which, batch.scores.shape[1]))
        order = np.argsort(sign * value.ravel()[places], kind="stable")[:5]
        picks.append(flat_wide[places[order]])
    near = np.linalg.norm(picks[0] - picks[1], axis=1)
    far = np.linalg.norm(picks[0] - picks[2], axis=1)
    mpl = np.maximum(0, near - far + 1).mean()
    cost = mil + 1e-4 * magnitude + 8e-4 * smooth + 8e-3 * sparse + 1e-3 * pal + 0.1**2 * mpl
    return float(cost * (1 - share) + scale * cost * share)


def _spread(marks: Array, anomalous: npt.NDArray[np.bool_]) -> Array:
    spread = np.zeros((len(anomalous), marks.shape[1]))
    spread[anomalous] = marks
    return spread
