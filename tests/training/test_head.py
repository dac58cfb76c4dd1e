"""The head: against its reference, its recurrent step, causality, folding."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.training.reference_head import ReferenceHead
from training.head import Head, HeadSpec, HeadState, HeadStep, embedded, lap, rtfm, tevad
from training.temporal import TemporalState

EMBEDDED = embedded(16, half_life_windows=5.0, dropout=0.5)
CAUSAL = replace(tevad(16, 8), half_life_windows=5.0, frozen_norms=True)
SPECS = {
    "rtfm": replace(rtfm(16), hidden=(12, 6)),
    "tevad": tevad(16, 8),
    "added": tevad(16, 8, fusion="add"),
    "embedded": EMBEDDED,
    "causal": CAUSAL,
}
FP64_RELATIVE = 1e-10
"""A few thousand additions in double precision, in another order."""


def a_head(spec: HeadSpec = EMBEDDED, seed: int = 0) -> Head:
    """fp64, every weight and statistic at random, the memory's gain far from zero."""
    generator = torch.Generator().manual_seed(seed)
    head = Head(replace(spec, dropout=0.0)).double()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_(0, 0.3, generator=generator)
        for module in head.modules():
            if isinstance(module, nn.BatchNorm1d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_(generator=generator)
                module.running_var.uniform_(0.3, 2, generator=generator)
    return head.eval()


def some(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def inputs_of(spec: HeadSpec, windows: int = 7, videos: int = 3) -> tuple[Tensor, Tensor | None]:
    text = None if spec.text_dim is None else some(videos, windows, spec.text_dim, seed=2)
    return some(videos, 2, windows, spec.feature_dim), text


def reference(head: Head, *, training: bool = False) -> ReferenceHead:
    weights = {name: value.numpy().copy() for name, value in head.state_dict().items()}
    spec = head.spec
    frozen = spec.frozen_norms
    return ReferenceHead(
        weights, spec.half_life_windows, training and not frozen, spec.fusion == "add"
    )


def side_by_side(parts: tuple[Tensor, ...]) -> Tensor:
    crops = max(part.shape[1] for part in parts)
    return torch.cat([part.expand(-1, crops, -1, -1) for part in parts], 3)


def numpy(text: Tensor | None) -> np.ndarray | None:
    return None if text is None else text.numpy()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", SPECS)
def test_scores_and_features_equal_the_reference(name: str, training: bool) -> None:
    head = a_head(SPECS[name])
    visual, text = inputs_of(head.spec)
    expected = reference(head, training=training)
    head.train(training)
    with torch.no_grad():
        found = head(visual, text)
    close = {"rtol": FP64_RELATIVE, "atol": 1e-12}
    np.testing.assert_allclose(found.scores, expected.scores(visual.numpy(), numpy(text)), **close)
    features = expected.features(visual.numpy(), numpy(text))
    np.testing.assert_allclose(side_by_side(found.features), features, **close)
    after = head.state_dict()
    for running, value in expected.updated.items():
        np.testing.assert_allclose(after[running], value, **close)
    assert bool(expected.updated) == (training and not head.spec.frozen_norms)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", SPECS)
def test_every_gradient_equals_the_reference_s_finite_differences(
    name: str, training: bool
) -> None:
    head = a_head(SPECS[name])
    visual, text = inputs_of(head.spec, windows=5, videos=2)
    weight = some(2, 5, seed=9)
    expected = reference(head, training=training)
    head.train(training)
    (head(visual, text).scores * weight).sum().backward()

    def loss() -> float:
        return float((expected.scores(visual.numpy(), numpy(text)) * weight.numpy()).sum())

    random = np.random.default_rng(0)
    for key, parameter in head.named_parameters():
        assert parameter.grad is not None, key
        for _ in range(3):
            place = tuple(random.integers(parameter.shape))
            step = np.zeros(parameter.shape)
            step[place] = 1e-6
            before = expected.weights[key]
            expected.weights[key] = before + step
            above = loss()
            expected.weights[key] = before - step
            slope = (above - loss()) / 2e-6
            expected.weights[key] = before
            # Central differences of a loss of order one: 1e-16 / 1e-6, and a curvature term.
            assert float(parameter.grad[place]) == pytest.approx(slope, rel=1e-5, abs=1e-8), key


class Described(nn.Module):
    """Text that is a fixed map of the feature, to stand before a text network."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(some(8, 16, seed=3))

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        text = nn.functional.linear(feature, self.weight)
        return text, text[..., :2].argsort(-1), text[..., :2]


def stepped(head: Head, features: Tensor, state: HeadState) -> tuple[Tensor, list[Tensor]]:
    """Scores (B, T) window by window, and the state after the last."""
    step = HeadStep(head, Described() if head.text is not None else None)
    scores, now = [], list(state.tensors())
    for feature in features.unbind(1):
        score, *rest = step(feature, *now)
        now = rest[: len(now)]
        scores.append(score)
    return torch.stack(scores, 1), now


@given(seed=st.integers(0, 10_000), windows=st.integers(1, 40), spec=st.sampled_from(["e", "c"]))
@settings(max_examples=10, deadline=None)
def test_recurrent_steps_equal_the_parallel_form(seed: int, windows: int, spec: str) -> None:
    head = a_head(EMBEDDED if spec == "e" else CAUSAL, seed)
    features = some(3, windows, 16, seed=seed)
    text = Described()(features)[0] if head.text is not None else None
    zero = HeadState.zero(head.spec, 3, features)
    with torch.no_grad():
        found, after = stepped(head, features, zero)
        logits, expected = head.run(features, zero, text)
    torch.testing.assert_close(found, torch.sigmoid(logits), rtol=FP64_RELATIVE, atol=0)
    for mine, theirs in zip(after, expected.tensors(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=FP64_RELATIVE, atol=1e-12)


def test_a_stream_of_ten_thousand_windows_scores_as_its_parallel_form() -> None:
    head, features = a_head(), some(1, 10_000, 16)
    zero = HeadState.zero(head.spec, 1, features)
    with torch.no_grad():
        found, after = stepped(head, features, zero)
        parts, state = [], zero
        for part in features.split(500, 1):
            logits, state = head.run(part, state)
            parts.append(torch.sigmoid(logits))
    torch.testing.assert_close(found, torch.cat(parts, 1), rtol=FP64_RELATIVE, atol=0)
    assert [t.shape for t in after] == [t.shape for t in zero.tensors()]


@given(cut=st.integers(1, 39))
@settings(max_examples=8, deadline=None)
def test_a_stream_cut_in_two_scores_as_one_when_its_state_is_carried(cut: int) -> None:
    head, features = a_head(), some(2, 40, 16)
    with torch.no_grad():
        zero = HeadState.zero(head.spec, 2, features)
        whole, _ = head.run(features, zero)
        first, state = head.run(features[:, :cut], zero)
        rest, _ = head.run(features[:, cut:], state)
    torch.testing.assert_close(torch.cat([first, rest], 1), whole, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", SPECS)
def test_the_future_never_touches_a_causal_past_and_does_otherwise(name: str) -> None:
    head = a_head(SPECS[name])
    visual, text = inputs_of(head.spec, windows=30)
    changed = visual.clone()
    changed[:, :, 17:] += 5
    with torch.no_grad():
        before, after = head(visual, text).scores, head(changed, text).scores
    assert torch.equal(before[:, :17], after[:, :17]) == head.spec.causal
    # The fusing convolution and the widest dilated one reach five windows.
    assert not torch.allclose(before[:, 17:], after[:, 17:], rtol=1e-9)


def test_the_memory_counts_for_the_score() -> None:
    """Window 0 is out of the convolutions' reach of the last one: only memory tells."""
    head, features = a_head(), some(1, 1, 14, 16)
    changed = features.clone()
    changed[:, :, 0] += 3
    with torch.no_grad():
        last, other = head(features).scores[:, -1], head(changed).scores[:, -1]
    assert not torch.allclose(last, other, rtol=1e-6, atol=0)


def test_folding_keeps_relu_before_batch_norm() -> None:
    """With a negative gain, folding into the convolution would clip the wrong side."""
    head = a_head()
    with torch.no_grad():
        for norm in [*head.visual.dilated_norm, head.visual.fuse_norm]:
            assert isinstance(norm, nn.BatchNorm1d)
            norm.weight.copy_(-norm.weight.abs() - 0.5)
        features = some(2, 12, 16)
        found, _ = stepped(head, features, HeadState.zero(head.spec, 2, features))
        expected = head(features.unsqueeze(1)).scores
    torch.testing.assert_close(found, expected, rtol=FP64_RELATIVE, atol=0)


def test_frozen_norms_stay_as_they_are_while_training() -> None:
    head = a_head().train()
    before = {name: value.clone() for name, value in head.named_buffers()}
    head(some(4, 1, 10, 16)).scores.sum().backward()
    assert all(torch.equal(before[name], value) for name, value in head.named_buffers())
    assert head.dropout.training


def test_calibration_sets_the_mean_of_what_flows() -> None:
    head = Head(EMBEDDED).double()
    features = some(8, 1, 40, 16) * 3 + 1
    head.calibrate(features)
    norm = head.visual.dilated_norm[0]
    assert isinstance(norm, nn.BatchNorm1d)
    padded = torch.cat([features.new_zeros(8, 2, 16), features[:, 0]], 1).transpose(1, 2)
    expected = torch.relu(head.visual.dilated[0](padded)).mean((0, 2))
    torch.testing.assert_close(norm.running_mean, expected)


def test_state_has_the_declared_shapes() -> None:
    for spec in (EMBEDDED, CAUSAL):
        state = HeadState.zero(spec, 3, torch.empty(0))
        shapes = [tuple(tensor.shape) for tensor in state.tensors()]
        assert shapes == [(3, *shape) for shape in spec.states.values()]
    assert EMBEDDED.states == {
        "conv_in": (8, 16),
        "conv_out": (2, 16),
        "attn": (2, 2),
        "count": (1,),
    }
    assert "text_attn" in CAUSAL.states


def test_lap_has_as_many_weights_as_its_paper_says() -> None:
    head = Head(lap(768))
    temporal = sum(p.numel() for p in head.visual.parameters())
    assert round(temporal / 1e6, 2) == 3.32
    assert round(sum(p.numel() for p in head.parameters()) / 1e6, 2) == 7.50


def test_a_memory_starts_as_the_identity() -> None:
    network = Head(rtfm(16)).double().visual
    x = some(2, 6, 16)
    with torch.no_grad():
        for conv in (network.theta, network.g):
            conv.weight.mul_(100)
        before = network(x)
        network.phi.weight.mul_(-7)
        assert torch.equal(network(x), before)


@pytest.mark.parametrize("wrong", [0, 12, -8])
def test_a_width_that_cannot_be_split_is_refused(wrong: int) -> None:
    with pytest.raises(ValueError, match="multiple of 8"):
        rtfm(wrong)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"text": "caption"}, "does not go with text_dim"),
        ({"text_dim": 8}, "does not go with text_dim"),
        ({"half_life_windows": 5.0}, "needs frozen_norms"),
        ({"half_life_windows": 0.0, "frozen_norms": True}, "must be over 0"),
        ({"dropout": 1.0}, "must be in"),
    ],
)
def test_a_head_that_contradicts_itself_is_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(rtfm(16), **change)


def test_only_a_causal_head_can_be_stepped() -> None:
    with pytest.raises(ValueError, match="sees the future"):
        HeadStep(Head(rtfm(16)))
    with pytest.raises(ValueError, match="what makes the text"):
        HeadStep(Head(CAUSAL))


def test_a_state_is_of_its_stream_s_type() -> None:
    state = TemporalState.zero(EMBEDDED.visual_temporal, 2, torch.empty(0, dtype=torch.float64))
    assert {tensor.dtype for tensor in state.tensors()} == {torch.float64}
