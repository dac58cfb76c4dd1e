"""Train: out-of-fold figures first, then the detector on every clip, then its checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from server.contract import WINDOW_FRAMES
from training.checkpoint import WEIGHTS, Checkpoint, Detector, Provenance
from training.clips import TrainingError
from training.jobs import run_fits
from training.pool import Pool, build_pool
from training.recipe import Recipe
from training.render import Extraction, StoredClip, read_extraction
from training.report import Report, report
from training.run import FINAL, Run, fingerprint, missing_fits, out_of_fold

METRICS = "metrics.json"


@dataclass(frozen=True, slots=True)
class Progress:
    """How a run tells how far it is.

    Attributes:
        clips: wraps the clips whose windows are measured.
        steps: called with the number of steps taken since the last call.
    """

    clips: Callable[[list[StoredClip]], Iterable[StoredClip]]
    steps: Callable[[int], None]


def total_steps(recipe: Recipe) -> int:
    """Steps of a whole run, folds and final fit."""
    encoder = recipe.encoder.members * recipe.encoder.steps
    return (recipe.folds + 1) * (encoder + recipe.head.steps)


@dataclass(frozen=True, slots=True)
class Places:
    """Where a run reads and writes.

    Attributes:
        windows: what `render` wrote.
        folder: for scores, figures and the checkpoint; made if need be.
    """

    windows: Path
    folder: Path


def train(places: Places, recipe: Recipe, workers: int, progress: Progress) -> Report:
    """Make a detector.

    Writes `metrics.json`, `checkpoint.json` and the weights, and each fold's
    scores as soon as it is done: an interrupted run goes on from there.

    Args:
        places: where it reads and writes.
        recipe: what to make.
        workers: processes that fit at the same time; the outcome is the same for any.
        progress: told how far it is.

    Raises:
        TrainingError: the clips cannot be trained on.
    """
    # On several threads nets this small mostly wait, and the thread count decides their last bits.
    torch.set_num_threads(1)
    extraction = read_extraction(places.windows).without(recipe.leave_out)
    _check_labels(extraction)
    places.folder.mkdir(parents=True, exist_ok=True)
    pool = build_pool(extraction, recipe.window, progress.clips)
    made_of = extraction.manifest_sha256()
    run = Run(pool, recipe, extraction.mates, places.folder, fingerprint(made_of, recipe))
    missing = missing_fits(run)
    progress.steps(total_steps(recipe) * (recipe.folds + 1 - len(missing)) // (recipe.folds + 1))
    if missing:
        run_fits(run, missing, workers, progress.steps)
    window_seconds = (WINDOW_FRAMES - 1) / recipe.fps
    found = report(out_of_fold(run), recipe.false_positive_rate, window_seconds)
    (places.folder / METRICS).write_text(json.dumps(found.to_json(), indent=1) + "\n")
    _checkpoint(run, extraction, found).describe(places.folder)
    return found


def _checkpoint(run: Run, extraction: Extraction, found: Report) -> Checkpoint:
    recipe = run.recipe
    encoder = recipe.encoder.spec
    head = recipe.head.spec(encoder.feature_dim)
    provenance = Provenance(
        name=recipe.name,
        manifest_sha256=extraction.manifest_sha256(),
        clips=_hashes(extraction, run.pool),
        code_version=version("gvvad"),
        seeds=tuple(run.seed(fit) for fit in (*range(recipe.folds), FINAL)),
        metrics=found.metrics(),
        threshold=found.threshold,
        threshold_rule=found.threshold_rule(),
    )
    detector = Detector.load(run.folder / WEIGHTS, encoder, head)
    return Checkpoint(detector, recipe.window, extraction.preprocess, provenance)


def _check_labels(extraction: Extraction) -> None:
    clips = [stored.clip for stored in extraction.usable]
    labels = {clip.anomalous for clip in clips}
    if len(labels) != 2:
        what = "anomalous" if labels == {True} else "normal"
        raise TrainingError(
            f"all {len(clips)} usable clips are {what}; training needs clips of both labels"
        )


def _hashes(extraction: Extraction, pool: Pool) -> tuple[str, ...]:
    names = {clip.name for clip in pool.clips}
    return tuple(sorted({s.sha256 for s in extraction.usable if s.clip.name in names}))
