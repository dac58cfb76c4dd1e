"""The objective with the mistakes of the released GV-VAD code, to score as it does.

Numbers are those of ALGORITHM.md's table of bugs. Nothing else uses this.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from training.objective import (
    Judged,
    Objective,
    ObjectiveSpec,
    chosen_features,
    selected,
)

_VIEWED_WINDOWS = 32


def released_objective(
    spec: ObjectiveSpec, judged: Judged, scale: Tensor, mask: Tensor | None = None
) -> Objective:
    """Cost of a batch as released; normal and anomalous videos in pairs, in their order.

    Args:
        spec: which terms.
        judged: the batch, as many normal as anomalous videos.
        scale: (), lambda.
        mask: (B, T) on magnitudes; None for no dropout.

    Raises:
        ValueError: other numbers of normal and anomalous videos, or T no multiple of 32.
    """
    normal, anomalous = judged.labels == 0, judged.labels == 1
    if int(normal.sum()) != int(anomalous.sum()):
        raise ValueError("the released objective pairs videos: as many normal as anomalous")
    chosen = selected(spec, judged, mask)
    bag_scores = judged.scores.gather(1, chosen).mean(1)
    sizes = chosen_features(judged.features, chosen).mean(2).norm(dim=2)
    pairs = (spec.margin - sizes[anomalous]).abs() + sizes[normal]
    viewed = viewed_scores(judged.scores[anomalous])
    terms = {
        "mil": functional.binary_cross_entropy(bag_scores, judged.labels),
        "magnitude": spec.magnitude * pairs.square().mean(),
        "smooth": spec.smooth * (viewed[1:] - viewed[:-1]).square().sum(),
        "sparse": spec.sparse * viewed.norm(dim=0).mean(),
    }
    if spec.pal:
        terms["pal"] = spec.pal * inverted_alignment(judged, spec.pal_deviations)
    if spec.mpl:
        # Bug 4: the weight is applied in the model and once more in the training loop.
        terms["mpl"] = spec.mpl**2 * rank_paired_prompts(judged, spec)
    cost = torch.stack(list(terms.values())).sum()
    total = cost * batch_scale(judged.synthetic, scale)
    means = {name: term.detach() for name, term in terms.items()}
    return Objective(total, cost.expand(len(judged.labels)), means)


def batch_scale(synthetic: Tensor, scale: Tensor) -> Tensor:
    """Bug 1: one factor for the whole batch, 1 - p + p lambda, p the synthetic share.

    An optimiser that is invariant to the loss's scale, as Adam nearly is, does not notice.
    """
    share = synthetic.to(scale.dtype).mean()
    return 1 - share + share * scale


def viewed_scores(scores: Tensor) -> Tensor:
    """Bug 7: (b, T) seen as rows of T/32; neighbours then are T/32 apart, over borders too."""
    windows = scores.shape[1]
    if windows % _VIEWED_WINDOWS:
        raise ValueError(f"the released objective needs T ({windows}) to be a multiple of 32")
    return scores.reshape(-1, windows // _VIEWED_WINDOWS)


def inverted_alignment(judged: Judged, deviations: float) -> Tensor:
    """Bug 3: the complement of the score is taught to be suspect, so suspects learn to hide."""
    suspicion, anomalous = _suspicion(judged)
    marks = _marks(suspicion, deviations)
    return functional.binary_cross_entropy(1 - judged.scores[anomalous], marks)


def rank_paired_prompts(judged: Judged, spec: ObjectiveSpec) -> Tensor:
    """Bug 5: suspects are those of high score, and windows are compared rank by rank.

    Features are the crops' side by side, N F numbers a window.
    """
    suspicion, anomalous = _suspicion(judged)
    normal = judged.labels == 0
    everywhere = torch.arange(judged.scores.shape[1]).expand_as(judged.scores)
    features = chosen_features(judged.features, everywhere).transpose(1, 2).flatten(2)
    marks = _marks(suspicion, spec.pal_deviations)
    scores = judged.scores.detach()
    count = min(spec.mpl_windows, scores[normal].numel())
    anchor = _ranked(features[normal], -scores[normal], count)
    positive = _ranked(features[anomalous], -scores[anomalous], count)
    negative = _ranked(features[anomalous], scores[anomalous] * marks, count)
    near = (anchor - positive).norm(dim=1)
    far = (anchor - negative).norm(dim=1)
    return functional.relu(near - far + 1).mean()


def _suspicion(judged: Judged) -> tuple[Tensor, Tensor]:
    """(b, T) of the anomalous videos, and which those are."""
    anomalous = judged.labels == 1
    assert judged.suspicion is not None
    return judged.suspicion[anomalous], anomalous


def _marks(suspicion: Tensor, deviations: float) -> Tensor:
    marked = suspicion > suspicion.mean() + deviations * suspicion.std()
    return marked.to(suspicion.dtype)


def _ranked(features: Tensor, ranks: Tensor, count: int) -> Tensor:
    """(count, F) Of the windows that rank highest, in that order."""
    return features.flatten(0, 1)[ranks.flatten().topk(count).indices]
