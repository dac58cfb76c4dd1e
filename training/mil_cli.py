"""gvvad-train train --manifest: fit a head on features, with a bar."""

from __future__ import annotations

import argparse

from tqdm import tqdm  # type: ignore[import-untyped]

from training.head_run import HEAD_WEIGHTS
from training.mil import Places, Progress, train_head
from training.mil_data import Texts
from training.mil_recipe import load_mil_recipe

DEFAULT_HEAD = "lap-causal"


def run_head(options: argparse.Namespace) -> None:
    """Fit, and say what was chosen.

    Raises:
        TrainingError: data or recipe cannot be used.
    """
    recipe = load_mil_recipe(options.recipe or DEFAULT_HEAD)
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

        progress = Progress(
            lambda rows: tqdm(rows, desc="files", unit="video", disable=None, leave=False), show
        )
        found = train_head(places, recipe, progress)
    auc = "without validation" if found.auc is None else f"validation AUC {found.auc:.3f}"
    print(f"{recipe.name}: the head of step {found.step}, {auc}")
    print(f"weights in {options.out / HEAD_WEIGHTS}, curves in {options.out}")
