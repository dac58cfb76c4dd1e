"""An encoder that nothing was trained for: how each cell of a window moves, in what shape.

Its feature is a grid of cells side by side, each a unit vector whose last number is a
constant before it is scaled: so every feature has one norm, and how much moves is still
told. A density judges it cell by cell.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.encoder import MAP_STRIDE, luma, motion

DIRECTIONS = 8
EDGES = 6
CHANNELS = 2 * (DIRECTIONS + 1 + EDGES) + 1

_FLOW = slice(4, 6)
_DIRECTION_UNIT = 0.1
_SPEED_UNIT = 0.3
_EDGE_UNIT = 0.01
_SHARE = 0.2
"""Of a cell's motion beside the constant: small, so that distances are nearly those of motion."""

_LEVEL_UNIT = 0.1
_BUSIEST = 5


@dataclass(frozen=True, slots=True)
class CellSpec:
    """The grid.

    Attributes:
        height: of the image, pixels.
        width: the same.
        cell: side of a cell, pixels.
        stride: between two cells; smaller than the side where they overlap.
    """

    height: int
    width: int
    cell: int = 32
    stride: int = 16

    def __post_init__(self) -> None:
        for name in ("height", "width", "cell", "stride"):
            side = getattr(self, name)
            if side < MAP_STRIDE or side % MAP_STRIDE:
                raise ValueError(f"{name} ({side}) must be a multiple of {MAP_STRIDE}, over 0")
        if self.cell > min(self.height, self.width):
            raise ValueError(
                f"cell ({self.cell}) must fit into the image ({self.height}x{self.width})"
            )

    @property
    def cells(self) -> int:
        """P, rows times columns."""
        rows, columns = (
            (side - self.cell) // self.stride + 1 for side in (self.height, self.width)
        )
        return rows * columns

    @property
    def feature_dim(self) -> int:
        """D."""
        return self.cells * CHANNELS

    @property
    def feature_scale(self) -> float:
        """L2 norm of every feature."""
        return math.sqrt(self.cells)


class CellEncoder(nn.Module):
    """Windows to grids of motion.

    Source: histograms of oriented flow beside those of the edges of what moves, as in Dalal
    et al. 2006. Deviation: directions are soft, edges are those of the difference between two
    frames, and every channel is a mean and a maximum over time.
    """

    directions: Tensor
    edges: Tensor

    def __init__(self, spec: CellSpec) -> None:
        super().__init__()
        self.spec = spec
        self.register_buffer("directions", _axes(DIRECTIONS, 2 * math.pi))
        self.register_buffer("edges", _axes(EDGES, math.pi))
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """(B, 16, H, W, 3) uint8 to (B, D) float32 of norm `feature_scale`."""
        ways, speeds = self._flow(motion(images)[:, :, _FLOW])
        shapes = self._edges(luma(images))
        moves = torch.cat(
            [
                _over_time(ways) / _DIRECTION_UNIT,
                _over_time(speeds).sqrt() / _SPEED_UNIT,
                _over_time(shapes) / _EDGE_UNIT,
            ],
            1,
        )
        cells = torch.log1p(moves).flatten(2).transpose(1, 2) * (_SHARE / math.sqrt(CHANNELS - 1))
        whole = functional.pad(cells, (0, 1), value=1.0)
        return functional.normalize(whole, dim=2).flatten(1)

    def _flow(self, flow: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, 2, H/4, W/4) to (B, T, 8, rows, columns) speed by direction, and its square."""
        single = flow.flatten(0, 1)
        along = functional.conv2d(single, self.directions).clamp_min(0)
        squares = (single * single).sum(1, keepdim=True)
        # Squared cosines of eight directions sum to the same wherever the flow points.
        ways = along * along / squares.sqrt().clamp_min(1e-6)
        pooled = self._pooled(torch.cat([ways, squares], 1), MAP_STRIDE)
        found = pooled.view(*flow.shape[:2], *pooled.shape[1:])
        return found[:, :, :-1], found[:, :, -1:]

    def _edges(self, grey: Tensor) -> Tensor:
        """(B, 16, H, W) to (B, 8, 6, rows, columns): edges of every second frame difference."""
        change = (grey[:, 1:] - grey[:, :-1])[:, ::2]
        right = functional.pad((change[..., 2:] - change[..., :-2]) / 2, (1, 1))
        down = functional.pad((change[..., 2:, :] - change[..., :-2, :]) / 2, (0, 0, 1, 1))
        slope = torch.stack([right, down], 2).flatten(0, 1)
        along = functional.conv2d(slope, self.edges).abs()
        squares = (slope * slope).sum(1, keepdim=True)
        shapes = along * along * along / squares.clamp_min(1e-12)
        pooled = self._pooled(shapes, 1)
        return pooled.view(*change.shape[:2], *pooled.shape[1:])

    def _pooled(self, maps: Tensor, pixels: int) -> Tensor:
        """Means over cells of maps of so many pixels a point."""
        return functional.avg_pool2d(maps, self.spec.cell // pixels, self.spec.stride // pixels)


def _axes(count: int, turn: float) -> Tensor:
    """(count, 2, 1, 1) Unit vectors that share out a turn, as a convolution."""
    angles = turn / count * torch.arange(count)
    return torch.stack([angles.cos(), angles.sin()], 1)[:, :, None, None]


def _over_time(maps: Tensor) -> Tensor:
    """(B, T, C, ...) to (B, 2C, ...)."""
    return torch.cat([maps.mean(1), maps.amax(1)], 1)


class MotionLevel(nn.Module):
    """How much moves in the busiest cells: the score of a bundle whose head is yet to be fitted."""

    def __init__(self, spec: CellSpec) -> None:
        super().__init__()
        self.spec = spec
        self.eval()

    def forward(self, feature: Tensor) -> tuple[Tensor]:
        """(B, D) to a score (B,) in [0, 1)."""
        cells = feature.reshape(-1, self.spec.cells, CHANNELS)
        level = cells[:, :, :-1].square().sum(2).sqrt() / cells[:, :, -1].clamp_min(1e-3)
        busiest = level.topk(min(_BUSIEST, self.spec.cells), 1).values.mean(1)
        return (busiest / (busiest + _LEVEL_UNIT),)
