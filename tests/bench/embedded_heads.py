"""Heads for the embedded default, out of fold: the fitted one, the objective's, causal or whole.

    gvvad-train render ../shared/data --out runs/embedded/windows
    python -m tests.bench.embedded_heads --windows runs/embedded/windows --folds runs/folds

Judged on clips by themselves and on streams that turn from normal to a fight: the clips of a
scene one after the other, normal ones first. Both forms of a head share data, seeds and start,
the encoder's own linear score.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from server.metrics import roc_auc
from tests.bench.fold_features import FoldFeatures, embedded_pool, fold_features, scenes
from training.bags import Bag
from training.draw import Contiguous, Drawer
from training.fit_encoder import WindowDraw
from training.fitting import ClipDraw
from training.head import Head
from training.learner import Learner, LearnerSpec
from training.manifest import Row
from training.objective import ObjectiveSpec
from training.pool import Pool, Rows
from training.recipe import Recipe
from training.report import ClipScores, report
from training.run import fold_clips
from training.scaling import ScalingSpec
from training.streams import Splicer, Stream

STREAMS = 400
"""Spliced streams that a head is fitted to."""

OBJECTIVE = ObjectiveSpec(select="score", k=1, magnitude=0.0)

Scores = dict[int, np.ndarray]
"""Of each clip's windows, by the clip's index."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What all forms share.

    Attributes:
        pool: all windows.
        recipe: the embedded default's.
        mates: normal clips of the same scene, by name.
        folds: features by encoders that never saw a fold.
        steps: of Adam.
        rate: its learning rate.
    """

    pool: Pool
    recipe: Recipe
    mates: dict[str, tuple[str, ...]]
    folds: list[FoldFeatures]
    steps: int
    rate: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--windows", type=Path, required=True, help="of gvvad-train render")
    parser.add_argument("--folds", type=Path, required=True, help="folder to keep encoders in")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rate", type=float, default=3e-4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folds = fold_features(options.windows, options.folds, options.workers)
    pool, recipe, mates = embedded_pool(options.windows)
    setting = Setting(pool, recipe, mates, folds, options.steps, options.rate)
    found = {
        form: [judged(setting, form, seed) for seed in range(options.seeds if form else 1)]
        for form in ("", "causal", "whole")
    }
    if options.json:
        print(json.dumps(found))
        return
    print(f"{'AUC (spread over seeds)':32}" + "".join(f"{name:>24}" for name in found[""][0]))
    for form, runs in found.items():
        cells = [shown([run[name] for run in runs]) for name in runs[0]]
        print(f"{form or 'no head: the encoder alone':32}" + "".join(f"{c:>24}" for c in cells))


def shown(values: list[float]) -> str:
    spread = f" ({statistics.stdev(values):.3f})" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


def judged(setting: Setting, form: str, seed: int) -> dict[str, float]:
    """Figures of one form, all folds pooled."""
    pool, recipe = setting.pool, setting.recipe
    alone: list[ClipScores] = []
    streams: list[tuple[np.ndarray, np.ndarray]] = []
    for fold, made in enumerate(setting.folds):
        seen, held_out = fold_clips(pool.clips, recipe.folds, fold)
        score = scorer(setting, made, seen, form, seed)
        for clip in held_out:
            rows = pool.runs(clip)[0]
            frames = tuple(int(frame) for frame in pool.first_frame[rows])
            scores = tuple(score(rows).tolist())
            alone.append(
                ClipScores(pool.clips[clip], frames, scores, scores, tuple(pool.tail[rows]))
            )
        for scene in scenes(pool.clips, setting.mates):
            if set(scene) <= set(held_out):
                rows = np.concatenate([pool.runs(clip)[0] for clip in scene])
                streams.append((pool.anomalous[rows], score(rows)))
    window_seconds = 15 / recipe.fps
    metrics = report(alone, recipe.false_positive_rate, window_seconds).metrics()
    labels, scores = (np.concatenate(parts) for parts in zip(*streams, strict=True))
    within = [auc for auc in (roc_auc(*stream) for stream in streams) if auc is not None]
    pooled = roc_auc(labels, scores)
    assert pooled is not None
    return {
        "clips": metrics["oof_head_frame_auc"],
        "without normal sources": metrics["oof_head_frame_auc_without_normal_sources"],
        "streams": pooled,
        "within streams": statistics.mean(within),
    }


def scorer(
    setting: Setting, made: FoldFeatures, seen: list[int], form: str, seed: int
) -> Callable[[Rows], np.ndarray]:
    """Scores windows in a row from a zero state, by a head that saw only those clips."""
    features = made.features
    if not form:
        return lambda rows: torch.sigmoid(features[rows] @ made.weight + made.bias).numpy()
    head = fitted(setting, made, seen, form, seed)

    def score(rows: Rows) -> np.ndarray:
        with torch.no_grad():
            found: np.ndarray = head(features[rows][None, None]).scores[0].numpy()
        return found

    return score


def fitted(setting: Setting, made: FoldFeatures, seen: list[int], form: str, seed: int) -> Head:
    """A head on spliced streams of the clips that may be seen."""
    spec = setting.recipe.head.spec(made.features.shape[1])
    if form == "whole":
        spec = replace(spec, half_life_windows=None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = Head(spec)
    head.start_from(made.weight, made.bias[0])
    bags = [
        as_bag(setting.pool, made, n, one) for n, one in enumerate(spliced(setting, seen, seed))
    ]
    drawer = Drawer(bags, seed, Contiguous(bags, setting.recipe.head.longest, 0))
    head.calibrate(drawer.draw(0, 32).visual)
    scaling = ScalingSpec("fixed", setting.recipe.synthetic_weight)
    learner = Learner(
        head,
        LearnerSpec(setting.steps, setting.rate, 0.01, OBJECTIVE, scaling, seed=seed),
    )
    for step in range(setting.steps):
        learner.step(step, drawer.draw(step, 8))
    return head.eval()


def spliced(setting: Setting, seen: list[int], seed: int) -> Iterator[Stream]:
    """Streams that end in a clip of either label, as the embedded head is fitted to."""
    pool, random = setting.pool, np.random.default_rng(seed)
    usable = WindowDraw(pool).usable(seen)
    draw = ClipDraw(pool.clips, usable, setting.recipe.shares)
    splicer = Splicer(pool, usable, setting.mates, setting.recipe.head.longest)
    for _ in range(STREAMS):
        yield splicer.draw(draw, random)


def as_bag(pool: Pool, made: FoldFeatures, number: int, stream: Stream) -> Bag:
    rows = np.concatenate([stream.before, stream.rows])
    clip = pool.clips[stream.bags[-1].clip]
    row = Row(
        id=str(number),
        label="anomalous" if clip.anomalous else "normal",
        source="synthetic" if clip.synthetic else "real",
        group=str(number),
    )
    return Bag(row, made.features[rows].numpy()[:, None], None)


if __name__ == "__main__":
    main()
