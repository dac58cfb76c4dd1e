"""The objective against its reference, its gradients, and what SSLS promises."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.training import reference_objective as reference
from tests.training.reference_objective import ReferenceBatch
from training.objective import LAP, RTFM, Judged, Objective, objective, selected, selection_mask
from training.released_objective import released_objective

SPEC = replace(LAP, mpl_windows=5)
LAMBDA = 0.3


def a_batch(seed: int = 0, windows: int = 9, videos: int = 6) -> Judged:
    """fp64; half of either label, one synthetic video of each; no score is tied."""
    random = torch.Generator().manual_seed(seed)
    scores = torch.rand(videos, windows, generator=random, dtype=torch.float64) * 0.9 + 0.05
    seen = torch.randn(videos, 2, windows, 3, generator=random, dtype=torch.float64)
    shared = torch.randn(videos, 1, windows, 2, generator=random, dtype=torch.float64)
    labels = (torch.arange(videos) >= videos // 2).double()
    synthetic = torch.arange(videos) % (videos // 2) == 1
    suspicion = torch.randn(videos, windows, generator=random, dtype=torch.float64)
    return Judged(scores, (seen, shared), labels, synthetic, suspicion)


def weights_of(judged: Judged, scale: float) -> Tensor:
    return torch.where(judged.synthetic, scale, 1.0).double()


def as_reference(judged: Judged, weights: Tensor, mask: Tensor) -> ReferenceBatch:
    assert judged.suspicion is not None
    features = torch.cat([part.expand(-1, 2, -1, -1) for part in judged.features], 3)
    parts = (judged.scores, features, judged.labels, judged.suspicion, weights, mask)
    return ReferenceBatch(*(part.detach().numpy().copy() for part in parts))


def part(judged: Judged, chosen: Tensor) -> Judged:
    assert judged.suspicion is not None
    scores, *others = (
        tensor[chosen]
        for tensor in (judged.scores, judged.labels, judged.synthetic, judged.suspicion)
    )
    return Judged(scores, tuple(part[chosen] for part in judged.features), *others)


def cost(judged: Judged, scale: float) -> Objective:
    return objective(SPEC, judged, weights_of(judged, scale))


def followed(judged: Judged) -> tuple[Judged, list[Tensor]]:
    """The batch with gradients to come, and the tensors that will have them."""
    leaves = [t.clone().requires_grad_() for t in (judged.scores, *judged.features)]
    return replace(judged, scores=leaves[0], features=tuple(leaves[1:])), leaves


@given(seed=st.integers(0, 1000), by_score=st.booleans())
@settings(max_examples=20, deadline=None)
def test_every_video_s_loss_and_the_total_equal_the_reference(seed: int, by_score: bool) -> None:
    judged = a_batch(seed)
    weights = weights_of(judged, LAMBDA)
    spec = replace(SPEC, select="score" if by_score else "magnitude")
    mask = selection_mask(spec, judged.scores, torch.Generator().manual_seed(seed))
    mask = mask + torch.rand(mask.shape, dtype=mask.dtype) * 1e-3  # no ties among the left out
    expected = as_reference(judged, weights, mask)
    chosen = reference.chosen(expected, spec.k, by_score=by_score)
    found = objective(spec, judged, weights, mask)
    shares = np.array([1, 1e-4, 8e-4, 8e-3, 1e-3])
    losses = reference.video_losses(expected, chosen) @ shares
    np.testing.assert_allclose(found.losses, losses, rtol=1e-12)
    total = reference.lap_total(expected, chosen, spec.mpl_windows)
    np.testing.assert_allclose(found.total, total, rtol=1e-12)


def test_the_total_s_gradients_equal_the_reference_s_finite_differences() -> None:
    judged = a_batch(3)
    weights = weights_of(judged, LAMBDA).requires_grad_()
    moved, (scores, seen, _) = followed(judged)
    objective(SPEC, moved, weights).total.backward()
    batch = as_reference(judged, weights, torch.ones_like(scores))
    chosen = reference.chosen(batch, SPEC.k, by_score=False)
    own = batch.features[..., :3]  # what the crops do not share
    checks = [(scores, batch.scores), (seen, own), (weights, batch.weights)]
    random = np.random.default_rng(0)
    for tensor, array in checks:
        assert tensor.grad is not None
        for _ in range(25):
            place = tuple(random.integers(array.shape))
            before, slopes = array[place], []
            for step in (1e-6, -1e-6):
                array[place] = before + step
                slopes.append(reference.lap_total(batch, chosen, SPEC.mpl_windows))
            array[place] = before
            slope = (slopes[0] - slopes[1]) / 2e-6
            assert float(tensor.grad[place]) == pytest.approx(slope, rel=1e-5, abs=1e-8)


def test_masked_windows_are_not_chosen() -> None:
    judged = a_batch(windows=40)
    mask = selection_mask(SPEC, judged.scores, torch.Generator().manual_seed(0))
    assert 0.6 < float((mask == 0).double().mean()) < 0.8
    assert (mask.gather(1, selected(SPEC, judged, mask)) > 0).all()


def test_lambda_1_is_no_scaling_at_all() -> None:
    judged = a_batch()
    assert torch.equal(
        cost(judged, 1.0).total, objective(SPEC, judged, torch.ones(6).double()).total
    )


@given(seed=st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_lambda_0_has_the_gradient_of_dropping_those_videos_losses(seed: int) -> None:
    judged = a_batch(seed)
    real = ~judged.synthetic
    kept = part(judged, real)
    alone, expected = followed(kept)
    dropped = cost(alone, 1.0)
    # The divisor stays the whole batch's.
    share = len(kept.labels) / len(judged.labels)
    (dropped.losses.mean() * share + (dropped.total - dropped.losses.mean())).backward()
    whole, found = followed(judged)
    cost(whole, 0.0).total.backward()
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        torch.testing.assert_close(mine.grad[real], theirs.grad, rtol=1e-12, atol=1e-15)
        assert not mine.grad[~real].any()


def test_a_video_s_loss_does_not_depend_on_its_neighbours() -> None:
    judged = a_batch()
    spec = replace(SPEC, mpl=0.0, pal=0.0)
    alone = [objective(spec, part(judged, torch.tensor([v])), torch.ones(1)) for v in range(6)]
    whole = objective(spec, judged, torch.ones(6))
    torch.testing.assert_close(torch.cat([one.losses for one in alone]), whole.losses)


@given(order=st.permutations(range(6)))
@settings(deadline=None)
def test_the_order_of_videos_changes_nothing(order: list[int]) -> None:
    judged = a_batch(5)
    torch.testing.assert_close(
        cost(part(judged, torch.tensor(order)), LAMBDA).total, cost(judged, LAMBDA).total
    )


def stepped_down(judged: Judged, *, released: bool) -> Tensor:
    """Scores after a step down the gradient of PAL alone, c being the truth."""
    scores = judged.scores.clone().requires_grad_()
    moved = replace(judged, scores=scores)
    weights = torch.ones(len(judged.labels)).double()
    for pal in (1.0, 0.0):
        spec = replace(RTFM, pal=pal)
        if released:
            total = released_objective(spec, moved, torch.ones(()).double()).total
        else:
            total = objective(spec, moved, weights).total
        (total if pal else -total).backward()
    assert scores.grad is not None
    return judged.scores - 0.01 * scores.grad


@pytest.mark.parametrize("released", [False, True])
def test_suspects_learn_to_score_high_and_hide_in_the_released_code(released: bool) -> None:
    judged = a_batch(2, windows=64)
    truth = torch.zeros_like(judged.scores)
    truth[3:, 10:14] = 1
    judged = replace(judged, suspicion=truth)
    rise = stepped_down(judged, released=released)[3:] - judged.scores[3:]
    suspect = truth[3:] > 0
    assert (rise[suspect] < 0).all() if released else (rise[suspect] > 0).all()
    assert (rise[~suspect] > 0).all() if released else (rise[~suspect] < 0).all()


@pytest.mark.parametrize("scale", [0.0, 0.5, 2.0])
def test_the_released_objective_equals_its_reference(scale: float) -> None:
    judged = a_batch(7, windows=64)
    ones = torch.ones_like(judged.scores)
    expected = as_reference(judged, torch.ones(6).double(), ones)
    chosen = reference.chosen(expected, SPEC.k, by_score=False)
    found = released_objective(SPEC, judged, torch.tensor(scale).double(), ones)
    share = float(judged.synthetic.double().mean())
    total = reference.released_total(expected, chosen, share, scale)
    np.testing.assert_allclose(found.total, total, rtol=1e-12)


def test_the_released_lambda_only_scales_the_whole_gradient() -> None:
    """Why it is nearly a no-op under Adam: real and synthetic videos keep their ratio."""
    judged = a_batch(1, windows=32)
    found = []
    for scale in (0.1, 2.0):
        scores = judged.scores.clone().requires_grad_()
        moved = replace(judged, scores=scores)
        released_objective(SPEC, moved, torch.tensor(scale).double()).total.backward()
        assert scores.grad is not None
        found.append(scores.grad / scores.grad.norm())
    torch.testing.assert_close(found[0], found[1])


def test_what_does_not_fit_is_refused() -> None:
    judged = a_batch()
    with pytest.raises(ValueError, match="need each window's suspicion"):
        objective(SPEC, replace(judged, suspicion=None), torch.ones(6))
    with pytest.raises(ValueError, match=r"k \(10\) must be at most T \(9\)"):
        objective(replace(SPEC, k=10), judged, torch.ones(6))
    with pytest.raises(ValueError, match="as many normal as anomalous"):
        released_objective(SPEC, part(judged, torch.arange(5)), torch.ones(()))
    with pytest.raises(ValueError, match="multiple of 32"):
        released_objective(SPEC, judged, torch.ones(()))
    for wrong in ({"k": 0}, {"selection_dropout": 1.0}, {"pal": -1.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            replace(SPEC, **wrong)
