"""Synthetic sample loss scaling (SSLS): what lambda is at each step, and who decides it.

Every policy tells a weight for synthetic videos and may learn from what a step
has shown. Its memory is a few numbers, which stand in a run's snapshots.

Source: GV-VAD, section II-B, and ALGORITHM.md section 2. Deviation: lambda weighs each
synthetic video's loss; the released code scales the whole batch by one number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor

Kind = Literal["fixed", "learnable", "uncertainty", "meta"]
Rise = Literal["none", "linear", "exponential", "cosine"]
Fall = Literal["none", "cosine", "steps"]

_RISE_FROM = 1e-3
_FALL_EVERY_STEPS = 200
_FALL_FACTOR = 0.1


@dataclass(frozen=True, slots=True)
class Schedule:
    """A factor r(t) on lambda.

    Attributes:
        rise: how it comes from 0.001 to 1.
        rise_share: of all steps that the rise takes.
        fall: "cosine" to 0 at the end, "steps" to a tenth every 200 steps after the rise.

    Source: the released schedules, which never ran there: the step was counted from behind
    the warm-up.
    """

    rise: Rise = "linear"
    rise_share: float = 0.1
    fall: Fall = "none"

    def __post_init__(self) -> None:
        if not 0 <= self.rise_share <= 1:
            raise ValueError(f"rise_share ({self.rise_share}) must be in [0, 1]")

    def factor(self, step: int, steps: int) -> float:
        """The factor at a step of 0 to steps - 1; in [0, 1]."""
        rising = round(self.rise_share * steps) if self.rise != "none" else 0
        if step < rising:
            return self._risen(step / rising)
        after = step - rising
        if self.fall == "cosine":
            return 0.5 * (1 + math.cos(math.pi * after / max(1, steps - 1 - rising)))
        if self.fall == "steps":
            return float(_FALL_FACTOR ** (after // _FALL_EVERY_STEPS))
        return 1.0

    def _risen(self, share: float) -> float:
        if self.rise == "exponential":
            return float(_RISE_FROM ** (1 - share))
        if self.rise == "cosine":
            share = 0.5 * (1 - math.cos(math.pi * share))
        return _RISE_FROM + (1 - _RISE_FROM) * share


@dataclass(frozen=True, slots=True)
class ScalingSpec:
    """Who decides lambda.

    Attributes:
        kind: the policy.
        value: lambda of "fixed", where "learnable" starts, and where "meta" starts.
        limit: largest lambda of "uncertainty" and "meta".
        rate: step of a learned lambda.
        schedule: multiplies it.
    """

    kind: Kind = "fixed"
    value: float = 1.0
    limit: float = 2.0
    rate: float = 0.3
    schedule: Schedule = field(default_factory=Schedule)

    def __post_init__(self) -> None:
        if not self.value >= 0:
            raise ValueError(f"value ({self.value}) must be 0 or more")
        if not self.rate > 0:
            raise ValueError(f"rate ({self.rate}) must be over 0")
        if self.kind in ("uncertainty", "meta") and not 0 < self.value < self.limit:
            raise ValueError(f"value ({self.value}) must be between 0 and limit ({self.limit})")


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a step has shown.

    Attributes:
        real: mean loss of its real videos; NaN where there were none.
        synthetic: mean loss of its synthetic ones.
        slope: d loss / d lambda through the weights, of the released learnable form.
        alignment: cosine of the score network's gradients of how held-out real videos rank,
            after the step, and of the synthetic videos' loss, before it; None where it was not
            measured.
    """

    real: float
    synthetic: float
    slope: float
    alignment: float | None = None


class Policy(Protocol):
    """Decides lambda before its schedule."""

    def value(self) -> float:
        """Lambda now."""

    def learn(self, evidence: Evidence) -> None:
        """Take in what a step has shown."""

    def state(self) -> Tensor:
        """All that it remembers, fp64."""

    def restore(self, state: Tensor) -> None:
        """Inverse of `state`."""


class Fixed:
    """Lambda as it was given; the paper's best is 0.5."""

    def __init__(self, value: float) -> None:
        self._value = value

    def value(self) -> float:
        """Always the same."""
        return self._value

    def learn(self, evidence: Evidence) -> None:
        """Nothing is learned."""

    def state(self) -> Tensor:
        """Nothing is remembered."""
        return torch.zeros(0, dtype=torch.float64)

    def restore(self, state: Tensor) -> None:
        """Nothing to restore."""


class _Descent:
    """Adam on a few numbers, in double precision."""

    def __init__(self, start: tuple[float, ...], rate: float) -> None:
        self._rate = rate
        self._taken = 0.0
        self.at = torch.tensor(start, dtype=torch.float64)
        self._mean = torch.zeros_like(self.at)
        self._square = torch.zeros_like(self.at)

    def step(self, slope: Tensor) -> None:
        """Go down a slope once."""
        self._taken += 1
        self._mean = 0.9 * self._mean + 0.1 * slope
        self._square = 0.999 * self._square + 0.001 * slope.square()
        mean = self._mean / (1 - 0.9**self._taken)
        square = self._square / (1 - 0.999**self._taken)
        self.at = self.at - self._rate * mean / (square.sqrt() + 1e-8)

    def state(self) -> Tensor:
        taken = torch.tensor([self._taken], dtype=torch.float64)
        return torch.cat([taken, self.at, self._mean, self._square])

    def restore(self, state: Tensor) -> None:
        self._taken = float(state[0])
        self.at, self._mean, self._square = (part.clone() for part in state[1:].chunk(3))


class PaperLearnable:
    """Lambda as a free parameter that descends the training loss; for comparison.

    Its slope is the synthetic videos' loss, which is never negative, so it can
    only fall, and below zero: nothing in the loss speaks for synthetic data.
    """

    def __init__(self, value: float, rate: float) -> None:
        self._descent = _Descent((value,), rate)

    def value(self) -> float:
        """May be negative."""
        return float(self._descent.at[0])

    def learn(self, evidence: Evidence) -> None:
        """Descend the training loss."""
        self._descent.step(torch.tensor([evidence.slope], dtype=torch.float64))

    def state(self) -> Tensor:
        """Of the descent."""
        return self._descent.state()

    def restore(self, state: Tensor) -> None:
        """Of the descent."""
        self._descent.restore(state)


class BoundedUncertainty:
    """lambda = exp(a - b) within [0, limit], from exp(-a) L_r + a + exp(-b) L_s + b.

    It comes to rest at L_r / L_s: synthetic videos that are easy weigh more.

    Source: Kendall et al. 2018 (arXiv:1705.07115), with one variance a source.
    """

    def __init__(self, value: float, limit: float, rate: float) -> None:
        self._limit = limit
        self._descent = _Descent((math.log(value), 0.0), rate)

    def value(self) -> float:
        """In [0, limit]."""
        real, synthetic = self._descent.at.tolist()
        return min(self._limit, math.exp(real - synthetic))

    def learn(self, evidence: Evidence) -> None:
        """Descend in both variances; a step without either source shows nothing."""
        losses = torch.tensor([evidence.real, evidence.synthetic], dtype=torch.float64)
        if torch.isfinite(losses).all():
            self._descent.step(1 - torch.exp(-self._descent.at) * losses)

    def state(self) -> Tensor:
        """Of the descent."""
        return self._descent.state()

    def restore(self, state: Tensor) -> None:
        """Of the descent."""
        self._descent.restore(state)


class Meta:
    """lambda = limit sigmoid(u); u rises while the synthetic gradient helps held-out real videos.

    u <- u + rate * lambda'(u) / max lambda' * EMA(alignment), where alignment is the cosine
    of the gradients, so that neither their size nor the learning rate matters.

    Source: proposed here (ALGORITHM.md, section 2), after Ren et al. 2018 (arXiv:1803.09050).
    """

    _KEEP = 0.9

    def __init__(self, value: float, limit: float, rate: float) -> None:
        self._limit = limit
        self._rate = rate
        self._u = math.log(value / (limit - value))
        self._average = 0.0
        self._weight = 0.0

    def value(self) -> float:
        """In (0, limit)."""
        return self._limit / (1 + math.exp(-self._u))

    def learn(self, evidence: Evidence) -> None:
        """Raise lambda iff the averaged alignment is positive."""
        if evidence.alignment is None or not math.isfinite(evidence.alignment):
            return
        self._average = self._KEEP * self._average + (1 - self._KEEP) * evidence.alignment
        self._weight = self._KEEP * self._weight + (1 - self._KEEP)
        share = self.value() / self._limit
        # 4 s(1 - s) is the slope of the sigmoid over its largest.
        self._u += self._rate * 4 * share * (1 - share) * self._average / self._weight

    def state(self) -> Tensor:
        """u, the average and its weight."""
        return torch.tensor([self._u, self._average, self._weight], dtype=torch.float64)

    def restore(self, state: Tensor) -> None:
        """Inverse of `state`."""
        self._u, self._average, self._weight = state.tolist()


def policy_of(spec: ScalingSpec) -> Policy:
    """The policy that a spec names, at its beginning."""
    match spec.kind:
        case "fixed":
            return Fixed(spec.value)
        case "learnable":
            return PaperLearnable(spec.value, spec.rate)
        case "uncertainty":
            return BoundedUncertainty(spec.value, spec.limit, spec.rate)
        case "meta":
            return Meta(spec.value, spec.limit, spec.rate)
