"""Losses: bags of instances, and synthetic sample loss scaling; pure."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def top_k_bag_score(scores: Tensor, k: int) -> Tensor:
    """Mean of the k highest instance scores in each bag.

    Args:
        scores: (B, T) in [0, 1].
        k: instances kept, 1 <= k <= T.

    Returns:
        (B,) in [0, 1]; unchanged by reordering T.

    Raises:
        ValueError: k outside 1..T.

    Source: Sultani et al. 2018 (arXiv:1801.04264). Deviation: mean of k, not max.
    """
    if not 1 <= k <= scores.shape[1]:
        raise ValueError(f"k ({k}) must be 1 to T ({scores.shape[1]})")
    return scores.topk(k, 1).values.mean(1)


def bag_loss(bag_scores: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of each bag.

    Args:
        bag_scores: (B,) in [0, 1].
        labels: (B,) in [0, 1]; smoothed ones are allowed.

    Returns:
        (B,)
    """
    limit = 1e-6
    return functional.binary_cross_entropy(
        bag_scores.clamp(limit, 1 - limit), labels, reduction="none"
    )


def ranking_loss(bag_scores: Tensor, labels: Tensor) -> Tensor:
    """How often, softly, a normal bag outranks an anomalous one.

    Args:
        bag_scores: (B,) in [0, 1].
        labels: (B,) 0 or 1, both of them present.

    Returns:
        () Mean over all pairs of log(1 + exp(z_normal - z_anomalous)), z the logits. Unlike a
        cross entropy it has no slope in a shift that all scores share.

    Source: RankNet, Burges et al. 2005.
    """
    limit = 1e-6
    logits = torch.logit(bag_scores.clamp(limit, 1 - limit))
    normal, anomalous = logits[labels == 0], logits[labels == 1]
    return functional.softplus(normal[None] - anomalous[:, None]).mean()


def smoothness(scores: Tensor) -> Tensor:
    """Mean squared step between neighbouring instances of each bag: (B, T) to (B,)."""
    if scores.shape[1] < 2:
        return scores.new_zeros(len(scores))
    return (scores[:, 1:] - scores[:, :-1]).square().mean(1)


def scaled_mean(losses: Tensor, weights: Tensor) -> Tensor:
    """Synthetic sample loss scaling: (1/N) sum of w_i l_i.

    Args:
        losses: (N,)
        weights: (N,) 1 for a real sample, lambda for a synthetic one.

    Returns:
        A scalar. The divisor stays N, so that lambda = 0 gives the gradient of
        dropping those samples' loss.

    Source: GV-VAD. Deviation: each sample has its own weight; the released code
    scales the whole batch's loss by one number.
    """
    if losses.shape != weights.shape:
        raise ValueError(f"one weight a loss, got {tuple(weights.shape)} for {tuple(losses.shape)}")
    return (losses * weights).sum() / len(losses)


def smoothed(labels: Tensor, smoothing: float) -> Tensor:
    """Labels 0 and 1 moved to smoothing/2 and 1 - smoothing/2."""
    return labels * (1 - smoothing) + smoothing / 2


def sample_weights(synthetic: Tensor, synthetic_weight: float) -> Tensor:
    """(N,) 1 where real, lambda where synthetic."""
    return torch.where(synthetic, synthetic_weight, 1.0)
