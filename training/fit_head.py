"""Fit the head by multiple-instance learning on spliced streams."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from training.encoder import Encoder
from training.fit_encoder import ScoredEncoder, WindowDraw, features
from training.fitting import ClipDraw, Fit
from training.head import Head, HeadState
from training.losses import (
    bag_loss,
    sample_weights,
    scaled_mean,
    smoothed,
    smoothness,
    top_k_bag_score,
)
from training.pool import Pool, augment
from training.recipe import Recipe
from training.streams import Splicer, Stream
from training.temporal import TemporalState

_INSTANCES_A_TOP = 4
"""A bag's score is the mean of its highest quarter of windows."""

_CALIBRATION_STREAMS = 64


def fit_head(
    pool: Pool,
    scored: ScoredEncoder,
    clips: Sequence[int],
    recipe: Recipe,
    seed: int,
    mates: Mapping[str, Sequence[str]],
    tick: Callable[[], None],
) -> Head:
    """Train a head for a fitted encoder, which stays as it is.

    Args:
        pool: all windows.
        scored: encoder fitted on no other clips than `clips`, whose own scores the
            head starts from.
        clips: indices of the clips that may be seen.
        recipe: what to make.
        seed: of every random choice.
        mates: normal clips of the same scene, by name.
        tick: called after every step.
    """
    part, encoder = recipe.head, scored.encoder
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    usable = WindowDraw(pool).usable(clips)
    draw = ClipDraw(pool.clips, usable, recipe.shares)
    splicer = Splicer(pool, usable, mates, part.longest)
    variants = [features(encoder, pool.maps)]
    for _ in range(part.variants - 1):
        # A stream is one camera's: its windows are changed alike.
        changed = augment(pool.maps, rng, recipe.encoder.contrast, pool.cameras)
        variants.append(features(encoder, changed))
    head = Head(part.spec(encoder.spec.feature_dim))
    head.start_from(scored.weight, scored.bias)
    streams = [splicer.draw(draw, rng) for _ in range(_CALIBRATION_STREAMS)]
    head.calibrate(_padded([variants[0][stream.rows] for stream in streams]).unsqueeze(1))
    fit = Fit(head, part.steps, (part.learning_rate, part.weight_decay, part.average))
    head.train()
    for _ in range(part.steps):
        streams = [splicer.draw(draw, rng) for _ in range(part.streams)]
        seen = [
            variants[rng.integers(len(variants))] * _member_mask(encoder, part.member_dropout, rng)
            for _ in streams
        ]
        state = _initial_state(head, [x[s.before] for x, s in zip(seen, streams, strict=True)])
        found = _padded([x[s.rows] for x, s in zip(seen, streams, strict=True)])
        logits, _ = head.run(found, state)
        fit.step(_loss(torch.sigmoid(logits), streams, pool, recipe))
        tick()
    fit.finish()
    return head


def _padded(streams: list[Tensor]) -> Tensor:
    """(B, T, D) of (T_b, D) features; the last window repeats, and no bag lies there."""
    longest = max(len(stream) for stream in streams)
    return torch.stack(
        [torch.cat([stream, stream[-1:].expand(longest - len(stream), -1)]) for stream in streams]
    )


def _initial_state(head: Head, before: list[Tensor]) -> HeadState:
    """State of each stream after the windows before its crop; zero where there are none."""
    states = []
    with torch.no_grad():
        for stream in before:
            state = HeadState.zero(head.spec, 1, stream)
            if len(stream):
                state = head.run(stream[None], state)[1]
            states.append(state.visual.tensors())
    return HeadState(TemporalState(*map(torch.cat, zip(*states, strict=True))), None)


def _member_mask(encoder: Encoder, dropout: float, rng: np.random.Generator) -> Tensor:
    """(D,) Members left out at random, never all; so that the head leans on none alone."""
    members, width = encoder.spec.members, encoder.spec.embedding
    kept = rng.random(members) >= dropout
    if not kept.any():
        kept[rng.integers(members)] = True
    return torch.from_numpy(np.repeat(kept * members / kept.sum(), width).astype(np.float32))


def _loss(scores: Tensor, streams: Sequence[Stream], pool: Pool, recipe: Recipe) -> Tensor:
    """Mean over all bags of (B, T) scores, each weighed by its place and by SSLS."""
    losses, places, synthetic = [], [], []
    for row, stream in zip(scores, streams, strict=True):
        for bag in stream.bags:
            instances = row[None, bag.first : bag.end]
            top = top_k_bag_score(instances, math.ceil(instances.shape[1] / _INSTANCES_A_TOP))
            clip = pool.clips[bag.clip]
            label = smoothed(torch.tensor([float(clip.anomalous)]), recipe.head.label_smoothing)
            losses.append(bag_loss(top, label) + recipe.head.smoothness * smoothness(instances))
            places.append(bag.weight)
            synthetic.append(clip.synthetic)
    weights = sample_weights(torch.tensor(synthetic), recipe.synthetic_weight)
    return scaled_mean(torch.cat(losses), weights * torch.tensor(places))
