"""The objective of a detector, video by video, so that SSLS can weigh each one.

L = (1/N) sum_i w_i l_i + beta MPL, with w_i = 1 for a real video and lambda for
a synthetic one. Terms stand in no relation to a video's place in the batch.

Source: LAP (arXiv:2403.01169), RTFM (arXiv:2101.10030) and GV-VAD. Deviations
from the released code: every term is a video's own, where smoothness and
sparsity are sums over the whole batch there and so grow with it; the two
halves of the magnitude term are decoupled, since a pair would need one weight;
suspects are taught to score high, not low.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from training.losses import bag_loss, scaled_mean

Select = Literal["magnitude", "score"]


@dataclass(frozen=True, slots=True)
class ObjectiveSpec:
    """Which terms there are, and how much each counts; a weight of 0 leaves it out.

    Attributes:
        select: what chooses a bag's windows.
        k: how many it chooses.
        selection_dropout: share of windows that cannot be chosen by magnitude in training.
        magnitude: weight of RTFM's feature magnitude term.
        margin: that an anomalous bag's magnitude is drawn to.
        smooth: weight of squared steps between neighbouring scores.
        sparse: weight of an anomalous bag's norm of scores.
        mpl: beta, weight of LAP's multi-prompt term.
        mpl_windows: P, windows in each of its means.
        pal: gamma, weight of LAP's pseudo-anomaly term.
        pal_deviations: tau, standard deviations over the mean from which a window is suspect.
    """

    select: Select = "magnitude"
    k: int = 3
    selection_dropout: float = 0.7
    magnitude: float = 1e-4
    margin: float = 100.0
    smooth: float = 8e-4
    sparse: float = 8e-3
    mpl: float = 0.0
    mpl_windows: int = 30
    pal: float = 0.0
    pal_deviations: float = 1.0

    def __post_init__(self) -> None:
        for name in ("k", "mpl_windows"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} ({getattr(self, name)}) must be at least 1")
        if not 0 <= self.selection_dropout < 1:
            raise ValueError(f"selection_dropout ({self.selection_dropout}) must be in [0, 1)")
        for name in ("magnitude", "smooth", "sparse", "mpl", "pal"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} ({getattr(self, name)}) must be 0 or more")

    @property
    def needs_suspicion(self) -> bool:
        """Whether windows must come with their likeness to prompts."""
        return self.mpl > 0 or self.pal > 0


RTFM = ObjectiveSpec()
TEVAD = ObjectiveSpec()
LAP = ObjectiveSpec(mpl=0.1, pal=1e-3)


@dataclass(frozen=True, slots=True)
class Judged:
    """B videos as a head has judged them.

    Attributes:
        scores: (B, T) in [0, 1].
        features: parts that stand side by side, each (B, N, T, F_i), or (B, 1, T, F_i)
            where the crops share it; F is the sum of all F_i.
        labels: (B,) float, 1 = anomalous.
        synthetic: (B,) bool.
        suspicion: (B, T) likeness to anomaly prompts, without gradient; None without prompts.
    """

    scores: Tensor
    features: tuple[Tensor, ...]
    labels: Tensor
    synthetic: Tensor
    suspicion: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Objective:
    """What a batch costs.

    Attributes:
        total: what to descend.
        losses: (B,) of each video, before its weight.
        terms: mean over the batch of each term as it stands in `losses`, and MPL.
    """

    total: Tensor
    losses: Tensor
    terms: dict[str, Tensor]


def objective(
    spec: ObjectiveSpec, judged: Judged, weights: Tensor, mask: Tensor | None = None
) -> Objective:
    """Cost of a batch.

    Args:
        spec: which terms.
        judged: the batch.
        weights: (B,) 1 where real, lambda where synthetic; may carry gradient.
        mask: (B, T) factors on magnitudes, of `selection_mask`; None for no dropout.

    Raises:
        ValueError: the terms need suspicion and there is none, or k is over T.
    """
    if spec.needs_suspicion and judged.suspicion is None:
        raise ValueError("MPL and PAL need each window's suspicion; set their weights to 0")
    chosen = selected(spec, judged, mask)
    prompted = prompted_windows(judged, weights, spec.mpl_windows) if spec.mpl else []
    standing, *triplet = _gathered(judged, [_places(chosen, judged), *prompted])
    anomalous = judged.labels
    terms: dict[str, Tensor] = {
        "mil": bag_loss(judged.scores.gather(1, chosen).mean(1), judged.labels),
        "magnitude": spec.magnitude * _magnitudes(judged, standing, spec.margin),
        "smooth": anomalous * spec.smooth * _steps(judged.scores),
        "sparse": anomalous * spec.sparse * judged.scores.norm(dim=1),
    }
    if spec.pal and judged.suspicion is not None:
        marks = suspects(judged, weights, spec.pal_deviations)
        terms["pal"] = anomalous * spec.pal * _cross_entropy(judged.scores, marks).mean(1)
    losses = torch.stack(list(terms.values())).sum(0)
    total = scaled_mean(losses, weights)
    means = {name: term.detach().mean() for name, term in terms.items()}
    if spec.mpl:
        term = spec.mpl * _multi_prompt(judged, weights, prompted, triplet)
        total = total + term
        means["mpl"] = term.detach()
    return Objective(total, losses, means)


def selection_mask(spec: ObjectiveSpec, scores: Tensor, random: torch.Generator) -> Tensor:
    """(B, T) Dropout's factors on magnitudes, 0 or 1/(1 - p)."""
    kept = torch.rand(scores.shape, generator=random) >= spec.selection_dropout
    return kept.to(scores.dtype) / (1 - spec.selection_dropout)


def selected(spec: ObjectiveSpec, judged: Judged, mask: Tensor | None) -> Tensor:
    """(B, k) Indices of the windows that stand for each bag.

    Raises:
        ValueError: k over T.

    Source: RTFM, equation 5: the k windows of largest feature magnitude, crops
    averaged; or the k of the highest scores, as LAP's paper writes it.
    """
    windows = judged.scores.shape[1]
    if spec.k > windows:
        raise ValueError(f"k ({spec.k}) must be at most T ({windows})")
    if spec.select == "score":
        return judged.scores.detach().topk(spec.k, 1).indices
    with torch.no_grad():
        squares = judged.scores.new_zeros(())
        for part in judged.features:
            squares = squares + part.norm(dim=3).square()
        sizes = squares.sqrt().mean(1)
    if mask is not None:
        sizes = sizes * mask
    return sizes.topk(spec.k, 1).indices


def _magnitudes(judged: Judged, standing: Tensor, margin: float) -> Tensor:
    """(B,) (margin - |f|)^2 of anomalous bags and |f|^2 of normal ones, mean over crops.

    f is the mean feature of the windows that stand for a bag: (B k, N, F), bag by bag.

    Source: RTFM, equation 4. Deviation: RTFM squares the sum of a pair's two terms.
    """
    sizes = standing.view(len(judged.labels), -1, *standing.shape[1:]).mean(1).norm(dim=2)
    away: Tensor = torch.where(judged.labels[:, None] > 0, margin - sizes, sizes)
    return away.square().mean(1)


def chosen_features(parts: tuple[Tensor, ...], chosen: Tensor) -> Tensor:
    """Features at windows (B, k): (B, N, k, F)."""
    videos = torch.arange(len(chosen))[:, None]
    found = [part.transpose(1, 2)[videos, chosen].transpose(1, 2) for part in parts]
    crops = max(part.shape[1] for part in parts)
    return torch.cat([part.expand(-1, crops, -1, -1) for part in found], 3)


def suspects(judged: Judged, weights: Tensor, deviations: float) -> Tensor:
    """(B, T) 1 where suspicion exceeds its mean by so many standard deviations.

    Source: LAP, PAL. Deviation: mean and deviation are weighed as the videos are,
    so that a video of weight 0 decides about no other.
    """
    assert judged.suspicion is not None
    suspicion = judged.suspicion
    shares = weights.detach().clamp_min(0)[:, None].expand_as(suspicion)
    shares = shares / shares.sum().clamp_min(1e-12)
    mean = (shares * suspicion).sum()
    deviation = (shares * (suspicion - mean).square()).sum().sqrt()
    return (suspicion > mean + deviations * deviation).to(suspicion.dtype)


def prompted_windows(judged: Judged, weights: Tensor, windows: int) -> list[Tensor]:
    """Places of the windows that the multi-prompt term compares; none where a label is missing.

    The P lowest scores of normal videos, the P lowest of anomalous ones, and the P most
    suspect of those, each (P,) into the flat (B T); fewer windows than P: all of them.

    Source: LAP, MPL. Deviation: a video of weight 0 is not chosen from.
    """
    assert judged.suspicion is not None
    usable = weights.detach() > 0
    normal, anomalous = (usable & (judged.labels == label) for label in (0, 1))
    if not (normal.any() and anomalous.any()):
        return []
    calm = -judged.scores.detach()
    return [
        _top(ranks, of, windows)
        for ranks, of in ((calm, normal), (calm, anomalous), (judged.suspicion, anomalous))
    ]


def _top(ranks: Tensor, of: Tensor, count: int) -> Tensor:
    """Places of the highest of (B, T) ranks among some videos."""
    usable = min(count, int(of.sum()) * ranks.shape[1])
    return ranks.masked_fill(~of[:, None], -torch.inf).flatten().topk(usable).indices


def _multi_prompt(
    judged: Judged, weights: Tensor, places: list[Tensor], features: list[Tensor]
) -> Tensor:
    """max(0, |anchor - positive| - |anchor - negative| + 1) of three means of windows.

    Args:
        judged: the batch.
        weights: (B,) of SSLS, which weigh the means.
        places: of the windows of each mean, of `prompted_windows`.
        features: theirs, (P, N, F) each; crops are averaged.

    Source: LAP, MPL.
    """
    if not places:
        return judged.scores.new_zeros(())
    windows = judged.scores.shape[1]
    anchor, positive, negative = (
        _weighted(found.mean(1), weights[place // windows])
        for place, found in zip(places, features, strict=True)
    )
    return functional.relu((anchor - positive).norm() - (anchor - negative).norm() + 1)


def _weighted(features: Tensor, weights: Tensor) -> Tensor:
    """(F,) mean of (P, F)."""
    return (features * (weights / weights.sum())[:, None]).sum(0)


def _places(chosen: Tensor, judged: Judged) -> Tensor:
    """(B k,) Places in the flat (B T) of windows (B, k)."""
    videos, windows = judged.scores.shape
    return (torch.arange(videos)[:, None] * windows + chosen).flatten()


def _gathered(judged: Judged, places: list[Tensor]) -> list[Tensor]:
    """Features (n, N, F) at places of the flat (B T), for each list of places.

    All at once: the gradient of one gather is as large as all the features.
    """
    windows = judged.scores.shape[1]
    every = torch.cat(places)
    crops = max(part.shape[1] for part in judged.features)
    found = [part[every // windows, :, every % windows] for part in judged.features]
    joined = torch.cat([part.expand(-1, crops, -1) for part in found], 2)
    return list(torch.split(joined, [len(place) for place in places]))


def _steps(scores: Tensor) -> Tensor:
    """(B,) Sum of squared steps between neighbouring windows."""
    return (scores[:, 1:] - scores[:, :-1]).square().sum(1)


def _cross_entropy(scores: Tensor, marks: Tensor) -> Tensor:
    limit = 1e-6
    return functional.binary_cross_entropy(scores.clamp(limit, 1 - limit), marks, reduction="none")
