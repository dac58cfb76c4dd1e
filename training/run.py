"""A training run: a detector a fold for honest figures, then one on every clip."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from training.checkpoint import WEIGHTS, Detector, saved_fingerprint
from training.clips import Clip, source_folds
from training.fit_encoder import ScoredEncoder, features, fit_encoder
from training.fit_head import fit_head
from training.head import Head
from training.pool import Pool
from training.recipe import Recipe
from training.report import ClipScores

FINAL = 99
"""Among the fits: the one on every clip; folds are numbered from 0."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a run works with.

    Attributes:
        pool: all windows of the clips that the recipe does not leave out.
        recipe: what to make.
        mates: normal clips of the same scene as a clip, by name.
        folder: where parts at rest go, so that a run can be resumed.
        fingerprint: of data and recipe; parts of another run are not taken up.
    """

    pool: Pool
    recipe: Recipe
    mates: dict[str, tuple[str, ...]]
    folder: Path
    fingerprint: str

    def seed(self, fit: int) -> int:
        return self.recipe.seed * 100 + fit

    def scores_path(self, fold: int) -> Path:
        return self.folder / f"fold-{fold}.json"


def fingerprint(manifest_sha256: str, recipe: Recipe) -> str:
    """Hash of all that decides a run's fits; the threshold is chosen after them."""
    fitted = recipe.model_dump_json(exclude={"name", "false_positive_rate"})
    return hashlib.sha256(f"{manifest_sha256} {fitted}".encode()).hexdigest()


def run_fit(run: Run, which: int, tick: Callable[[], None]) -> None:
    """Do one fit and leave its outcome in the run's folder.

    Args:
        run: what to work with.
        which: a fold, scored by a detector that never saw its sources; or FINAL,
            the detector on every clip.
        tick: called after every step.

    Raises:
        TrainingError: the clips to train on are all of one label.
    """
    pool = run.pool
    if which == FINAL:
        scored, head = fit(run, range(len(pool.clips)), run.seed(which), tick)
        Detector(scored.encoder, head).save(run.folder / WEIGHTS, run.fingerprint)
        return
    seen, held_out = fold_clips(pool.clips, run.recipe.folds, which)
    scored, head = fit(run, seen, run.seed(which), tick)
    _write_scores(
        run.scores_path(which), run, [score_clip(pool, scored, head, clip) for clip in held_out]
    )


def fold_clips(clips: Sequence[Clip], folds: int, fold: int) -> tuple[list[int], list[int]]:
    """Indices of the clips that a fold trains on and of those that it judges."""
    dealt = source_folds(list(clips), folds)
    seen = [index for index, clip in enumerate(clips) if dealt[clip.source] != fold]
    held_out = [index for index, clip in enumerate(clips) if dealt[clip.source] == fold]
    return seen, held_out


def missing_fits(run: Run) -> list[int]:
    """Folds, then FINAL, whose outcome an identical run has not left yet."""
    missing = [fold for fold in range(run.recipe.folds) if _read_scores(run, fold) is None]
    if saved_fingerprint(run.folder / WEIGHTS) != run.fingerprint:
        missing.append(FINAL)
    return missing


def out_of_fold(run: Run) -> list[ClipScores]:
    """Every clip's scores by a detector that never saw its source, all folds being done."""
    scored: list[ClipScores] = []
    for fold in range(run.recipe.folds):
        found = _read_scores(run, fold)
        assert found is not None, f"fold {fold} has not been run"
        scored += found
    return scored


def fit(
    run: Run, clips: Sequence[int], seed: int, tick: Callable[[], None]
) -> tuple[ScoredEncoder, Head]:
    """Encoder, then head, on the given clips alone."""
    scored = fit_encoder(run.pool, clips, run.recipe, seed, tick)
    head = fit_head(run.pool, scored, clips, run.recipe, seed, run.mates, tick)
    return scored, head


def score_clip(pool: Pool, scored: ScoredEncoder, head: Head, clip: int) -> ClipScores:
    """Score a clip's windows as served, from a zero state."""
    rows = pool.runs(clip)[0]
    with torch.no_grad():
        found = features(scored.encoder, pool.maps_of(rows))
        scores = head(found[None, None]).scores[0]
        alone = scored.logits(found)
    return ClipScores(
        pool.clips[clip],
        tuple(int(frame) for frame in pool.first_frame[rows]),
        tuple(scores.tolist()),
        tuple(alone.tolist()),
        tuple(pool.tail[rows].tolist()),
    )


def _write_scores(path: Path, run: Run, scored: list[ClipScores]) -> None:
    entries = []
    for found in scored:
        entry = asdict(found)
        entry["clip"] = found.clip.name
        entries.append(entry)
    content = {"fingerprint": run.fingerprint, "clips": entries}
    scratch = path.with_name(f".{path.name}")
    scratch.write_text(json.dumps(content))
    scratch.replace(path)


def _read_scores(run: Run, fold: int) -> list[ClipScores] | None:
    """Scores that an identical run left; None where there are none."""
    try:
        content = json.loads(run.scores_path(fold).read_bytes())
    except (OSError, ValueError):
        return None
    if content.get("fingerprint") != run.fingerprint:
        return None
    clips = {clip.name: clip for clip in run.pool.clips}
    return [
        ClipScores(
            clips[entry["clip"]],
            *(tuple(entry[key]) for key in ("first_frames", "scores", "encoder", "baseline")),
        )
        for entry in content["clips"]
    ]
