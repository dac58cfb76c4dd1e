"""What both fits share: who is drawn, a running average of weights, the schedule."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from training.clips import Clip, TrainingError

M = TypeVar("M", bound=nn.Module)

_WARM_UP = 10
_GRADIENT_LIMIT = 5.0


@dataclass(frozen=True, slots=True)
class Shares:
    """How training clips are drawn.

    Attributes:
        same_source: share of pairs whose normal clip is of the anomalous one's
            source, where that has any.
        other_normals: share of the other normal draws that comes from datasets
            without anomalies.
    """

    same_source: float
    other_normals: float


class ClipDraw:
    """Draws training clips by label.

    A share of the pairs is of one source, where a model cannot tell the labels
    apart by knowing the camera. Otherwise clips of datasets that hold anomalies
    are drawn evenly; a share of the normal ones comes from all other footage,
    drawn evenly by source, since one long source would fill it.

    Raises:
        TrainingError: the clips are all of one label.
    """

    def __init__(self, clips: Sequence[Clip], chosen: Iterable[int], shares: Shares) -> None:
        chosen = sorted(chosen)
        self._clips = clips
        self.anomalous = [index for index in chosen if clips[index].anomalous]
        normal = [index for index in chosen if not clips[index].anomalous]
        for kind, found in (("anomalous", self.anomalous), ("normal", normal)):
            if not found:
                raise TrainingError(
                    f"no {kind} clip is left to train on among {len(chosen)} clips; "
                    "training needs both labels, in more than one source"
                )
        mixed = {clips[index].dataset for index in self.anomalous}
        self.normal = [index for index in normal if clips[index].dataset in mixed]
        self.others: dict[str, list[int]] = {}
        for index in normal:
            if clips[index].dataset not in mixed:
                self.others.setdefault(clips[index].source, []).append(index)
        self._by_source: dict[str, list[int]] = {}
        for index in normal:
            self._by_source.setdefault(clips[index].source, []).append(index)
        self._other_share = shares.other_normals if self.normal else 1.0
        self._same_source = shares.same_source

    def draw_pair(self, rng: np.random.Generator) -> tuple[int, int]:
        """An anomalous and a normal clip."""
        anomalous = self.draw_anomalous(rng)
        mates = self._by_source.get(self._clips[anomalous].source)
        if mates and rng.random() < self._same_source:
            return anomalous, int(rng.choice(mates))
        return anomalous, self.draw_normal(rng)

    def draw_anomalous(self, rng: np.random.Generator) -> int:
        return int(rng.choice(self.anomalous))

    def draw_normal(self, rng: np.random.Generator) -> int:
        if self.others and rng.random() < self._other_share:
            source = sorted(self.others)[rng.integers(len(self.others))]
            return int(rng.choice(self.others[source]))
        return int(rng.choice(self.normal))


class Fit:
    """AdamW on a one-cycle schedule, with a running average of the weights.

    Args:
        modules: what is fitted; its average is what `finish` leaves in it.
        steps: how many there will be.
        rates: peak learning rate, weight decay, and the average's keep.
    """

    def __init__(self, modules: nn.Module, steps: int, rates: tuple[float, float, float]) -> None:
        learning_rate, weight_decay, self._keep = rates
        self._modules = modules
        self._average = copy.deepcopy(modules)
        self._optimiser = torch.optim.AdamW(
            modules.parameters(), learning_rate, weight_decay=weight_decay
        )
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimiser, learning_rate, total_steps=steps + 1
        )
        self._taken = 0

    def step(self, loss: torch.Tensor) -> None:
        """Descend once and average."""
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._modules.parameters(), _GRADIENT_LIMIT)
        self._optimiser.step()
        self._schedule.step()
        self._taken += 1
        # Early weights are forgotten sooner: they are hardly trained.
        keep = min(self._keep, self._taken / (self._taken + _WARM_UP))
        pairs = zip(
            self._average.state_dict().values(), self._modules.state_dict().values(), strict=True
        )
        for averaged, current in pairs:
            if averaged.dtype.is_floating_point:
                averaged.lerp_(current, 1 - keep)
            else:
                averaged.copy_(current)

    def finish(self) -> None:
        """Put the average in place of the last weights."""
        self._modules.load_state_dict(self._average.state_dict())
        self._modules.eval()
