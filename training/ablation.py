"""Which variants of a run are compared, and which videos each of them sees; pure.

An arm is a variant. All arms of a seed are judged on the same videos, choose
their checkpoint on the same ones, and draw by the same chance, so that two arms
may be compared seed by seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from training.manifest import Manifest, Row, split_rows
from training.mil_recipe import MilRecipe, ScalingPart

Synthetic = Literal["none", "all", "kept"]

SHARES = (0.25, 0.5, 0.75, 1.0)
REAL_ALONE = "real alone"

_SCALE_KEY = 5
_TABLE_3 = {0.0: None, 0.1: 88.7, 0.25: 88.9, 0.5: 89.3, 1.0: 89.0, 2.0: 88.6}
_TABLE_1 = {"rtfm": (87.1, 87.3), "tevad": (87.6, 88.1), "lap": (88.9, 89.3)}


@dataclass(frozen=True, slots=True)
class Arm:
    """A variant of a run.

    Attributes:
        name: as it stands in the table.
        recipe: what is made; its seed is set by the cell.
        synthetic: which generated videos train; or what tells their ids by the seed.
        share: of the real training videos, in (0, 1].
        paper: its figure in the paper, AUC in %; None where it gives none.
        against: name of the arm that it is compared with.
    """

    name: str
    recipe: MilRecipe
    synthetic: Synthetic | Callable[[int], frozenset[str]]
    share: float = 1.0
    paper: float | None = None
    against: str | None = None


@dataclass(frozen=True, slots=True)
class Ablation:
    """A table of arms.

    Attributes:
        name: of its files.
        title: of its report.
        arms: in the table's order.
        notes: sentences that a reader must know.
    """

    name: str
    title: str
    arms: tuple[Arm, ...]
    notes: tuple[str, ...] = ()


def table2(recipe: MilRecipe, *, filtered: bool) -> Ablation:
    """Generation, filtering and SSLS; without `filtered` the filter's rows are left out."""
    plain, scaled = fixed(recipe, 1.0), fixed(recipe, 0.5)
    arms = [
        Arm(REAL_ALONE, plain, "none", paper=88.7),
        Arm("generation", plain, "all", paper=88.9, against=REAL_ALONE),
        Arm("generation, filter", plain, "kept", paper=89.0, against=REAL_ALONE),
        Arm("generation, SSLS", scaled, "all", paper=89.0, against=REAL_ALONE),
        Arm("generation, filter, SSLS", scaled, "kept", paper=89.3, against=REAL_ALONE),
    ]
    chosen = tuple(arm for arm in arms if filtered or arm.synthetic != "kept")
    notes = ["SSLS weighs each synthetic video by 0.5; without it they weigh as real ones do."]
    if not filtered:
        notes.append("Rows with the filter are left out, as was asked for.")
    return Ablation("table2", "Generation, filtering, SSLS", chosen, tuple(notes))


def table3(recipe: MilRecipe, *, filtered: bool) -> Ablation:
    """Lambda: fixed values, and those who decide it themselves."""
    synthetic: Synthetic = "kept" if filtered else "all"
    unscaled = "λ 1 (no SSLS)"

    def arm(name: str, scaling: ScalingPart, paper: float | None = None) -> Arm:
        chosen = recipe.model_copy(update={"scaling": scaling})
        against = None if name == unscaled else unscaled
        return Arm(name, chosen, synthetic, paper=paper, against=against)

    schedule = recipe.scaling.schedule
    arms = [
        arm(unscaled if value == 1 else f"λ {value:g}", fixed(recipe, value).scaling, paper)
        for value, paper in _TABLE_3.items()
    ]
    # The paper's lambda is one more parameter of the same Adam, from 1.
    learnable = ScalingPart(kind="learnable", rate=recipe.learning_rate, schedule=schedule)
    arms += [
        arm("learnable, as in the paper", learnable, 89.2),
        arm("bounded uncertainty", ScalingPart(kind="uncertainty", rate=0.05, schedule=schedule)),
        arm("meta", ScalingPart(kind="meta", schedule=schedule)),
        Arm(REAL_ALONE, fixed(recipe, 1.0), "none", against=unscaled),
    ]
    notes = (
        "λ weighs each synthetic video's loss. "
        + ("Synthetic videos that the filter kept train." if filtered else _UNFILTERED),
        "At λ 0 they still fill their part of every batch, unlike in the row of real ones alone.",
        f"Meta sets {100 * recipe.held_out_share:g} % of the real training videos aside to ask "
        "them; the others train on these as well.",
    )
    return Ablation("table3", "The weight λ of synthetic videos", tuple(arms), notes)


_UNFILTERED = "All synthetic videos train, whatever a filter may have said of them."


def fig5(recipe: MilRecipe, *, filtered: bool) -> Ablation:
    """Ever more real videos: alone, beside synthetic ones, beside chosen ones of half weight."""
    last: Synthetic = "kept" if filtered else "all"
    called = "kept synthetic, λ 0.5" if filtered else "synthetic, λ 0.5"
    papers = {(0.25, "none"): 86.6, (0.25, "all"): 87.5, (1.0, "none"): 88.7}
    arms = []
    for share in SHARES:
        told = f"{100 * share:.0f} %"
        alone = f"{told} {REAL_ALONE}"
        plain = fixed(recipe, 1.0)
        arms += [
            Arm(alone, plain, "none", share, papers.get((share, "none"))),
            Arm(f"{told} + synthetic", plain, "all", share, papers.get((share, "all")), alone),
            Arm(
                f"{told} + {called}",
                fixed(recipe, 0.5),
                last,
                share,
                89.3 if share == 1 and filtered else None,
                alone,
            ),
        ]
    notes = [
        "The percentage is that of the real training videos, whole groups, labels in proportion; "
        "more holds all of less. Each row is compared with the same real videos alone. Of the "
        "paper's figure those points are given that its text tells.",
        *([] if filtered else [_UNFILTERED]),
    ]
    return Ablation("fig5", "How many real videos there are", tuple(arms), tuple(notes))


def bases(recipes: Sequence[tuple[str, MilRecipe]], *, filtered: bool, made: bool) -> Ablation:
    """Recipes side by side, each alone and, where there are any, with synthetic videos.

    Args:
        recipes: their names and what they are.
        filtered: whether only kept synthetic videos train.
        made: whether there are synthetic videos.
    """
    arms = []
    for name, recipe in recipes:
        alone = f"{name}, {REAL_ALONE}"
        papers = _TABLE_1.get(name, (None, None))
        arms.append(Arm(alone, fixed(recipe, 1.0), "none", paper=papers[0]))
        if made:
            synthetic: Synthetic = "kept" if filtered else "all"
            both = f"{name} + synthetic, λ {_told(recipe.scaling)}"
            arms.append(Arm(both, recipe, synthetic, paper=papers[1], against=alone))
    notes = () if filtered or not made else (_UNFILTERED,)
    return Ablation("bases", "Bases side by side", tuple(arms), notes)


def _told(scaling: ScalingPart) -> str:
    return f"{scaling.value:g}" if scaling.kind == "fixed" else scaling.kind


def fixed(recipe: MilRecipe, value: float) -> MilRecipe:
    """The recipe with that lambda, under its own schedule."""
    scaling = ScalingPart(kind="fixed", value=value, schedule=recipe.scaling.schedule)
    return recipe.model_copy(update={"scaling": scaling})


def says_kept(manifest: Manifest) -> bool:
    """Whether a filter has judged its synthetic videos."""
    return any(row.synthetic and row.kept is not None for row in manifest.rows)


def arm_rows(manifest: Manifest, arm: Arm, seed: int) -> tuple[Row, ...]:
    """The rows that an arm trains on, chooses by and is judged on, marked so.

    Validation videos are dealt before anything is left out, so that they are those
    of every other arm.

    Raises:
        TrainingError: see `split_rows`.
    """
    rows = [
        row.model_copy(update={"kept": None}) if row.synthetic else row for row in manifest.rows
    ]
    training, validation = split_rows(rows, arm.recipe.validation_share, seed)
    real = [row for row in training if not row.synthetic]
    groups = set(beginning(real, arm.share, seed))
    split = {row.id: "train" for row in real if row.group in groups}
    made = _synthetic_ids(manifest, arm, seed)
    split |= {row.id: "train" for row in training if row.synthetic and row.id in made}
    split |= {row.id: "validation" for row in validation}
    split |= {row.id: "test" for row in rows if row.split == "test" and not row.synthetic}
    return tuple(row.model_copy(update={"split": split[row.id]}) for row in rows if row.id in split)


def _synthetic_ids(manifest: Manifest, arm: Arm, seed: int) -> frozenset[str]:
    if callable(arm.synthetic):
        return arm.synthetic(seed)
    made = [row for row in manifest.rows if row.synthetic and arm.synthetic != "none"]
    return frozenset(row.id for row in made if arm.synthetic == "all" or row.kept is not False)


def beginning(rows: Sequence[Row], share: float, seed: int) -> list[str]:
    """Groups with that share of the videos, or just over; a smaller share's are among them.

    Labels keep their proportion as far as whole groups allow: in any beginning of the
    order they are off by no more than the most one-sided group is.

    Args:
        rows: to choose from.
        share: of them, in (0, 1].
        seed: of the order.
    """
    names = sorted({row.group for row in rows})
    place = {name: index for index, name in enumerate(names)}
    sizes, anomalous = np.zeros(len(names)), np.zeros(len(names))
    for row in rows:
        sizes[place[row.group]] += 1
        anomalous[place[row.group]] += row.label == "anomalous"
    surplus = anomalous - sizes * anomalous.sum() / max(1, len(rows))
    most = np.abs(surplus).max(initial=0) + 1e-9
    left = np.random.default_rng((seed, _SCALE_KEY)).permutation(len(names))
    chosen: list[str] = []
    videos = balance = 0.0
    while videos < share * len(rows) - 1e-9:
        # One always fits: the surpluses that are left add up to the opposite of the balance.
        at = int((np.abs(balance + surplus[left]) <= most).argmax())
        group = left[at]
        left = np.delete(left, at)
        balance, videos = balance + surplus[group], videos + sizes[group]
        chosen.append(names[group])
    return chosen
