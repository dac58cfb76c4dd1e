"""How well a linear probe tells real windows from synthetic ones: the domain gap as a figure."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from server.metrics import roc_auc

_RIDGE = 1e-3
_ITERATIONS = 100


def probe_auc(real: Tensor, synthetic: Tensor) -> float:
    """AUC of a logistic regression, fitted on every other video and judged on the rest.

    Args:
        real: (V, T, D) windows of two or more real videos.
        synthetic: (W, T, D) windows of two or more synthetic ones.

    Returns:
        In [0, 1]; about 0.5 where they cannot be told apart.
    """
    windows, labels = _labelled(real[::2], synthetic[::2])
    mean, deviation = windows.mean(0), windows.std(0).clamp(min=1e-9)
    weight = _fitted((windows - mean) / deviation, labels)
    windows, labels = _labelled(real[1::2], synthetic[1::2])
    found = roc_auc(labels.bool().numpy(), ((windows - mean) / deviation @ weight).numpy())
    assert found is not None
    return found


def _labelled(real: Tensor, synthetic: Tensor) -> tuple[Tensor, Tensor]:
    parts = [part.flatten(0, 1).double() for part in (real, synthetic)]
    labels = [torch.full((len(part),), float(place)) for place, part in enumerate(parts)]
    return torch.cat(parts), torch.cat(labels).double()


def _fitted(windows: Tensor, labels: Tensor) -> Tensor:
    """(D,) Weights of the least cross entropy, both sources counting alike."""
    made = labels.mean()
    balance = torch.where(labels == 1, 0.5 / made, 0.5 / (1 - made))
    weight = torch.zeros(windows.shape[1] + 1, dtype=windows.dtype, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight], max_iter=_ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        logits = windows @ weight[:-1] + weight[-1]
        told = functional.binary_cross_entropy_with_logits(logits, labels, balance)
        cost = told + _RIDGE * weight[:-1].square().sum()
        cost.backward()  # type: ignore[no-untyped-call]
        return cost

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    return weight.detach()[:-1]
