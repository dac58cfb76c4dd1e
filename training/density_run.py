"""Fit a density to the normal videos of a manifest, and leave a run as any head does."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from training.bags import Bag, Contents, feed_digest, open_bags
from training.clips import TrainingError
from training.density import Density, DensitySpec, fit_memory
from training.density_recipe import DensityRecipe
from training.head_run import HeadRun, save_density_run
from training.manifest import Manifest, Row, split_normal_rows
from training.mil_data import whole

Bar = Callable[[Sequence[Row]], Iterable[Row]]


def train_density(
    manifest: Manifest, folder: Path, recipe: DensityRecipe, progress: Bar = iter
) -> HeadRun:
    """Fit, calibrate on held-back videos, and write the run.

    Labels of anomalous videos teach nothing here: only normal rows are opened.

    Args:
        manifest: which videos there are.
        folder: of the run; made if need be.
        recipe: what to make.
        progress: wraps the rows whose files are checked.

    Raises:
        TrainingError: rows or files that cannot be used, or too few of them.
    """
    fitted, held_back = split_normal_rows(manifest.rows, recipe.validation_share, recipe.seed)
    bags = open_bags(manifest, [*fitted, *held_back], Contents(), progress)
    density = _fitted(bags[: len(fitted)], recipe)
    judged = bags[len(fitted) :]
    _calibrate(density, judged)
    scores = torch.cat([density_scores(density, bag) for bag in judged]).double()
    share = recipe.false_positive_rate
    run = HeadRun(
        head=density,
        name=recipe.name,
        encoder=bags[0].row.encoder,
        bank=None,
        fingerprint=_fingerprint(bags, recipe),
        clips=tuple(sorted({bag.row.video_sha256 for bag in bags if bag.row.video_sha256})),
        code_version=version("gvvad"),
        seed=recipe.seed,
        auc=None,
        threshold=float(scores.quantile(1 - share)),
        threshold_rule=f"reached by {100 * share:g} % of {len(scores)} windows of {len(judged)} "
        "normal videos that were held back, which also set the score",
        recipe=recipe.model_dump(),
    )
    folder.mkdir(parents=True, exist_ok=True)
    save_density_run(folder, run)
    return run


def density_scores(density: Density, bag: Bag) -> Tensor:
    """(n,) Scores of all windows of a video in order, mean over crops.

    Raises:
        TrainingError: its features are of another width.
    """
    found, expected = bag.features.shape[2], density.spec.feature_dim
    if found != expected:
        raise TrainingError(
            f"features of {bag.row.id!r} are {found} wide, the density was fitted to {expected}; "
            "extract them with the encoder that it was fitted with"
        )
    with torch.no_grad():
        return torch.stack([density.scores(view) for view in whole(bag)[0][0]]).mean(0)


def _fitted(bags: list[Bag], recipe: DensityRecipe) -> Density:
    windows = torch.cat([whole(bag)[0][0].flatten(0, 1) for bag in bags])
    count, width = windows.shape
    if count < recipe.neighbours or recipe.memory < recipe.neighbours:
        raise TrainingError(
            f"{count} windows of {len(bags)} normal videos and a memory of {recipe.memory} cannot "
            f"hold k ({recipe.k}) neighbours; add normal videos or lower k in the recipe"
        )
    if width % recipe.cells:
        raise TrainingError(
            f"features are {width} wide, which cells ({recipe.cells}) does not divide; set cells "
            "to the encoder's number of cells, or to 1"
        )
    memory = fit_memory(windows.reshape(-1, width // recipe.cells), recipe.rule)
    spec = DensitySpec(
        width,
        recipe.cells,
        recipe.top,
        len(memory.rows),
        recipe.neighbours,
        recipe.half_life_windows,
    )
    density = Density(spec)
    density.remember(memory)
    return density


def _calibrate(density: Density, bags: list[Bag]) -> None:
    count = sum(bag.windows for bag in bags)
    if count < 2:
        raise TrainingError(
            f"{count} window of {len(bags)} held-back normal videos cannot say what is usual; "
            "2 or more are needed: add normal videos or raise validation_share"
        )
    density.calibrate([view for bag in bags for view in whole(bag)[0][0]])


def _fingerprint(bags: Sequence[Bag], recipe: DensityRecipe) -> str:
    """Of all that decides a run: which videos, of which features, under which recipe."""
    digest = hashlib.sha256(recipe.model_dump_json(exclude={"name"}).encode())
    feed_digest(digest, bags)
    return digest.hexdigest()
