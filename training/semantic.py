"""The semantic branch without a captioner: a window as a mixture of a bank's sentences.

Sentences and windows are vectors of one space, CLIP's; subtracting each side's
mean closes most of the gap between its modalities. The mixture has the shape of a
sentence's embedding, so a text network reads it as it would read a caption's.

Source: proposed in ALGORITHM.md, section 8; the use of a text network is TEVAD's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

NEAREST = 16
_COLDEST, _START, _HOTTEST = 0.01, 0.05, 0.2


@dataclass(frozen=True, slots=True)
class BankSize:
    """How much a bank holds.

    Attributes:
        sentences: K, at least 16.
        anomalies: P, prompts of anomalies.
        normals: Q, prompts of ordinary scenes.
    """

    sentences: int
    anomalies: int
    normals: int

    def __post_init__(self) -> None:
        if self.sentences < NEAREST:
            raise ValueError(f"sentences ({self.sentences}) must be at least {NEAREST}")
        if self.anomalies < 1 or self.normals < 1:
            raise ValueError("a bank needs prompts of anomalies and of ordinary scenes")


@dataclass(frozen=True, slots=True)
class BankVectors:
    """Unit vectors of a bank's texts.

    Attributes:
        sentences: (K, D).
        anomalies: (P, D).
        normals: (Q, D).
    """

    sentences: Tensor
    anomalies: Tensor
    normals: Tensor

    @property
    def size(self) -> BankSize:
        return BankSize(len(self.sentences), len(self.anomalies), len(self.normals))


class SemanticBranch(nn.Module):
    """Maps a window's feature to the sentences that are nearest to it.

    Its vectors are buffers: they are saved and exported with it, and no text encoder
    is needed where it runs.
    """

    mean_feature: Tensor
    sentences: Tensor
    centred: Tensor
    anomalies: Tensor
    normals: Tensor

    def __init__(self, width: int, size: BankSize) -> None:
        super().__init__()
        self.register_buffer("mean_feature", torch.zeros(width))
        for name, rows in (
            ("sentences", size.sentences),
            ("centred", size.sentences),
            ("anomalies", size.anomalies),
            ("normals", size.normals),
        ):
            self.register_buffer(name, torch.zeros(rows, width))
        share = (_START - _COLDEST) / (_HOTTEST - _COLDEST)
        self.heat = nn.Parameter(torch.tensor(math.log(share / (1 - share))))
        self.norm = nn.LayerNorm(width)

    def fill(self, vectors: BankVectors) -> None:
        """Take in a bank; prompts are centred by the sentences' mean."""
        sentences = functional.normalize(vectors.sentences, dim=1)
        mean = sentences.mean(0)
        self.sentences.copy_(sentences)
        self.centred.copy_(functional.normalize(sentences - mean, dim=1))
        for own, given in ((self.anomalies, vectors.anomalies), (self.normals, vectors.normals)):
            own.copy_(functional.normalize(functional.normalize(given, dim=1) - mean, dim=1))

    def fit_centre(self, features: Tensor) -> None:
        """Set the features' mean from windows (n, D) of normal training videos."""
        self.mean_feature.copy_(features.mean(0))

    @property
    def temperature(self) -> Tensor:
        """() In [0.01, 0.2], learned; 0.05 at the start."""
        return _COLDEST + (_HOTTEST - _COLDEST) * torch.sigmoid(self.heat)

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What a window looks like, in sentences.

        Args:
            feature: (B, D) or (B, T, D).

        Returns:
            Text (..., D) for a text network, and the 16 nearest sentences: indices
            (..., 16) int64, nearest first, and weights (..., 16) that sum to 1.
        """
        likeness = self._centre(feature) @ self.centred.T
        nearest = likeness.topk(NEAREST, -1)
        weight = torch.softmax(nearest.values / self.temperature, -1)
        mixture = (weight.unsqueeze(-1) * self.sentences[nearest.indices]).sum(-2)
        return self.norm(functional.normalize(mixture, dim=-1)), nearest.indices, weight

    def suspicion(self, feature: Tensor) -> Tensor:
        """(...,) Largest likeness to a prompt of anomalies less that to one of ordinary scenes."""
        with torch.no_grad():
            centred = self._centre(feature)
            anomalous = (centred @ self.anomalies.T).amax(-1)
            return anomalous - (centred @ self.normals.T).amax(-1)

    def _centre(self, feature: Tensor) -> Tensor:
        return functional.normalize(feature - self.mean_feature, dim=-1)
