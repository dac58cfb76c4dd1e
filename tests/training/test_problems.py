"""Planted anomalies: what is planted, and what the best score can reach."""

from __future__ import annotations

import pytest
import torch

from server.metrics import roc_auc
from training.problems import Bags, Planting, axis, ceiling, planted


@pytest.mark.parametrize("size", [1.0, 2.0, 3.0])
def test_the_best_score_reaches_the_ceiling(size: float) -> None:
    bags = planted(Planting(axis(0, size)), 200, 1500, torch.Generator().manual_seed(1))
    found = roc_auc(bags.truth.flatten().numpy(), bags.features[..., 0].flatten().numpy())
    # 4,500 anomalous windows: a standard error of at most .005.
    assert found == pytest.approx(ceiling(size), abs=0.015)


def test_the_ceiling_is_the_one_of_the_design() -> None:
    assert ceiling(3.0) == pytest.approx(0.983, abs=5e-4)
    assert ceiling(0.0) == 0.5


def test_truth_stands_where_the_shift_is_and_only_in_anomalous_bags() -> None:
    planting = Planting(axis(2, 100.0), windows=20, anomalous=5, synthetic=True)
    bags = planted(planting, 30, 40, torch.Generator().manual_seed(0))
    assert torch.equal(bags.features[..., 2] > 50, bags.truth)
    assert torch.equal(bags.truth.sum(1), torch.tensor([0] * 30 + [5] * 40))
    assert torch.equal(bags.labels, torch.tensor([0.0] * 30 + [1.0] * 40))
    assert bags.synthetic.all()


def test_joined_bags_keep_their_order() -> None:
    random = torch.Generator().manual_seed(0)
    parts = [planted(Planting(axis(0, 1.0)), 2, 3, random) for _ in range(3)]
    joined = Bags.join(parts)
    assert len(joined) == 15
    assert torch.equal(joined[torch.arange(5, 10)].features, parts[1].features)
