"""The head: parallel form, recurrent step, folding, causality."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from training.head import CausalHead, HeadSpec, HeadState, HeadStep

SPEC = HeadSpec(feature_dim=16, half_life_windows=5.0, dropout=0.5)


def a_head(seed: int = 0) -> CausalHead:
    """fp64, every weight and statistic at random, the memory's gain far from zero."""
    generator = torch.Generator().manual_seed(seed)
    head = CausalHead(SPEC).double()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_(0, 0.5, generator=generator)
        for module in head.modules():
            if isinstance(module, nn.BatchNorm1d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_(generator=generator)
                module.running_var.uniform_(0.3, 2, generator=generator)
    return head.eval()


def some_features(batch: int, windows: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, windows, 16, generator=generator, dtype=torch.float64)


def recurrent(head: CausalHead, features: Tensor, state: HeadState) -> tuple[Tensor, HeadState]:
    step = HeadStep(head)
    scores = []
    now = (state.conv_in, state.conv_out, state.attn, state.count)
    for feature in features.unbind(1):
        score, *after = step(feature, *now)
        now = (after[0], after[1], after[2], after[3])
        scores.append(score)
    return torch.stack(scores, 1), HeadState(*now)


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float(((found - expected).abs() / expected.abs().clamp_min(1e-300)).max())


@given(seed=st.integers(0, 10_000), windows=st.integers(1, 60))
@settings(max_examples=10, deadline=None)
def test_recurrent_steps_equal_the_parallel_form(seed: int, windows: int) -> None:
    head, features = a_head(seed), some_features(3, windows, seed)
    with torch.no_grad():
        found, after = recurrent(head, features, HeadState.zero(SPEC, 3, torch.float64))
        logits, expected_after = head.run(features)
    assert relative_error(found, torch.sigmoid(logits)) < 1e-10
    for name in SPEC.states:
        torch.testing.assert_close(
            getattr(after, name), getattr(expected_after, name), rtol=1e-10, atol=1e-12
        )


@given(cut=st.integers(1, 39))
@settings(max_examples=8, deadline=None)
def test_a_stream_cut_in_two_scores_as_one_when_its_state_is_carried(cut: int) -> None:
    head, features = a_head(), some_features(2, 40)
    with torch.no_grad():
        whole = head(features)
        first, state = head.run(features[:, :cut])
        rest = head(features[:, cut:], state)
    torch.testing.assert_close(torch.cat([first, rest], 1), whole, rtol=1e-10, atol=1e-12)


def test_the_future_never_touches_the_past() -> None:
    head, features = a_head(), some_features(2, 30)
    changed = features.clone()
    changed[:, 17:] += 100
    with torch.no_grad():
        before, after = head(features), head(changed)
    assert torch.equal(before[:, :17], after[:, :17])
    assert not torch.equal(before[:, 17:], after[:, 17:])


def test_the_memory_counts_for_the_score() -> None:
    """Otherwise the parity above would say nothing about attention."""
    head, features = a_head(), some_features(1, 30)
    changed = features.clone()
    changed[:, 0] += 3
    with torch.no_grad():
        last, other = head(features)[:, -1], head(changed)[:, -1]
    assert not torch.allclose(last, other, rtol=1e-6, atol=0)


def test_folding_keeps_relu_before_batch_norm() -> None:
    """With a negative gain, folding into the convolution would clip the wrong side."""
    head = a_head()
    with torch.no_grad():
        for norm in [*head.dilated_norm, head.fuse_norm]:
            assert isinstance(norm, nn.BatchNorm1d)
            norm.weight.copy_(-norm.weight.abs() - 0.5)
        features = some_features(2, 12)
        found, _ = recurrent(head, features, HeadState.zero(SPEC, 2, torch.float64))
        expected = torch.sigmoid(head(features))
    assert relative_error(found, expected) < 1e-10


def test_batch_norm_stays_frozen_while_training() -> None:
    head = a_head().train()
    before = {name: value.clone() for name, value in head.named_buffers()}
    head(some_features(4, 10)).sum().backward()
    assert all(torch.equal(before[name], value) for name, value in head.named_buffers())
    assert head.dropout.training


def test_calibration_sets_the_mean_of_what_flows() -> None:
    head = CausalHead(SPEC).double()
    features = some_features(8, 40) * 3 + 1
    head.calibrate(features)
    norm = head.dilated_norm[0]
    assert isinstance(norm, nn.BatchNorm1d)
    padded = torch.cat([features.new_zeros(8, 2, 16), features], 1).transpose(1, 2)
    expected = torch.relu(head.dilated[0](padded)).mean((0, 2))
    torch.testing.assert_close(norm.running_mean, expected)


def test_state_has_the_declared_shapes() -> None:
    _, state = a_head().run(some_features(3, 2))
    for name, shape in SPEC.states.items():
        assert getattr(state, name).shape == (3, *shape)
    assert SPEC.states == {"conv_in": (8, 16), "conv_out": (2, 16), "attn": (2, 2), "count": (1,)}


@pytest.mark.parametrize("wrong", [0, 12, -8])
def test_a_width_that_cannot_be_split_is_refused(wrong: int) -> None:
    with pytest.raises(ValueError, match="multiple of 8"):
        HeadSpec(wrong, 128.0, 0.5)
