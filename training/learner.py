"""One step of fitting a head, and what it has shown.

A step's chance (dropout, which windows may be selected) follows from the seed
and the step, so that a resumed run repeats what an uninterrupted one does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from training.draw import Batch
from training.head import Head
from training.losses import ranking_loss
from training.objective import (
    Judged,
    Objective,
    ObjectiveSpec,
    objective,
    selected,
    selection_mask,
)
from training.released_objective import released_objective
from training.scaling import Evidence, ScalingSpec, policy_of

FIGURES = (
    "loss",
    "lambda",
    "loss_real",
    "loss_synthetic",
    "gradient_cosine",
    "gradient_agreement",
    "alignment",
    "term_mil",
    "term_magnitude",
    "term_smooth",
    "term_sparse",
    "term_pal",
    "term_mpl",
)

Suspicion = Callable[[Batch], Tensor]
"""(B, L) likeness of every window of a batch to prompts of anomalies, without gradient."""

_GENERATOR_STRIDE = 1_000_003


@dataclass(frozen=True, slots=True)
class LearnerSpec:
    """How a head is fitted.

    Attributes:
        steps: how many there will be.
        learning_rate: of Adam.
        weight_decay: coupled, as the papers' Adam has it.
        objective: what to descend.
        scaling: who decides lambda.
        released: the released code's objective, mistakes included.
        held_out_every: steps between two looks at held-out videos, for a meta lambda.
        seed: of every chance.
    """

    steps: int
    learning_rate: float = 1e-3
    weight_decay: float = 5e-3
    objective: ObjectiveSpec = field(default_factory=ObjectiveSpec)
    scaling: ScalingSpec = field(default_factory=ScalingSpec)
    released: bool = False
    held_out_every: int = 1
    seed: int = 0


class Learner:
    """Fits a head, step by step.

    Args:
        head: to fit.
        spec: how.
        suspicion: for MPL and PAL.
    """

    def __init__(self, head: Head, spec: LearnerSpec, suspicion: Suspicion | None = None) -> None:
        self.head = head
        self.policy = policy_of(spec.scaling)
        self._spec = spec
        self._suspicion = suspicion
        self._optimiser = torch.optim.Adam(
            head.parameters(), spec.learning_rate, weight_decay=spec.weight_decay
        )

    def step(
        self, step: int, batch: Batch, held_out: Callable[[], Batch] | None = None
    ) -> dict[str, float]:
        """Descend once.

        Args:
            step: 0 to steps - 1.
            batch: to learn from.
            held_out: draws real videos of either label, not learned from, for a meta lambda.

        Returns:
            Some of FIGURES, by name.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._spec.seed * _GENERATOR_STRIDE + step)
            return self._step(step, batch, held_out)

    def _step(
        self, step: int, batch: Batch, held_out: Callable[[], Batch] | None
    ) -> dict[str, float]:
        spec = self._spec
        factor = spec.scaling.schedule.factor(step, spec.steps)
        scale = torch.tensor(self.policy.value(), requires_grad=True)
        self.head.train()
        judged = judge(self.head, batch, self._suspicion)
        found = self._cost(judged, scale * factor)
        # Of the score network alone: everything before it is far more, and costs a whole pass.
        real, synthetic = (self._gradient(found, judged.synthetic == of) for of in (False, True))
        self._optimiser.zero_grad()
        found.total.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        alignment = None
        if held_out is not None and synthetic is not None and not step % spec.held_out_every:
            alignment = cosine(self._held_out_gradient(held_out()), synthetic)
        slope = 0.0 if scale.grad is None else float(scale.grad)
        by_source = [_mean(found.losses, judged.synthetic == of) for of in (False, True)]
        self.policy.learn(Evidence(by_source[0], by_source[1], slope, alignment))
        figures = {
            "loss": float(found.total.detach()),
            "lambda": float(scale.detach()) * factor,
            "loss_real": by_source[0],
            "loss_synthetic": by_source[1],
        }
        if real is not None and synthetic is not None:
            figures["gradient_cosine"] = cosine(real, synthetic)
            figures["gradient_agreement"] = float((real * synthetic > 0).double().mean())
        if alignment is not None:
            figures["alignment"] = alignment
        return figures | {f"term_{name}": float(value) for name, value in found.terms.items()}

    def _cost(self, judged: Judged, scale: Tensor) -> Objective:
        spec = self._spec.objective
        mask = selection_mask(spec, judged.scores, torch.default_generator)
        if self._spec.released:
            return released_objective(spec, judged, scale, mask)
        weights = torch.where(judged.synthetic, scale, torch.ones(()))
        return objective(spec, judged, weights, mask)

    def _gradient(self, found: Objective, of: Tensor) -> Tensor | None:
        """Flat gradient of some videos' losses in the score network; None without any."""
        if not of.any() or of.all() or self._spec.released:
            return None
        loss = found.losses[of].sum() / len(of)
        return _flat(torch.autograd.grad(loss, self._score_weights(), retain_graph=True))

    def _held_out_gradient(self, batch: Batch) -> Tensor:
        self.head.eval()
        judged = judge(self.head, batch, None)
        chosen = selected(self._spec.objective, judged, None)
        # Cross entropy would not do: what real and synthetic videos share in it, how high and how
        # wide scores are, outweighs which of them are higher.
        loss = ranking_loss(judged.scores.gather(1, chosen).mean(1), judged.labels)
        return _flat(torch.autograd.grad(loss, self._score_weights()))

    def _score_weights(self) -> list[Tensor]:
        direct = self.head.direct
        return [*self.head.score.parameters(), *(direct.parameters() if direct else ())]

    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, by name."""
        tensors = {f"head.{name}": value for name, value in self.head.state_dict().items()}
        for name, parameter in self.head.named_parameters():
            for key, value in self._optimiser.state[parameter].items():
                tensors[f"adam.{key}.{name}"] = value
        return tensors | {"policy": self.policy.state()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Inverse of `state`."""
        of_head = {k[5:]: v for k, v in tensors.items() if k.startswith("head.")}
        self.head.load_state_dict(of_head)
        for name, parameter in self.head.named_parameters():
            keys = ("step", "exp_avg", "exp_avg_sq")
            known = {key: tensors.get(f"adam.{key}.{name}") for key in keys}
            self._optimiser.state[parameter] = {
                key: value.clone() for key, value in known.items() if value is not None
            }
        self.policy.restore(tensors["policy"])


def judge(head: Head, batch: Batch, suspicion: Suspicion | None) -> Judged:
    """Score a batch, and keep the windows that the loss sees."""
    output = head(batch.visual, batch.text)
    scores, features = output.scores, output.features
    doubts = None if suspicion is None else suspicion(batch)
    if not _all_in_order(batch.scored, scores.shape[1]):
        scores = scores.gather(1, batch.scored)
        videos = torch.arange(len(batch))[:, None]
        features = tuple(part[videos, :, batch.scored].transpose(1, 2) for part in features)
        doubts = None if doubts is None else doubts.gather(1, batch.scored)
    return Judged(scores, features, batch.labels, batch.synthetic, doubts)


def _all_in_order(scored: Tensor, windows: int) -> bool:
    return scored.shape[1] == windows and bool((scored == torch.arange(windows)).all())


def cosine(first: Tensor, second: Tensor) -> float:
    """Of two flat gradients; 0 where one vanishes."""
    return float(functional.cosine_similarity(first, second, 0))


def _flat(gradients: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([gradient.flatten() for gradient in gradients])


def _mean(losses: Tensor, of: Tensor) -> float:
    return float(losses.detach()[of].mean()) if of.any() else math.nan
