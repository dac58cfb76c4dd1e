"""The semantic branch: against NumPy, as ONNX, and what its bank means."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from training.head import Head, HeadSpec, HeadState, HeadStep, tevad
from training.semantic import NEAREST, BankSize, BankVectors, SemanticBranch

WIDTH = 8
SIZE = BankSize(40, 5, 6)


def vectors(seed: int = 0) -> BankVectors:
    random = torch.Generator().manual_seed(seed)
    rows = (SIZE.sentences, SIZE.anomalies, SIZE.normals)
    return BankVectors(*(torch.randn(n, WIDTH, generator=random).double() for n in rows))


def a_branch() -> SemanticBranch:
    torch.manual_seed(1)
    branch = SemanticBranch(WIDTH, SIZE).double()
    branch.fill(vectors())
    branch.fit_centre(torch.randn(50, WIDTH).double() + 1)
    nn.init.normal_(branch.norm.weight)
    nn.init.normal_(branch.norm.bias)
    return branch


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def reference(branch: SemanticBranch, feature: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Text and suspicion of each window, from the raw vectors and the formulas alone."""
    given = vectors()
    e, m, n = (unit(part.numpy()) for part in (given.sentences, given.anomalies, given.normals))
    centre = e.mean(0)
    temperature = 0.01 + 0.19 / (1 + np.exp(-float(branch.heat.detach())))
    gain, shift = (p.detach().numpy() for p in (branch.norm.weight, branch.norm.bias))
    texts, doubts = [], []
    for row in feature:
        v = unit(row - branch.mean_feature.numpy())
        likeness = unit(e - centre) @ v
        best = np.argsort(-likeness)[:NEAREST]
        a = np.exp(likeness[best] / temperature)
        z = unit((a / a.sum()) @ e[best])
        texts.append(gain * (z - z.mean()) / np.sqrt(z.var() + 1e-5) + shift)
        doubts.append((unit(m - centre) @ v).max() - (unit(n - centre) @ v).max())
    return np.array(texts), np.array(doubts)


def test_text_and_suspicion_equal_the_reference() -> None:
    branch, feature = a_branch(), torch.randn(20, WIDTH).double()
    texts, doubts = reference(branch, feature.numpy())
    np.testing.assert_allclose(branch(feature)[0].detach(), texts, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(branch.suspicion(feature), doubts, rtol=1e-10, atol=1e-12)


def test_gradients_of_temperature_and_gain_equal_finite_differences() -> None:
    branch, feature = a_branch(), torch.randn(6, WIDTH).double()
    weight = torch.randn(6, WIDTH).double()
    (branch(feature)[0] * weight).sum().backward()
    for parameter in (branch.heat, branch.norm.weight):
        assert parameter.grad is not None
        flat, slopes = parameter.data.view(-1), []
        for step in (1e-6, -1e-6):
            flat[0] += step
            slopes.append((reference(branch, feature.numpy())[0] * weight.numpy()).sum())
            flat[0] -= step
        slope = (slopes[0] - slopes[1]) / 2e-6
        assert float(parameter.grad.view(-1)[0]) == pytest.approx(slope, rel=1e-5, abs=1e-8)


def test_the_nearest_sentence_comes_first_and_weights_sum_to_one() -> None:
    branch = a_branch()
    wanted = torch.tensor([3, 17, 39])
    feature = branch.mean_feature + branch.centred[wanted]
    _, index, weight = branch(feature)
    assert torch.equal(index[:, 0], wanted)
    torch.testing.assert_close(weight.sum(1), torch.ones(3).double())
    assert (weight.diff(dim=1) <= 0).all()


def test_a_window_like_an_anomaly_s_prompt_is_suspect() -> None:
    branch = a_branch()
    anomalous, normal = (
        branch.suspicion(branch.mean_feature + prompts)
        for prompts in (branch.anomalies, branch.normals)
    )
    assert float(anomalous.min()) > 0 > float(normal.max())


@pytest.mark.parametrize("heat", [-1e9, 1e9])
def test_the_temperature_stays_within_its_bounds(heat: float) -> None:
    branch = a_branch()
    assert float(branch.temperature.detach()) == pytest.approx(0.05)
    branch.heat.data.fill_(heat)
    assert 0.01 <= float(branch.temperature.detach()) <= 0.2


def bank_spec() -> HeadSpec:
    base = replace(tevad(WIDTH, WIDTH), text="clip_bank", bank=SIZE, hidden=(6,), dropout=0.0)
    return replace(base, half_life_windows=5.0, frozen_norms=True)


def a_head() -> Head:
    torch.manual_seed(2)
    head = Head(bank_spec()).double().eval()
    assert head.semantic is not None
    head.semantic.fill(vectors())
    return head


def test_a_head_on_a_bank_steps_as_its_parallel_form_and_explains() -> None:
    head, features = a_head(), torch.randn(2, 12, WIDTH).double()
    state = HeadState.zero(head.spec, 2, features)
    step, now = HeadStep(head), list(state.tensors())
    with torch.no_grad():
        logits, _ = head.run(features, state)
        whole = head(features.unsqueeze(1)).scores
        for t, feature in enumerate(features.unbind(1)):
            score, *rest = step(feature, *now)
            now, (index, weight) = rest[: len(now)], rest[len(now) :]
            torch.testing.assert_close(score, torch.sigmoid(logits[:, t]), rtol=1e-10, atol=0)
            assert head.semantic is not None
            assert torch.equal(index, head.semantic(feature)[1])
            assert weight.shape == (2, NEAREST)
    torch.testing.assert_close(whole, torch.sigmoid(logits), rtol=1e-10, atol=0)


def test_every_sentence_counts_for_the_score() -> None:
    head, features = a_head(), torch.randn(1, 1, 6, WIDTH).double()
    assert head.semantic is not None
    with torch.no_grad():
        before = head(features).scores
        head.semantic.fill(vectors(seed=9))
        assert not torch.allclose(head(features).scores, before)


@pytest.mark.filterwarnings("ignore")
def test_the_branch_runs_in_onnxruntime_for_any_batch(tmp_path: Path) -> None:
    branch = a_branch().float().eval()
    batch = {0: torch.export.Dim("batch")}
    torch.onnx.export(
        branch,
        (torch.randn(2, WIDTH),),
        tmp_path / "branch.onnx",
        input_names=["feature"],
        output_names=["text", "index", "weight"],
        dynamic_shapes=(batch,),
        opset_version=18,
        dynamo=True,
        verbose=False,
    )
    session = ort.InferenceSession(tmp_path / "branch.onnx", providers=["CPUExecutionProvider"])
    for count in (1, 5):
        feature = torch.randn(count, WIDTH)
        found = session.run(None, {"feature": feature.numpy()})
        with torch.no_grad():
            expected: tuple[Tensor, ...] = branch(feature)
        for mine, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bank": None}, "does not go with bank"),
        ({"text": "caption"}, "does not go with bank"),
        ({"text_dim": 16}, "text_dim must be feature_dim"),
    ],
)
def test_a_bank_that_does_not_fit_its_head_is_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(bank_spec(), **change)


@pytest.mark.parametrize("wrong", [(15, 1, 1), (16, 0, 1), (16, 1, 0)])
def test_a_bank_that_is_too_small_is_refused(wrong: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"at least 16|needs prompts"):
        BankSize(*wrong)
