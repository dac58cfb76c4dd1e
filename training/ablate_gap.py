"""Whether better synthetic videos need no loss scaling: the best lambda over controlled gaps.

Few real videos stand beside many synthetic ones, which differ by a shift of all their
windows along an axis of their own, by their anomalies showing in another direction,
or by both. A probe measures the gap; lambda is chosen on one draw of real
videos and judged on another.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from training.cells import Tick
from training.fitted_bags import AT_ONCE, fitted, learner_spec, window_auc
from training.probe import probe_auc
from training.problems import Bags, Planting, axis, planted
from training.recipe import Part
from training.scaling import ScalingSpec
from training.spread import Spread

SCALES = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0)
STEPS = 150
FEW_REAL, GENERATED = 20, 100
"""Videos of either label to learn from."""

_SHIFT = 2.5
_JUDGED = 150
_DEGREES_PER_SHIFT = 22.5


@dataclass(frozen=True, slots=True)
class Gap:
    """How synthetic videos differ from real ones.

    Attributes:
        displaced: all their windows, in standard deviations of a window.
        turned_degrees: the direction in which an anomaly shows.
    """

    displaced: float
    turned_degrees: float


ALONG = tuple(Gap(shift, _DEGREES_PER_SHIFT * shift) for shift in (0.0, 1.0, 2.0, 4.0))
"""Both at once: right angles at the far end."""

DISPLACED, TURNED = Gap(4.0, 0.0), Gap(0.0, 45.0)
GAPS = (*ALONG, DISPLACED, TURNED)


class GapResult(Part):
    """What every lambda came to over a gap.

    Attributes:
        probe_auc: of a probe between real and synthetic windows.
        validation: AUC over windows of real videos, one a lambda of the cell.
        test: the same on other ones.
    """

    probe_auc: float
    validation: tuple[float, ...]
    test: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class GapCell:
    """A gap under a seed, over all lambdas; 0 is tried once, since no gap matters to it."""

    gap: Gap
    seed: int
    steps_each: int = STEPS

    @property
    def key(self) -> str:
        """Hash of all that decides the outcome."""
        sizes = (_SHIFT, FEW_REAL, GENERATED, _JUDGED, SCALES)
        content = ["gap-1", asdict(self.gap), self.seed, self.steps_each, sizes]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:24]

    @property
    def scales(self) -> tuple[float, ...]:
        """Lambdas that are tried."""
        return SCALES if self.gap == ALONG[0] else SCALES[1:]

    @property
    def steps(self) -> int:
        """Of all fits."""
        return self.steps_each * len(self.scales)

    def run(self, folder: Path, tick: Tick) -> GapResult:
        """Fit and judge; nothing is left in the folder."""
        random = torch.Generator().manual_seed(self.seed)
        truth = Planting(axis(0, _SHIFT))
        real = planted(truth, FEW_REAL, FEW_REAL, random)
        validation, test = (planted(truth, _JUDGED, _JUDGED, random) for _ in range(2))
        made = _made(self.gap, random)
        found = []
        for scale in self.scales:
            spec = learner_spec(self.seed, ScalingSpec(value=scale, schedule=AT_ONCE))
            head = fitted(Bags.join([real, made]), replace(spec, steps=self.steps_each)).head
            found.append((window_auc(head, validation), window_auc(head, test)))
            tick(self.steps_each)
        return GapResult(
            probe_auc=probe_auc(validation.features, made.features),
            validation=tuple(one for one, _ in found),
            test=tuple(two for _, two in found),
        )


def _made(gap: Gap, random: torch.Generator) -> Bags:
    angle = math.radians(gap.turned_degrees)
    shown = axis(0, _SHIFT * math.cos(angle)) + axis(2, _SHIFT * math.sin(angle))
    bags = planted(Planting(shown, synthetic=True), GENERATED, GENERATED, random)
    return replace(bags, features=bags.features + axis(1, gap.displaced))


@dataclass(frozen=True, slots=True)
class GapFigures:
    """A gap's figures over seeds.

    Attributes:
        gap: it.
        probe: AUC of the probe.
        test: AUC of each lambda.
        scale: the lambda of the highest mean on validation videos.
        scales: the best of each seed, rising.
        over_unscaled: what `scale` gains over lambda 1 on test videos; 0 where it is 1.
    """

    gap: Gap
    probe: Spread
    test: tuple[Spread, ...]
    scale: float
    scales: tuple[float, ...]
    over_unscaled: Spread

    def to_json(self) -> dict[str, object]:
        return asdict(self) | {"lambdas": SCALES}


def gap_figures(results: Mapping[Gap, Sequence[GapResult]]) -> dict[Gap, GapFigures]:
    """Pool the seeds of every gap.

    Args:
        results: of each of GAPS, seed by seed.
    """
    return {gap: _pooled(gap, found, results[ALONG[0]]) for gap, found in results.items()}


def _pooled(gap: Gap, results: Sequence[GapResult], near: Sequence[GapResult]) -> GapFigures:
    alone = len(SCALES) - len(results[0].test)
    pairs = list(zip(near, results, strict=True))
    validation = np.array([(*first.validation[:alone], *own.validation) for first, own in pairs])
    test = np.array([(*first.test[:alone], *own.test) for first, own in pairs])
    best, unscaled = int(validation.mean(0).argmax()), SCALES.index(1.0)
    return GapFigures(
        gap,
        Spread.of([result.probe_auc for result in results]),
        tuple(Spread.of(aucs.tolist()) for aucs in test.T),
        SCALES[best],
        tuple(sorted(SCALES[int(place)] for place in validation.argmax(1))),
        Spread.of_pairs(test[:, best].tolist(), test[:, unscaled].tolist()),
    )


def conclusions(found: Mapping[Gap, GapFigures]) -> list[str]:
    """What the figures allow to say, by rule.

    Args:
        found: figures of every one of GAPS.
    """
    along = [found[gap] for gap in ALONG]
    return [
        _no_gap(along[0]),
        _along(along),
        _alone(found[DISPLACED], "every synthetic window is displaced, but anomalies look alike"),
        _alone(found[TURNED], "synthetic anomalies show in another direction, all else alike"),
        _probe(found[DISPLACED], found[TURNED]),
    ]


def _no_gap(near: GapFigures) -> str:
    told = f"Without a gap (probe {near.probe.mean:.3f}) the best λ is {near.scale:g}"
    gain = _gain(near)
    if near.scale >= 1:
        return f"{told}: synthetic videos that a probe can't tell apart need no scaling down."
    if near.over_unscaled.is_beyond_noise and near.over_unscaled.mean > 0:
        return f"{told}, {gain}: scaling helps even there."
    return (
        f"{told}, {gain}: that scaling is not needed there can't be claimed (the best λ would "
        "have to be 1 or more), nor that it is."
    )


def _along(along: Sequence[GapFigures]) -> str:
    scales = ", ".join(f"{one.scale:g}" for one in along)
    first, last = along[0], along[-1]
    told = f"As the probe rises from {first.probe.mean:.3f} to {last.probe.mean:.3f} the best λ is "
    told += f"{scales}"
    if last.scale >= first.scale:
        return f"{told}: it does not fall with the gap."
    rises = any(b.scale > a.scale for a, b in pairwise(along))
    way = "it falls, though not at every step" if rises else "it never rises"
    most = max(along, key=lambda one: one.over_unscaled.mean)
    return (
        f"{told}: {way}. Scaling pays most at probe {most.probe.mean:.3f}: λ {most.scale:g}, "
        f"{_gain(most)}."
    )


def _alone(one: GapFigures, what: str) -> str:
    told = f"Where {what} (probe {one.probe.mean:.3f}), the best λ is {one.scale:g}"
    if one.scale == 1:
        return f"{told}."
    return f"{told}, {_gain(one)}."


def _probe(displaced: GapFigures, turned: GapFigures) -> str:
    needs_little = not (displaced.scale < 1 and displaced.over_unscaled.is_beyond_noise)
    needs_much = turned.scale < 1 and turned.over_unscaled.is_beyond_noise
    parts = []
    if needs_much and turned.probe.mean < displaced.probe.mean:
        parts.append(
            f"a probe of {turned.probe.mean:.3f} can hide a gap that calls for λ {turned.scale:g}"
        )
    if needs_little:
        parts.append(
            f"a probe of {displaced.probe.mean:.3f} can stand for one where scaling down is not "
            "shown to help"
        )
    if not parts:
        return "So far the probe's AUC and the need for scaling agree."
    return (
        f"So the probe's AUC alone doesn't say whether scaling is needed: {'; and '.join(parts)}. "
        "What counts is whether anomalies look alike, which a probe of all windows hardly sees."
    )


def _gain(one: GapFigures) -> str:
    gain = one.over_unscaled
    noise = "beyond" if gain.is_beyond_noise else "within"
    told = f"{100 * gain.mean:+.2f} ± {100 * gain.deviation:.2f} points of AUC"
    return f"{told} against λ 1, {noise} noise"
