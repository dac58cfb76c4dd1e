"""Fit the encoder end to end: every member to its own draws of single windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from training.encoder import Encoder, EncoderSpec, MapMember, scaled
from training.fitting import ClipDraw, Fit
from training.losses import sample_weights, scaled_mean, smoothed
from training.pool import Pool, Rows, augment
from training.recipe import Recipe

_SCORE_BATCH = 64


class ScoredMember(nn.Module):
    """A member with a linear score; for fitting and for the encoder's own report only."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.member = MapMember(spec)
        self.score = nn.Linear(spec.embedding, 1)
        nn.init.normal_(self.score.weight)
        nn.init.zeros_(self.score.bias)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, 15, 8, h, w) maps to logits (B,)."""
        logits: Tensor = self.score(self.member(scaled(maps)))
        return logits.squeeze(1)


@dataclass(frozen=True, slots=True)
class ScoredEncoder:
    """An encoder with its members' mean logit as one linear score of the feature.

    Attributes:
        encoder: in evaluation mode.
        weight: (D,).
        bias: ().
    """

    encoder: Encoder
    weight: Tensor
    bias: Tensor

    def logits(self, features: Tensor) -> Tensor:
        """(N, D) to (N,)."""
        return features @ self.weight + self.bias


@dataclass(frozen=True, slots=True)
class Batches:
    """What members are fitted on: changed windows of drawn clips."""

    pool: Pool
    windows: WindowDraw
    draw: ClipDraw
    recipe: Recipe

    def next(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Maps (B, 15, 8, h, w), smoothed labels (B,), loss weights (B,)."""
        part = self.recipe.encoder
        rows = self.windows.batch(self.draw, part.batch, rng)
        labels = torch.from_numpy(self.pool.anomalous[rows].astype(np.float32))
        synthetic = np.array([self.pool.clips[clip].synthetic for clip in self.pool.clip[rows]])
        return (
            augment(self.pool.maps_of(rows), rng, part.contrast),
            smoothed(labels, part.label_smoothing),
            sample_weights(torch.from_numpy(synthetic), self.recipe.synthetic_weight),
        )


def fit_encoder(
    pool: Pool, clips: Sequence[int], recipe: Recipe, seed: int, tick: Callable[[], None]
) -> ScoredEncoder:
    """Train on windows of the given clips, half of them anomalous; one member after the other.

    Args:
        pool: all windows.
        clips: indices of the clips that may be seen.
        recipe: what to make.
        seed: of every random choice.
        tick: called after every step.

    Raises:
        TrainingError: the clips are all of one label.
    """
    spec = recipe.encoder.spec
    windows = WindowDraw(pool)
    draw = ClipDraw(pool.clips, windows.usable(clips), recipe.shares)
    batches = Batches(pool, windows, draw, recipe)
    fitted = [
        _fit_member(batches, np.random.default_rng([seed, number]), tick)
        for number in range(spec.members)
    ]
    encoder = Encoder(spec)
    encoder.members.load_state_dict(nn.ModuleList(one.member for one in fitted).state_dict())
    weight = torch.cat([one.score.weight.detach()[0] for one in fitted]) / spec.members
    bias = torch.stack([one.score.bias.detach()[0] for one in fitted]).mean()
    return ScoredEncoder(encoder.eval(), weight, bias)


def _fit_member(
    batches: Batches, rng: np.random.Generator, tick: Callable[[], None]
) -> ScoredMember:
    part = batches.recipe.encoder
    torch.manual_seed(int(rng.integers(2**31)))
    member = ScoredMember(part.spec)
    # Channels last: convolutions this narrow run in half the time.
    member.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    fit = Fit(member, part.steps, (part.learning_rate, part.weight_decay, part.average))
    member.train()
    for _ in range(part.steps):
        maps, labels, weights = batches.next(rng)
        losses = functional.binary_cross_entropy_with_logits(member(maps), labels, reduction="none")
        fit.step(scaled_mean(losses, weights))
        tick()
    fit.finish()
    return member


class WindowDraw:
    """Draws windows of clips: one whose truth agrees with the clip's label."""

    def __init__(self, pool: Pool) -> None:
        labels = np.array([clip.anomalous for clip in pool.clips])
        agrees = pool.anomalous == labels[pool.clip]
        self._rows = [
            np.flatnonzero((pool.clip == clip) & agrees) for clip in range(len(pool.clips))
        ]

    def usable(self, clips: Sequence[int]) -> list[int]:
        """Those that have a window to draw."""
        return [clip for clip in clips if len(self._rows[clip])]

    def batch(self, draw: ClipDraw, size: int, rng: np.random.Generator) -> Rows:
        """`size` rows, the first half anomalous."""
        pairs = [draw.draw_pair(rng) for _ in range(size // 2)]
        clips = [pair[0] for pair in pairs] + [pair[1] for pair in pairs]
        return np.array([rng.choice(self._rows[clip]) for clip in clips])


def features(encoder: Encoder, maps: Tensor) -> Tensor:
    """(N, D) in bounded memory."""
    with torch.no_grad():
        return torch.cat([encoder.describe(part) for part in torch.split(maps, _SCORE_BATCH)])
