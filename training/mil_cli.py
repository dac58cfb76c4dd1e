"""gvvad-train train --manifest: fit a head or a density on features, with a bar."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence

from tqdm import tqdm  # type: ignore[import-untyped]

from training.clips import TrainingError
from training.density_recipe import DensityRecipe, load_head_recipe
from training.density_run import train_density
from training.head_run import HEAD_WEIGHTS
from training.manifest import Row, load_manifest
from training.mil import Places, Progress, train_head
from training.mil_data import Texts
from training.mil_recipe import MilRecipe

DEFAULT_HEAD = "lap-causal"


def run_head(options: argparse.Namespace) -> None:
    """Fit, and say what was chosen.

    Raises:
        TrainingError: data or recipe cannot be used.
    """
    recipe = load_head_recipe(options.recipe or DEFAULT_HEAD)
    if isinstance(recipe, DensityRecipe):
        _run_density(options, recipe)
    else:
        _run_mil(options, recipe)


def _run_density(options: argparse.Namespace, recipe: DensityRecipe) -> None:
    for name in ("prompts", "bank"):
        if getattr(options, name) is not None:
            raise TrainingError(f"--{name} does not go with a density, which reads features alone")
    found = train_density(load_manifest(options.manifest), options.out, recipe, _files)
    print(f"{recipe.name}: threshold {found.threshold:.3f}, {found.threshold_rule}")
    print(f"weights in {options.out / HEAD_WEIGHTS}")


def _run_mil(options: argparse.Namespace, recipe: MilRecipe) -> None:
    places = Places(options.manifest, options.out, Texts(options.prompts, options.bank))
    with tqdm(total=recipe.steps, desc="train", unit="step", disable=None) as bar:
        latest = {"auc": "-"}

        def show(step: int, figures: dict[str, float]) -> None:
            bar.update(step + 1 - bar.n)  # a resumed run begins in the middle
            if "validation_auc" in figures:
                latest["auc"] = f"{figures['validation_auc']:.3f}"
            bar.set_postfix(
                {"loss": f"{figures['loss']:.3f}", "lambda": f"{figures['lambda']:.2f}"} | latest,
                refresh=False,
            )

        found = train_head(places, recipe, Progress(_files, show))
    auc = "without validation" if found.auc is None else f"validation AUC {found.auc:.3f}"
    print(f"{recipe.name}: the head of step {found.step}, {auc}")
    print(f"weights in {options.out / HEAD_WEIGHTS}, curves in {options.out}")


def _files(rows: Sequence[Row]) -> Iterable[Row]:
    shown: Iterable[Row] = tqdm(rows, desc="files", unit="video", disable=None, leave=False)
    return shown
