"""Fit the encoder end to end: every member to its own loss, on single windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from training.encoder import Encoder, Motion
from training.fitting import ClipDraw, Fit
from training.losses import sample_weights, scaled_mean, smoothed
from training.pool import Pool, Rows, augment
from training.recipe import Recipe

_SCORE_BATCH = 64


class MemberScores(nn.Module):
    """One linear score a member; for fitting and for the encoder's own report only."""

    def __init__(self, members: int, embedding: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(members, embedding))
        self.bias = nn.Parameter(torch.zeros(members))

    def mean_score(self) -> tuple[Tensor, Tensor]:
        """The members' mean logit as one linear score of the feature: weight (D,), bias ()."""
        return self.weight.detach().flatten() / len(self.bias), self.bias.detach().mean()

    def forward(self, embeddings: Tensor) -> Tensor:
        """(B, members, embedding) to logits (B, members)."""
        return (embeddings * self.weight).sum(2) + self.bias


class ScoredEncoder(nn.Module):
    """An encoder with its members' scores."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.scores = MemberScores(encoder.spec.members + 1, encoder.spec.embedding)

    def forward(self, seen: Motion) -> Tensor:
        logits: Tensor = self.scores(self.encoder.embeddings(seen))
        return logits


def fit_encoder(
    pool: Pool, clips: Sequence[int], recipe: Recipe, seed: int, tick: Callable[[], None]
) -> ScoredEncoder:
    """Train on windows of the given clips, half of them anomalous.

    Args:
        pool: all windows.
        clips: indices of the clips that may be seen.
        recipe: what to make.
        seed: of every random choice.
        tick: called after every step.

    Raises:
        TrainingError: the clips are all of one label.
    """
    part = recipe.encoder
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    scored = ScoredEncoder(Encoder(part.spec))
    # Channels last: convolutions this narrow run in half the time.
    scored.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    fit = Fit(scored, part.steps, (part.learning_rate, part.weight_decay, part.average))
    windows = WindowDraw(pool)
    draw = ClipDraw(pool.clips, windows.usable(clips), recipe.shares)
    scored.train()
    for _ in range(part.steps):
        rows = windows.batch(draw, part.batch, rng)
        losses = functional.binary_cross_entropy_with_logits(
            scored(augment(pool.motion_of(rows), rng)),
            smoothed(_labels(pool, rows), part.label_smoothing)[:, None].expand(
                -1, part.members + 1
            ),
            reduction="none",
        )
        fit.step(scaled_mean(losses.sum(1), _weights(pool, rows, recipe.synthetic_weight)))
        tick()
    fit.finish()
    return scored


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


def member_logits(scored: ScoredEncoder, seen: Motion) -> Tensor:
    """(N, members + 1) in bounded memory."""
    with torch.inference_mode():
        return torch.cat([scored(part) for part in _batches(seen)])


def features(encoder: Encoder, seen: Motion) -> Tensor:
    """(N, D) in bounded memory."""
    with torch.no_grad():
        return torch.cat([encoder.describe(part) for part in _batches(seen)])


def _batches(seen: Motion) -> list[Motion]:
    size = _SCORE_BATCH
    return [
        Motion(seen.maps[first : first + size], seen.statistics[first : first + size])
        for first in range(0, len(seen.maps), size)
    ]


def _labels(pool: Pool, rows: Rows) -> Tensor:
    return torch.from_numpy(pool.anomalous[rows].astype(np.float32))


def _weights(pool: Pool, rows: Rows, synthetic_weight: float) -> Tensor:
    synthetic = np.array([pool.clips[clip].synthetic for clip in pool.clip[rows]])
    return sample_weights(torch.from_numpy(synthetic), synthetic_weight)
