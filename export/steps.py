"""Heads as they are exported and verified: one window at a time, whatever is inside."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from training.density import Density
from training.head import HeadStep
from training.head_run import AnyHead

HEAD_NAME = "lap-causal"
DENSITY_NAME = "density"


@dataclass(frozen=True, slots=True)
class ExportedStep:
    """A head step, and what a manifest says of it.

    Attributes:
        module: feature (B, D) and states to score (B,), next states and explanations.
        name: architecture.
        feature_dim: D.
        half_life_windows: of its memory; None where it keeps none.
        states: shape per stream of each state tensor, by name, in the module's order.
        explains: whether it names sentences of a bank.
    """

    module: nn.Module
    name: str
    feature_dim: int
    half_life_windows: float | None
    states: dict[str, tuple[int, ...]]
    explains: bool = False


def step_of(head: AnyHead) -> ExportedStep:
    """A head one window at a time.

    Raises:
        ValueError: it sees the future, or reads text that nothing makes.
    """
    spec = head.spec
    known = (spec.feature_dim, spec.half_life_windows, spec.states)
    if isinstance(head, Density):
        return ExportedStep(head, DENSITY_NAME, *known)
    return ExportedStep(HeadStep(head), HEAD_NAME, *known, explains=head.semantic is not None)
