"""Multiple-instance problems whose best answer is known, to test a detector against.

Every window is Gaussian noise; a few windows of an anomalous bag are shifted.
The area under the ROC curve of the best possible score then has a closed form.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

WINDOWS = 32
ANOMALOUS_WINDOWS = 3
WIDTH = 8


@dataclass(frozen=True, slots=True)
class Bags:
    """Videos with their truth.

    Attributes:
        features: (V, T, D).
        labels: (V,) float, 1 = anomalous.
        synthetic: (V,) bool.
        truth: (V, T) bool; for judging alone.
    """

    features: Tensor
    labels: Tensor
    synthetic: Tensor
    truth: Tensor

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, chosen: Tensor) -> Bags:
        """Some of the videos, by index or mask (V,)."""
        return Bags(*(tensor[chosen] for tensor in self._tensors()))

    def _tensors(self) -> tuple[Tensor, ...]:
        return self.features, self.labels, self.synthetic, self.truth

    @classmethod
    def join(cls, parts: Sequence[Bags]) -> Bags:
        """All videos of all parts."""
        return cls(*(torch.cat(t) for t in zip(*(p._tensors() for p in parts), strict=True)))


@dataclass(frozen=True, slots=True)
class Planting:
    """What an anomaly looks like.

    Attributes:
        shift: (D,) added to the windows of an anomaly.
        windows: T.
        anomalous: windows of an anomaly, as many in each video.
        together: side by side; else anywhere, so that neighbours tell nothing.
        synthetic: whether the videos count as generated.
    """

    shift: Tensor
    windows: int = WINDOWS
    anomalous: int = ANOMALOUS_WINDOWS
    together: bool = False
    synthetic: bool = False


def axis(index: int, size: float, width: int = WIDTH) -> Tensor:
    """(width,) A shift by `size` along one axis."""
    shift = torch.zeros(width)
    shift[index] = size
    return shift


def planted(planting: Planting, normal: int, anomalous: int, random: torch.Generator) -> Bags:
    """Draw so many videos of either label."""
    count, windows = normal + anomalous, planting.windows
    features = torch.randn(count, windows, len(planting.shift), generator=random)
    truth = torch.zeros(count, windows, dtype=torch.bool)
    for video in range(normal, count):
        truth[video, _places(planting, random)] = True
    features = features + truth[..., None] * planting.shift
    labels = (torch.arange(count) >= normal).float()
    return Bags(features, labels, torch.full((count,), planting.synthetic), truth)


def _places(planting: Planting, random: torch.Generator) -> Tensor:
    if not planting.together:
        return torch.randperm(planting.windows, generator=random)[: planting.anomalous]
    first = torch.randint(planting.windows - planting.anomalous + 1, (), generator=random)
    return first + torch.arange(planting.anomalous)


def ceiling(size: float) -> float:
    """AUC over windows of the best score of a window alone, where an anomaly is a shift by `size`.

    Both scores along the shift are Gaussian with unit variance, so their difference has
    variance 2 and is positive with probability Phi(size / sqrt(2)).
    """
    return 0.5 * (1 + math.erf(size / 2))
