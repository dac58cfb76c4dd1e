"""Dropout by random bytes: as torch's, but for which numbers fall."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from training.dropout import LARGE, Dropout


@pytest.mark.parametrize("rate", [0.3, 0.7])
def test_the_share_that_falls_is_the_rate_and_the_mean_stays(rate: float) -> None:
    torch.manual_seed(0)
    found = Dropout(rate)(torch.ones(4, LARGE))
    # Four standard deviations of a share of 4 million.
    margin = 4 * (rate * (1 - rate) / found.numel()) ** 0.5
    assert (found == 0).double().mean() == pytest.approx(rate, abs=margin)
    assert found[found > 0].unique().tolist() == pytest.approx([1 / (1 - rate)], rel=1e-4)
    assert found.double().mean() == pytest.approx(1, abs=margin / (1 - rate))


def test_neighbours_fall_independently() -> None:
    torch.manual_seed(0)
    fallen = (Dropout(0.5)(torch.ones(LARGE)) == 0).double() - 0.5
    for apart in (1, 2, 64):
        assert abs(float((fallen[apart:] * fallen[:-apart]).mean())) < 4 * 0.25 / LARGE**0.5


def test_chance_follows_from_torch_s_seed() -> None:
    dropout, ones = Dropout(0.5), torch.ones(LARGE)

    def drawn(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        found: torch.Tensor = dropout(ones)
        return found

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


def test_a_gradient_passes_where_a_number_stands() -> None:
    x = torch.rand(LARGE, requires_grad=True)
    found = Dropout(0.25)(x)
    found.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, (found / x).detach(), rtol=1e-5, atol=0)


def test_small_tensors_are_torch_s_own() -> None:
    x, dropout = torch.ones(100), Dropout(0.5)
    torch.manual_seed(3)
    found = dropout(x)
    torch.manual_seed(3)
    assert torch.equal(found, functional.dropout(x, 0.5))


def test_nothing_falls_in_evaluation() -> None:
    x = torch.rand(LARGE)
    assert torch.equal(Dropout(0.5).eval()(x), x)
