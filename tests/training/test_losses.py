"""Bag scores and synthetic sample loss scaling."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from training.losses import (
    bag_loss,
    ranking_loss,
    sample_weights,
    scaled_mean,
    smoothed,
    smoothness,
    top_k_bag_score,
)

bags = arrays(np.float64, (3, 7), elements=st.floats(0, 1))


@given(bags, st.integers(1, 7), st.randoms(use_true_random=False))
def test_a_bag_score_ignores_order(scores: np.ndarray, k: int, random) -> None:
    order = list(range(7))
    random.shuffle(order)
    torch.testing.assert_close(
        top_k_bag_score(torch.from_numpy(scores[:, order]), k),
        top_k_bag_score(torch.from_numpy(scores), k),
    )


@given(bags)
def test_a_bag_score_falls_from_the_highest_to_the_mean_as_k_grows(scores: np.ndarray) -> None:
    found = [top_k_bag_score(torch.from_numpy(scores), k).numpy() for k in range(1, 8)]
    np.testing.assert_array_equal(found[0], scores.max(1))
    np.testing.assert_allclose(found[-1], scores.mean(1))
    assert all((a >= b - 1e-12).all() for a, b in itertools.pairwise(found))


@given(bags, st.integers(1, 7), st.integers(0, 6))
def test_raising_an_instance_never_lowers_its_bag(scores: np.ndarray, k: int, which: int) -> None:
    raised = scores.copy()
    raised[:, which] = 1
    before = top_k_bag_score(torch.from_numpy(scores), k)
    assert (top_k_bag_score(torch.from_numpy(raised), k) >= before - 1e-12).all()


@pytest.mark.parametrize("k", [0, 8])
def test_k_outside_the_bag_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match="1 to T"):
        top_k_bag_score(torch.zeros(3, 7), k)


def synthetic_batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(5, generator=generator, dtype=torch.float64, requires_grad=True)
    inputs = torch.randn(8, 5, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 1, 0, 1, 0, 1, 0, 1], dtype=torch.float64)
    synthetic = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1], dtype=torch.bool)
    return weight, inputs, labels, synthetic


def gradient(scale: float, rows: slice) -> torch.Tensor:
    weight, inputs, labels, synthetic = synthetic_batch()
    losses = bag_loss(torch.sigmoid(inputs @ weight), labels)
    weights = sample_weights(synthetic, scale).double()
    loss = scaled_mean(losses[rows], weights[rows]) * len(losses[rows])
    (found,) = torch.autograd.grad(loss, weight)
    return found


def test_lambda_one_is_no_scaling() -> None:
    weight, inputs, labels, _ = synthetic_batch()
    plain = bag_loss(torch.sigmoid(inputs @ weight), labels).sum()
    (expected,) = torch.autograd.grad(plain, weight)
    torch.testing.assert_close(gradient(1.0, slice(None)), expected)


def test_lambda_zero_drops_the_synthetic_samples() -> None:
    torch.testing.assert_close(gradient(0.0, slice(None)), gradient(1.0, slice(0, 5)))


def test_lambda_scales_each_sample_and_not_the_batch() -> None:
    """The released code scales the whole loss: then this would be a multiple of lambda = 1."""
    half, whole = gradient(0.5, slice(None)), gradient(1.0, slice(None))
    torch.testing.assert_close(half, (whole + gradient(0.0, slice(None))) / 2)
    assert not torch.allclose(half / half.norm(), whole / whole.norm(), atol=1e-3)


def test_weights_must_match_the_losses() -> None:
    with pytest.raises(ValueError, match="one weight a loss"):
        scaled_mean(torch.zeros(3), torch.ones(2))


def test_smoothness_is_zero_for_a_steady_or_a_single_score() -> None:
    assert smoothness(torch.full((2, 5), 0.3)).tolist() == [0, 0]
    assert smoothness(torch.ones(2, 1)).tolist() == [0, 0]
    assert smoothness(torch.tensor([[0.0, 1.0, 1.0]])).tolist() == [0.5]


def test_smoothed_labels_keep_their_order() -> None:
    found = smoothed(torch.tensor([0.0, 1.0]), 0.1).tolist()
    assert found == pytest.approx([0.05, 0.95])


def test_ranking_loss_is_blind_to_a_shift_and_sees_order() -> None:
    labels = torch.tensor([0.0, 1.0, 1.0, 0.0])
    logits = torch.tensor([0.3, 0.9, 1.1, 0.8], dtype=torch.float64)
    found, moved, turned = (
        float(ranking_loss(torch.sigmoid(z), labels)) for z in (logits, logits + 2, -logits)
    )
    pairs = [(0.3, 0.9), (0.3, 1.1), (0.8, 0.9), (0.8, 1.1)]
    expected = sum(math.log1p(math.exp(normal - anomalous)) for normal, anomalous in pairs) / 4
    assert found == pytest.approx(expected)
    assert moved == pytest.approx(found)
    assert turned > found
