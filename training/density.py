"""A detector without labels: how far a window's feature lies from those of normal windows.

The memory of normal features is fitted once and frozen. A feature may be a grid of
cells side by side; each is then judged by itself, and the farthest ones speak for
the window. Both methods are one function: a Gaussian is the distance to a memory of
one row, its mean, in coordinates that make it round.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

Method = Literal["knn", "gaussian"]

MARGIN = 3.0
"""Standard deviations over the mean of normal log-distances at which a score is 0.5."""

_FLOOR_SHARE = 0.01
_CANDIDATES = 50_000
"""Cells among which the memory is chosen; of more, so many by chance: it takes minutes else."""

_CHUNK_WINDOWS = 32


@dataclass(frozen=True, slots=True)
class DensitySpec:
    """What a fitted density is.

    Attributes:
        feature_dim: D.
        cells: P equal parts of the feature, each judged by itself.
        top: the farthest of them, whose distances are averaged.
        rows: M, cells of normal windows in the memory.
        k: the nearest of those, whose distances are averaged.
        half_life_windows: of the running mean over a stream's windows; None for no memory
            of the stream.
    """

    feature_dim: int
    cells: int
    top: int
    rows: int
    k: int
    half_life_windows: float | None = None

    def __post_init__(self) -> None:
        if self.cells < 1 or self.feature_dim % self.cells:
            raise ValueError(f"cells ({self.cells}) must divide feature_dim ({self.feature_dim})")
        if not 1 <= self.top <= self.cells:
            raise ValueError(f"top ({self.top}) must be 1 to cells ({self.cells})")
        if not 1 <= self.k <= self.rows:
            raise ValueError(f"k ({self.k}) must be 1 to rows ({self.rows})")
        if self.half_life_windows is not None and not self.half_life_windows > 0:
            raise ValueError(f"half_life_windows ({self.half_life_windows}) must be over 0")

    @property
    def cell_dim(self) -> int:
        """C, numbers of one cell."""
        return self.feature_dim // self.cells

    @property
    def states(self) -> dict[str, tuple[int, ...]]:
        """Shape per stream of each state tensor, by name; the order is the step's."""
        return {} if self.half_life_windows is None else {"sum": (1,), "count": (1,)}


@dataclass(frozen=True, slots=True)
class MemoryRule:
    """How normal cells become a memory.

    Attributes:
        method: the nearest of some cells, or one Gaussian of all.
        rows: cells kept at most, for "knn".
        spread: keep those that lie farthest apart, not a choice by chance.
        shrinkage: share of a round covariance in the Gaussian's, in (0, 1].
        seed: of what chance decides.
    """

    method: Method
    rows: int
    spread: bool
    shrinkage: float
    seed: int


@dataclass(frozen=True, slots=True)
class Memory:
    """Where normal cells lie.

    Attributes:
        mean: (C,) taken off a cell first.
        transform: (C, C) that it is multiplied by then.
        rows: (M, C) in those coordinates.
    """

    mean: Tensor
    transform: Tensor
    rows: Tensor


class Density(nn.Module):
    """Features to scores, one window at a time or many.

    A score is the logistic of the log-distance, in standard deviations of held-back normal
    windows, less `MARGIN`: it rises with the distance, always.
    """

    mean: Tensor
    transform: Tensor
    rows: Tensor
    centre: Tensor
    deviation: Tensor
    floor: Tensor

    def __init__(self, spec: DensitySpec) -> None:
        super().__init__()
        self.spec = spec
        width = spec.cell_dim
        for name, shape in {"mean": (width,), "transform": (width, width)}.items():
            self.register_buffer(name, torch.zeros(shape))
        self.register_buffer("rows", torch.zeros(spec.rows, width))
        for name, value in {"centre": 0.0, "deviation": 1.0, "floor": 1e-6}.items():
            self.register_buffer(name, torch.tensor(value))
        self.eval()

    def remember(self, memory: Memory) -> None:
        """Take up what is normal."""
        for name in ("mean", "transform", "rows"):
            getattr(self, name).copy_(getattr(memory, name))

    @torch.no_grad()
    def calibrate(self, videos: list[Tensor]) -> None:
        """Set what is usual by normal windows that the memory does not hold.

        Args:
            videos: (n, D) each, two windows or more in all.
        """
        distances = torch.cat([self.distances(video) for video in videos])
        # Equal windows are at no distance: their logarithm shall stay finite and comparable.
        self.floor.copy_((_FLOOR_SHARE * distances.median()).clamp_min(1e-6))
        levels = torch.cat([self.levels(video) for video in videos])
        self.centre.copy_(levels.mean())
        self.deviation.copy_(levels.std().clamp_min(1e-3))

    def distances(self, features: Tensor) -> Tensor:
        """(B, D) to (B,): how far the farthest cells lie from what is normal, on average."""
        spec = self.spec
        cells = features.reshape(-1, spec.cells, spec.cell_dim)
        moved = (cells - self.mean) @ self.transform
        products = moved @ self.rows.T
        squared = (moved * moved).sum(2, keepdim=True) + (self.rows * self.rows).sum(1)
        places = (squared - 2 * products).topk(spec.k, 2, largest=False).indices
        # Which are nearest is told so; how far they are is not: what is left of two large
        # numbers that cancel depends on the library and on the batch.
        apart = (moved.unsqueeze(2) - self.rows[places]).square().sum(3).sqrt()
        return apart.mean(2).topk(spec.top, 1).values.mean(1)

    def levels(self, features: Tensor) -> Tensor:
        """(T, D) of one stream from its beginning to (T,) log-distances as they are judged."""
        parts = torch.split(features, _CHUNK_WINDOWS)
        logs = torch.cat([self._logs(part) for part in parts])
        state = tuple(logs.new_zeros(1, *shape) for shape in self.spec.states.values())
        levels = []
        for now in logs:
            level, *after = self._averaged(now[None], *state)
            levels.append(level)
            state = tuple(after)
        return torch.cat(levels)

    def scores(self, features: Tensor) -> Tensor:
        """(T, D) of one stream from its beginning to (T,) in [0, 1]."""
        return self._score(self.levels(features))

    def forward(self, feature: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """One window of B streams, as it is exported.

        Args:
            feature: (B, D).
            state: as `DensitySpec.states`, each (B, 1).

        Returns:
            score (B,) in [0, 1] and the next state in the same order.
        """
        level, *after = self._averaged(self._logs(feature), *state)
        return (self._score(level), *after)

    def _logs(self, features: Tensor) -> Tensor:
        return torch.log(self.distances(features) + self.floor)

    def _averaged(self, logs: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """(B,) and state to the running mean (B,) and the next state."""
        if self.spec.half_life_windows is None:
            return (logs,)
        kept = 2 ** (-1 / self.spec.half_life_windows)
        total, count = kept * state[0] + logs[:, None], kept * state[1] + 1
        return (total / count).squeeze(1), total, count

    def _score(self, levels: Tensor) -> Tensor:
        return torch.sigmoid((levels - self.centre) / self.deviation - MARGIN)


@torch.no_grad()
def fit_memory(cells: Tensor, rule: MemoryRule) -> Memory:
    """Keep what is normal.

    Args:
        cells: (n, C) of normal windows, n >= 1.
        rule: what to keep of them.

    Source: kNN on a coreset as in Roth et al. 2022 (PatchCore, arXiv:2106.08265), without its
    re-weighting; Gaussian as in Lee et al. 2018 (arXiv:1807.03888), one class, with shrinkage.
    """
    mean = cells.mean(0)
    if rule.method == "gaussian":
        transform = _whitening(cells - mean, rule.shrinkage)
        return Memory(mean, transform, torch.zeros(1, len(mean)))
    identity = torch.eye(len(mean))
    return Memory(mean, identity, _chosen(cells - mean, rule))


def _whitening(centred: Tensor, shrinkage: float) -> Tensor:
    """(C, C) that makes the covariance of (n, C) round, mixed with a round one first."""
    wide = centred.double()
    covariance = wide.T @ wide / len(wide)
    # Windows that are all alike have no spread at all; some is needed to divide by.
    size = covariance.diagonal().mean().clamp_min(1e-12)
    identity = torch.eye(len(covariance), dtype=torch.float64)
    mixed = (1 - shrinkage) * covariance + shrinkage * size * identity
    values, vectors = torch.linalg.eigh(mixed)
    transform: Tensor = (vectors / values.sqrt()).float()
    return transform


def _chosen(cells: Tensor, rule: MemoryRule) -> Tensor:
    order = torch.randperm(len(cells), generator=torch.Generator().manual_seed(rule.seed))
    if len(cells) <= rule.rows:
        return cells
    if not rule.spread:
        return cells[order[: rule.rows]]
    candidates = cells[order[:_CANDIDATES]]
    kept = [0]
    nearest = _squared(candidates, candidates[0])
    while len(kept) < rule.rows:
        kept.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, _squared(candidates, candidates[kept[-1]]))
    return candidates[kept]


def _squared(cells: Tensor, one: Tensor) -> Tensor:
    found: Tensor = (cells - one).square().sum(1)
    return found
