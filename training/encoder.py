"""The embedded encoder: 16 frames to one feature, by motion alone.

Several small convolutional nets look at maps of temporal differences and of
local optical flow. Each was fitted on draws of its own, since one alone depends
much on chance; their unit embeddings stand side by side in the feature.
Appearance is left out on purpose: with few cameras to learn from, a net that
sees it learns the cameras.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from server.contract import WINDOW_FRAMES

MAP_CHANNELS = 8
MAP_STRIDE = 4
STEPS = WINDOW_FRAMES - 1

_LUMA = (0.299, 0.587, 0.114)
_ENERGY_UNIT = 0.01
_FLOW_RIDGE = 1e-4
_FLOW_LIMIT_PIXELS = 4.0
_TAIL_SHARE = 0.005
_STEPS_MERGED = 3
_TOP_CELLS = 8


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """Size of an encoder.

    Attributes:
        members: convolutional nets.
        width: channels of a member's first layer.
        embedding: features a member gives; D = members * embedding.
        dropout: in training, on a member's pooled channels.
    """

    members: int
    width: int
    embedding: int
    dropout: float

    @property
    def feature_dim(self) -> int:
        return self.members * self.embedding


def motion(images: Tensor) -> Tensor:
    """Measure the motion in windows.

    Args:
        images: (B, 16, H, W, 3) uint8 RGB, H and W multiples of 4.

    Returns:
        (B, 15, 8, H/4, W/4) maps. Channels: mean and root mean square of the
        difference to the frame before, mean difference over 2 and over 4
        frames, flow right and down in half-size pixels, temporal and spatial
        gradient. Differences and gradients are of grey in [0, 1].
    """
    grey = luma(images)
    steps = [grey[:, lag:] - grey[:, :-lag] for lag in (1, 2, 4)]
    energies = [
        _cells(steps[0].abs()),
        _cells(steps[0] * steps[0]).sqrt(),
        _late(_cells(steps[1].abs()), 1),
        _late(_cells(steps[2].abs()), 3),
    ]
    return torch.stack([*energies, *_flow(grey)], 2)


def tail(images: Tensor) -> Tensor:
    """The one-number baseline: the 99.5th percentile of the frame difference.

    Args:
        images: (B, 16, H, W, 3) uint8 RGB.

    Returns:
        (B,) in [0, 1], over every second row and column.
    """
    grey = luma(images)
    thin = (grey[:, 1:] - grey[:, :-1])[:, :, ::2, ::2].abs().flatten(1)
    return thin.topk(max(1, round(_TAIL_SHARE * thin.shape[1])), 1).values[:, -1]


def luma(images: Tensor) -> Tensor:
    """(B, S, H, W, 3) uint8 RGB to (B, S, H, W) grey in [0, 1]."""
    # One plane at a time: a product with a (3, 1) matrix is 30 times slower in onnxruntime.
    planes = [images[..., channel].float() * (share / 255) for channel, share in enumerate(_LUMA)]
    return planes[0] + planes[1] + planes[2]


def _cells(pixels: Tensor) -> Tensor:
    return functional.avg_pool2d(pixels, MAP_STRIDE)


def _late(maps: Tensor, steps: int) -> Tensor:
    """Zeros before the first step that a longer lag has."""
    return functional.pad(maps, (0, 0, 0, 0, steps, 0))


def _flow(grey: Tensor) -> list[Tensor]:
    """Flow right, flow down, temporal and spatial gradient, each (B, 15, H/4, W/4).

    Source: Lucas and Kanade 1981, one step at half size with a ridge; flow over
    four pixels is clamped.
    """
    half = functional.avg_pool2d(functional.avg_pool2d(grey, 2), 3, 1, 1)
    middle, d_t = (half[:, 1:] + half[:, :-1]) / 2, half[:, 1:] - half[:, :-1]
    d_x = functional.pad((middle[..., 2:] - middle[..., :-2]) / 2, (1, 1))
    d_y = functional.pad((middle[..., 2:, :] - middle[..., :-2, :]) / 2, (0, 0, 1, 1))
    xx, yy, xy, xt, yt, tt = (
        functional.avg_pool2d(functional.avg_pool2d(product, 2), 3, 1, 1)
        for product in (d_x * d_x, d_y * d_y, d_x * d_y, d_x * d_t, d_y * d_t, d_t * d_t)
    )
    a, b = xx + _FLOW_RIDGE, yy + _FLOW_RIDGE
    determinant = a * b - xy * xy
    right = (xy * yt - b * xt) / determinant
    down = (xy * xt - a * yt) / determinant
    limit = _FLOW_LIMIT_PIXELS
    # The sum of squares cannot fall below zero, but its pooled mean may by rounding.
    return [
        right.clamp(-limit, limit),
        down.clamp(-limit, limit),
        tt.clamp_min(0).sqrt(),
        (xx + yy).clamp_min(0).sqrt(),
    ]


class MapMember(nn.Module):
    """Convolutions over motion maps; time is merged three steps at a time.

    Args:
        spec: widths.
    """

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        width = spec.width
        self.scale = nn.BatchNorm2d(MAP_CHANNELS * _STEPS_MERGED)
        self.layers = nn.Sequential(
            *_block(MAP_CHANNELS * _STEPS_MERGED, width, 2),
            *_block(width, width * 3 // 2, 1),
            *_block(width * 3 // 2, width * 2, 2),
        )
        self.dropout = nn.Dropout(spec.dropout)
        self.project = nn.Linear(width * 2 * 4, spec.embedding)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, 15, 8, h, w) from `scaled` to unit embeddings (B, embedding)."""
        height, width = maps.shape[-2:]
        times = STEPS // _STEPS_MERGED
        merged = maps.reshape(-1, MAP_CHANNELS * _STEPS_MERGED, height, width)
        cells = self.layers(self.scale(merged)).flatten(2)
        top = cells.topk(_TOP_CELLS, 2).values.mean(2).unflatten(0, (-1, times))
        mean = cells.mean(2).unflatten(0, (-1, times))
        change = (top[:, 1:] - top[:, :-1]).abs().mean(1)
        pooled = torch.cat([mean.mean(1), top.mean(1), top.amax(1), change], 1)
        return functional.normalize(self.project(self.dropout(pooled)), dim=1)


def _block(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]


class Encoder(nn.Module):
    """Windows to features.

    Attributes:
        feature_scale: L2 norm of every feature.
    """

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.spec = spec
        self.members = nn.ModuleList(MapMember(spec) for _ in range(spec.members))

    @property
    def feature_scale(self) -> float:
        return float(self.spec.members**0.5)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 16, H, W, 3) uint8 to (B, D) float32 of norm `feature_scale`."""
        return self.describe(motion(images))

    def describe(self, maps: Tensor) -> Tensor:
        """Features (B, D) of maps: the members' unit embeddings side by side."""
        logarithms = scaled(maps)
        return torch.cat([member(logarithms) for member in self.members], 1)


def scaled(maps: Tensor) -> Tensor:
    """Maps as members take them: energies and gradients as logarithms."""
    energy, flow, gradient = maps[:, :, :4], maps[:, :, 4:6], maps[:, :, 6:]
    return torch.cat(
        [torch.log(energy / _ENERGY_UNIT + 1), flow, torch.log(gradient / _ENERGY_UNIT + 1)], 2
    )
