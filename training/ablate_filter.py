"""What each criterion of the filter is worth: alone, and left out; pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from training.ablation import REAL_ALONE, Ablation, Arm, fixed
from training.clips import TrainingError
from training.filter.findings import Findings
from training.filter.verdicts import LABELS, ByHand, Rule, counts, decide
from training.manifest import Manifest
from training.mil_recipe import MilRecipe

ALL = "all generated"
FILTER = "filter"
CHANCE = "as many by chance"

_LAMBDA = 0.5
_CHANCE_KEY = 7

Chosen = Callable[[int], frozenset[str]]
"""Ids of generated videos that train, by the seed."""


def filter_arms(recipe: MilRecipe, found: Findings) -> Ablation:
    """Each criterion by itself and left out, beside the filter, chance, and no filter at all.

    Variants choose by the filter's own rule, with other criteria; what a person decided counts
    nowhere but in the filter's own row.
    """
    plain, scaled = fixed(recipe, 1.0), fixed(recipe, _LAMBDA)
    kept = frozenset(verdict.id for verdict in found.verdicts if verdict.kept)
    arms = [
        Arm(REAL_ALONE, plain, "none"),
        Arm(ALL, scaled, "all", against=REAL_ALONE),
        Arm(FILTER, scaled, lambda seed: kept, against=ALL),
        Arm(CHANCE, scaled, _by_chance(found), against=ALL),
    ]
    names = found.rule.criteria
    for name in names:
        arms.append(Arm(f"{name} alone", scaled, _by(found, (name,)), against=CHANCE))
    for name in names if len(names) > 1 else ():
        rest = tuple(other for other in names if other != name)
        arms.append(Arm(f"without {name}", scaled, _by(found, rest), against=FILTER))
    notes = (
        f"Generated videos weigh λ {_LAMBDA:g} in every row. {_told(found)}",
        "By chance: as many of each label as the filter keeps, others for every seed. A criterion "
        "that is worth something beats chance alone and is missed where it is left out.",
    )
    return Ablation("filter", "What the filter's criteria are worth", tuple(arms), notes)


def _told(found: Findings) -> str:
    numbers = ", ".join(
        f"{kept} of {of} {label} ones" for label, (kept, of) in counts(found.verdicts).items()
    )
    return f"The filter keeps {numbers}."


def _by(found: Findings, criteria: Sequence[str]) -> Chosen:
    rule = Rule(criteria=tuple(criteria), shares=found.rule.shares, limits=found.rule.limits)
    verdicts = decide(found.videos, rule, ByHand())
    kept = frozenset(verdict.id for verdict in verdicts if verdict.kept)
    return lambda seed: kept


def _by_chance(found: Findings) -> Chosen:
    numbers = counts(found.verdicts)

    def choose(seed: int) -> frozenset[str]:
        random = np.random.default_rng((seed, _CHANCE_KEY))
        chosen: set[str] = set()
        for label in LABELS:
            names = sorted(verdict.id for verdict in found.verdicts if verdict.label == label)
            chosen |= set(random.permutation(names)[: numbers[label][0]].tolist())
        return frozenset(chosen)

    return choose


def check_known(manifests: Sequence[Manifest], found: Findings) -> None:
    """Refuse findings of other videos.

    Raises:
        TrainingError: a generated video that trains was not judged, or none of them was.
    """
    judged = {video.id for video in found.videos} | set(found.skipped)
    for manifest in manifests:
        made = [row.id for row in manifest.rows if row.synthetic]
        strange = [name for name in made if name not in judged]
        if strange or not made:
            told = f"{strange[0]!r} of it was not judged" if strange else "it has none of them"
            raise TrainingError(
                f"the verdicts are not of {manifest.path}'s generated videos: {told}; run filter "
                "on the manifest that they came from"
            )
