"""Why a learnable lambda loses to a fixed one: lambda and gradients of every policy, step by step.

Three problems whose synthetic videos are worth something, nothing, or less than
nothing. Every policy is given the same real videos; meta sets a third of them aside
to ask them.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean

import numpy as np
import numpy.typing as npt
import torch

from training.cells import Tick
from training.fitted_bags import AT_ONCE, fitted, learner_spec, window_auc
from training.problems import Bags, Planting, axis, planted
from training.recipe import Part
from training.scaling import ScalingSpec
from training.spread import Spread

CLEAN, SPURIOUS, SWAPPED = "clean", "spurious axis", "swapped labels"
PROBLEMS = {
    CLEAN: "synthetic videos are as real ones",
    SPURIOUS: "synthetic anomalies show on another axis, twice as strongly",
    SWAPPED: "synthetic videos are as real ones, but wear the other label",
}
ALONE, HALF, LEARNABLE = "real alone (λ 0)", "fixed 0.5", "learnable"
POLICIES = {
    ALONE: ScalingSpec(value=0.0, schedule=AT_ONCE),
    HALF: ScalingSpec(value=0.5, schedule=AT_ONCE),
    "fixed 1": ScalingSpec(value=1.0, schedule=AT_ONCE),
    # One more parameter of the head's own Adam, from 1, as the released code has it.
    LEARNABLE: ScalingSpec("learnable", rate=1e-2, schedule=AT_ONCE),
    "uncertainty": ScalingSpec("uncertainty", rate=0.05, schedule=AT_ONCE),
    "meta": ScalingSpec("meta", schedule=AT_ONCE),
}

STEPS = 200
REAL, SYNTHETIC, ASIDE = 40, 100, 13
"""Videos of either label: to learn from, generated, and of the real ones what meta asks."""

_SHIFT = 2.5
_TEST = 150

Curves = npt.NDArray[np.float64]


class PolicyResult(Part):
    """What a policy came to on a problem.

    Attributes:
        auc: over the windows of other real videos.
        scale: lambda at every step.
        cosine: of the gradients of real and synthetic videos; None where a step lacked either.
        agreement: share of the score network's weights that both would move the same way.
    """

    auc: float
    scale: tuple[float, ...]
    cosine: tuple[float | None, ...]
    agreement: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class PolicyCell:
    """A policy on a problem, under a seed."""

    problem: str
    policy: str
    seed: int
    steps: int = STEPS

    @property
    def key(self) -> str:
        """Hash of all that decides the outcome."""
        content = [
            "learnable-1",
            self.problem,
            asdict(POLICIES[self.policy]),
            self.seed,
            self.steps,
            (_SHIFT, REAL, SYNTHETIC, _TEST, ASIDE),
        ]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:24]

    def run(self, folder: Path, tick: Tick) -> PolicyResult:
        """Fit and judge; nothing is left in the folder."""
        real, made, test = _videos(self.problem, self.seed)
        scaling = POLICIES[self.policy]
        held_out = None
        if scaling.kind == "meta":
            aside = torch.arange(len(real)) % REAL < ASIDE
            real, held_out = real[~aside], real[aside]
        spec = learner_spec(self.seed, scaling, self.steps)
        found = fitted(Bags.join([real, made]), spec, held_out)
        tick(self.steps)
        return PolicyResult(
            auc=window_auc(found.head, test),
            scale=tuple(found.curve("lambda")),
            cosine=_known(found.curve("gradient_cosine")),
            agreement=_known(found.curve("gradient_agreement")),
        )


def _videos(problem: str, seed: int) -> tuple[Bags, Bags, Bags]:
    """Real and synthetic videos to learn from, and real ones to judge on."""
    random = torch.Generator().manual_seed(seed)
    truth = axis(0, _SHIFT)
    real = planted(Planting(truth), REAL, REAL, random)
    shown = axis(1, 2 * _SHIFT) if problem == SPURIOUS else truth
    made = planted(Planting(shown, synthetic=True), SYNTHETIC, SYNTHETIC, random)
    if problem == SWAPPED:
        made = replace(made, labels=1 - made.labels)
    return real, made, planted(Planting(truth), _TEST, _TEST, random)


def _known(curve: Sequence[float]) -> tuple[float | None, ...]:
    return tuple(None if math.isnan(value) else value for value in curve)


@dataclass(frozen=True, slots=True)
class PolicyFigures:
    """A policy on a problem, over seeds.

    Attributes:
        problem: one of PROBLEMS.
        policy: one of POLICIES.
        auc: over the windows of other real videos.
        over_alone: what it gains over real videos alone, seed by seed.
        over_half: what it gains over a fixed 0.5.
        last: lambda of each seed at the last step.
        lowest: lambda at any step of any seed.
        cosines: of both gradients, each seed's mean over all but the first quarter of the steps:
            at the outset any two gradients raise and lower the same scores.
        agreement: of both gradients' signs, likewise.
        scales: (seeds, steps) lambda.
        cosine_curves: (seeds, steps), NaN where a step lacked a source.
    """

    problem: str
    policy: str
    auc: Spread
    over_alone: Spread
    over_half: Spread
    last: tuple[float, ...]
    lowest: float
    cosines: tuple[float, ...]
    agreement: Spread
    scales: Curves
    cosine_curves: Curves

    def to_json(self) -> dict[str, object]:
        """For programs; curves as their mean over seeds."""
        content = asdict(self)
        content["scales"] = self.scales.mean(0).tolist()
        del content["cosine_curves"]
        return content


Results = Mapping[tuple[str, str], Sequence[PolicyResult]]
"""Of a problem and a policy, seed by seed."""


def policy_figures(results: Results) -> list[PolicyFigures]:
    """Pool the seeds of every policy on every problem."""
    return [_pooled(results, problem, policy) for problem, policy in results]


def _pooled(results: Results, problem: str, policy: str) -> PolicyFigures:
    found = results[problem, policy]

    def gain(over: str) -> Spread:
        others = results[problem, over]
        return Spread.of_pairs([r.auc for r in found], [r.auc for r in others])

    scales = np.array([result.scale for result in found])
    cosines = np.array([result.cosine for result in found], np.float64)
    agreements = np.array([result.agreement for result in found], np.float64)
    first = scales.shape[1] // 4
    return PolicyFigures(
        problem,
        policy,
        Spread.of([result.auc for result in found]),
        gain(ALONE),
        gain(HALF),
        tuple(scales[:, -1].tolist()),
        float(scales.min()),
        tuple(np.nanmean(cosines[:, first:], 1).tolist()),
        Spread.of(np.nanmean(agreements[:, first:], 1).tolist()),
        scales,
        cosines,
    )


def conclusions(found: Sequence[PolicyFigures]) -> list[str]:
    """What the figures allow to say, by rule."""
    by_name = {(one.problem, one.policy): one for one in found}
    learned = [name for name, spec in POLICIES.items() if spec.kind != "fixed"]
    return [
        *(_tells_apart(name, *(by_name[p, name] for p in PROBLEMS)) for name in learned),
        _below_zero([by_name[problem, LEARNABLE] for problem in PROBLEMS]),
        _gradients([by_name[problem, HALF] for problem in PROBLEMS]),
        *(_against_half(name, [by_name[p, name] for p in PROBLEMS]) for name in learned),
    ]


def _tells_apart(
    name: str, clean: PolicyFigures, spurious: PolicyFigures, swapped: PolicyFigures
) -> str:
    ends = ", ".join(f"{fmean(one.last):.2f} ({one.problem})" for one in (clean, spurious, swapped))
    told = f"**{name}**: λ ends at {ends}"
    apart = Spread.of_pairs(clean.last, swapped.last)
    if max(fmean(one.last) for one in (clean, spurious, swapped)) <= 0:
        return f"{told}: it takes all weight from synthetic videos, whether they help or mislead."
    if not apart.is_beyond_noise:
        return f"{told}: it gives synthetic videos that help no more weight than mislabelled ones."
    if apart.mean > 0:
        return f"{told}: it gives synthetic videos that help more weight than mislabelled ones."
    return f"{told}: it gives mislabelled synthetic videos more weight than ones that help."


def _below_zero(found: Sequence[PolicyFigures]) -> str:
    rises = sum(float((np.diff(one.scales, axis=1) > 1e-9).sum()) for one in found)
    steps = sum(one.scales[:, 1:].size for one in found)
    lowest = min(one.lowest for one in found)
    told = (
        f"The paper's learnable λ descends the training loss, whose slope in λ is the synthetic "
        f"videos' own loss: it rose in {rises:.0f} of {steps} steps"
    )
    if lowest < 0:
        return (
            f"{told}, and fell to {lowest:.2f}; below 0 training raises the loss of "
            "synthetic videos, useful or not."
        )
    return f"{told}, and fell to {lowest:.2f}."


def _gradients(found: Sequence[PolicyFigures]) -> str:
    clean, *misled = found
    parts = [f"{Spread.of(one.cosines)} ({one.problem})" for one in found]
    told = (
        f"Cosine of the gradients of real and synthetic videos at {HALF}, after the first quarter "
        f"of training: {', '.join(parts)}."
    )
    lower = [Spread.of_pairs(clean.cosines, one.cosines) for one in misled]
    if all(one.is_beyond_noise and one.mean > 0 for one in lower):
        return (
            f"{told} It is lower where synthetic videos mislead, beyond noise: the gradients hold "
            "what the training loss, and so the paper's learnable λ, can't know."
        )
    return f"{told} It doesn't tell synthetic videos that mislead from ones that help."


def _against_half(name: str, found: Sequence[PolicyFigures]) -> str:
    parts = []
    for one in found:
        gain = one.over_half
        noise = "" if gain.is_beyond_noise else ", within noise"
        parts.append(f"{100 * gain.mean:+.1f} ± {100 * gain.deviation:.1f} ({one.problem}{noise})")
    return f"**{name}** against {HALF}, points of AUC: {', '.join(parts)}."
