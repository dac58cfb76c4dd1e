"""Small heads fitted to the bags of `problems`: for the self test and controlled experiments."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from server.metrics import roc_auc
from training.draw import Batch
from training.head import Head, HeadSpec, embedded
from training.learner import Learner, LearnerSpec
from training.objective import ObjectiveSpec
from training.problems import WIDTH, Bags
from training.scaling import ScalingSpec, Schedule

HEAD = replace(embedded(WIDTH, half_life_windows=128.0, dropout=0.5), hidden=(16,))
OBJECTIVE = ObjectiveSpec(select="score", magnitude=0.0, smooth=0.0, sparse=0.0)
AT_ONCE = Schedule("none")
_EACH = 32


@dataclass(frozen=True, slots=True)
class Fitted:
    """What a fit has left.

    Attributes:
        head: in evaluation mode.
        steps: figures of each step, by their names in `learner.FIGURES`.
    """

    head: Head
    steps: tuple[dict[str, float], ...]

    def curve(self, name: str) -> list[float]:
        """A figure at every step; NaN where a step has none."""
        return [figures.get(name, math.nan) for figures in self.steps]


def learner_spec(seed: int, scaling: ScalingSpec | None = None, steps: int = 150) -> LearnerSpec:
    """How these heads are fitted; lambda is 1 from the first step on unless said otherwise."""
    return LearnerSpec(
        steps=steps,
        learning_rate=1e-2,
        weight_decay=1e-2,
        objective=OBJECTIVE,
        scaling=scaling or ScalingSpec(schedule=AT_ONCE),
        seed=seed,
    )


def fitted(
    bags: Bags, spec: LearnerSpec, held_out: Bags | None = None, head: HeadSpec = HEAD
) -> Fitted:
    """A head fitted to bags; frozen norms stay as they begin."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        learner = Learner(Head(head), spec)
    random = torch.Generator().manual_seed(spec.seed)
    draw_held_out = None if held_out is None else (lambda: as_batch(held_out))
    steps = []
    for step in range(spec.steps):
        batch = as_batch(bags[_drawn(bags, random)])
        steps.append(learner.step(step, batch, draw_held_out))
    return Fitted(learner.head.eval(), tuple(steps))


def _drawn(bags: Bags, random: torch.Generator) -> Tensor:
    """As many indices of either label."""
    by_label = [torch.nonzero(bags.labels == label).flatten() for label in (0, 1)]
    return torch.cat(
        [members[torch.randint(len(members), (_EACH,), generator=random)] for members in by_label]
    )


def as_batch(bags: Bags) -> Batch:
    """All videos, of one view, every window scored."""
    windows = torch.arange(bags.features.shape[1]).expand(len(bags), -1)
    return Batch(bags.features.unsqueeze(1), None, windows, bags.labels, bags.synthetic)


def window_auc(head: Head, bags: Bags) -> float:
    """Area under the ROC curve over all windows."""
    with torch.no_grad():
        scores = head(bags.features.unsqueeze(1)).scores
    found = roc_auc(bags.truth.flatten().numpy(), scores.flatten().numpy())
    assert found is not None
    return found
