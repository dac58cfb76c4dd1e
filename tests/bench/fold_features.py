"""Features by encoders that never saw a clip's source, as manifests to train and judge heads on.

    gvvad-train render ../shared/data --out runs/embedded/windows
    python -m tests.bench.fold_features --windows runs/embedded/windows --out runs/folds

A fold's encoder is fitted on the other folds' clips, as `gvvad-train train --windows` does;
the fits take ten minutes on two cores and are kept. Two manifests a fold: `clips-N.jsonl`
trains on the clips of the other folds and tests on those of `fights_surv` in this one;
`streams-N.jsonl` does both on streams, clips of one scene or camera one after the other,
normal ones first.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from training.clips import Clip
from training.fit_encoder import WindowDraw, features, fit_encoder
from training.fitting import ClipDraw
from training.manifest import Row, write_manifest
from training.pool import Pool, Rows, build_pool
from training.recipe import EMBEDDED, Recipe, load_recipe
from training.render import Extraction, read_extraction
from training.run import fold_clips
from training.streams import Splicer

JUDGED = "fights_surv"
"""The dataset that figures are of."""

STREAMS = 400
"""Spliced streams that a head may train on."""

Spans = np.ndarray
"""(n, 2) first and end frame of each window."""


@dataclass(frozen=True, slots=True)
class FoldFeatures:
    """What a fold's encoder makes of all windows.

    Attributes:
        features: (N, D), in the pool's order.
        weight: (D,) of the encoder's own linear score.
        bias: () of it.
    """

    features: Tensor
    weight: Tensor
    bias: Tensor


def embedded_pool(windows: Path) -> tuple[Pool, Recipe, dict[str, tuple[str, ...]]]:
    """The embedded default's windows, its recipe, and which clips show one scene."""
    recipe = load_recipe(EMBEDDED)
    extraction = read_extraction(windows).without(recipe.leave_out)
    pool = build_pool(extraction, recipe.window, lambda clips: clips)
    return pool, recipe, extraction.mates


def fold_features(windows: Path, folder: Path, workers: int) -> list[FoldFeatures]:
    """Fit what is not there yet, then read all."""
    folder.mkdir(parents=True, exist_ok=True)
    folds = range(load_recipe(EMBEDDED).folds)
    files = [folder / f"fold-{fold}.safetensors" for fold in folds]
    missing = [(windows, fold, file) for fold, file in enumerate(files) if not file.exists()]
    if missing:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, context) as pool:
            list(pool.map(_fit, missing))
    return [FoldFeatures(**load_file(file)) for file in files]


def _fit(job: tuple[Path, int, Path]) -> None:
    windows, fold, file = job
    torch.set_num_threads(1)
    pool, recipe, _ = embedded_pool(windows)
    seen, _ = fold_clips(pool.clips, recipe.folds, fold)
    nothing: Callable[[], None] = lambda: None  # noqa: E731
    scored = fit_encoder(pool, seen, recipe, recipe.seed * 100 + fold, nothing)
    tensors = {
        "features": features(scored.encoder, pool.maps),
        "weight": scored.weight,
        "bias": scored.bias.reshape(1),
    }
    scratch = file.with_suffix(".tmp")
    save_file(tensors, scratch)
    scratch.replace(file)


def scenes(clips: Sequence[Clip], mates: Mapping[str, Sequence[str]]) -> list[list[int]]:
    """Clips of one scene, normal ones first, where it has both; indices."""
    index = {clip.name: number for number, clip in enumerate(clips)}
    found: list[set[int]] = []
    for anomalous, normals in mates.items():
        members = {index[name] for name in (anomalous, *normals) if name in index}
        touching = [scene for scene in found if scene & members]
        found = [scene for scene in found if not scene & members]
        found.append(members.union(*touching))
    return [
        sorted(scene, key=lambda clip: (clips[clip].anomalous, clip))
        for scene in found
        if len({clips[clip].anomalous for clip in scene}) == 2
    ]


def joined(intervals: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Intervals in a row; those that touch are one event."""
    found: list[tuple[int, int]] = []
    for start, end in intervals:
        if found and found[-1][1] == start:
            start = found.pop()[0]
        found.append((start, end))
    return tuple(found)


class FoldWriter:
    """Writes the manifests of one fold.

    Args:
        folder: for manifests and features.
        pool: all windows.
        spans: of the windows as served, by clip.
        made: features by the fold's encoder.
        fold: its number.
    """

    def __init__(
        self, folder: Path, pool: Pool, spans: Sequence[Spans], made: FoldFeatures, fold: int
    ) -> None:
        self._folder, self._pool, self._spans = folder, pool, spans
        self._features, self._fold = made.features.numpy(), fold
        (folder / f"features-{fold}").mkdir(exist_ok=True)

    def write(self, name: str, rows: Iterable[Row]) -> None:
        """One manifest."""
        write_manifest(self._folder / f"{name}-{self._fold}.jsonl", rows)

    def train(self, name: str, clip: Clip, windows: Rows) -> Row:
        """A video to train on."""
        return Row(
            id=name,
            label="anomalous" if clip.anomalous else "normal",
            source="synthetic" if clip.synthetic else "real",
            group=clip.name if clip.synthetic else f"{clip.dataset}/{clip.source}",
            split="train",
            features=self._saved(name, self._features[windows]),
            encoder=f"fold-{self._fold}",
        )

    def test(self, name: str, clips: Sequence[int]) -> Row:
        """Clips one after the other, to judge."""
        pool, known = self._pool, [self._pool.clips[clip] for clip in clips]
        starts = np.cumsum([0, *(clip.truth.frames for clip in known)])
        truth = joined(
            (int(start) + first, int(start) + end)
            for start, clip in zip(starts, known, strict=False)
            for first, end in clip.truth.anomalous
        )
        windows = np.concatenate([pool.runs(clip)[0] for clip in clips])
        spans = [self._spans[clip] + start for clip, start in zip(clips, starts, strict=False)]
        label: Literal["normal", "anomalous"] = "anomalous" if truth else "normal"
        return Row(
            id=name,
            label=label,
            group=f"{known[0].dataset}/{known[0].source}",
            split="test",
            dataset=known[0].dataset,
            features=self._saved(name, self._features[windows]),
            spans=self._saved(f"{name}-spans", np.concatenate(spans)),
            encoder=f"fold-{self._fold}",
            frames=int(starts[-1]),
            fps=known[0].truth.fps,
            anomalous=truth,
        )

    def _saved(self, name: str, array: np.ndarray) -> str:
        file = f"features-{self._fold}/{name.replace('/', '_')}.npy"
        np.save(self._folder / file, array)
        return file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--windows", type=Path, required=True, help="of gvvad-train render")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    folds = fold_features(options.windows, options.out, options.workers)
    pool, recipe, mates = embedded_pool(options.windows)
    spans = served_spans(read_extraction(options.windows), pool, recipe)
    for fold, features_of in enumerate(folds):
        seen, held_out = fold_clips(pool.clips, recipe.folds, fold)
        writer = FoldWriter(options.out, pool, spans, features_of, fold)
        judged = [clip for clip in held_out if pool.clips[clip].dataset == JUDGED]
        tests = [writer.test(pool.clips[clip].name, [clip]) for clip in judged]
        # Generated clips are one source, which a fold holds out; heads of that fold learn from
        # them all the same.
        made = [clip for clip in held_out if pool.clips[clip].synthetic]
        learned = [*seen, *made]
        runs = [(clip, n, run) for clip in learned for n, run in enumerate(pool.runs(clip))]
        rows = [
            writer.train(f"{pool.clips[clip].name}@{n}", pool.clips[clip], run)
            for clip, n, run in runs
        ]
        writer.write("clips", [*rows, *tests])
        inside = [scene for scene in scenes(pool.clips, mates) if set(scene) <= set(judged)]
        tests = [writer.test(f"scene-{scene[0]}", scene) for scene in inside]
        writer.write("streams", [*spliced(writer, pool, learned, recipe, mates), *tests])


def served_spans(extraction: Extraction, pool: Pool, recipe: Recipe) -> list[Spans]:
    """Of the windows as served, by clip of the pool."""
    stored = {one.clip.name: one for one in extraction.usable}
    return [
        np.array(
            [
                (window.first_frame, window.end_frame)
                for window in extraction.frames(stored[clip.name]).windows(recipe.window)
            ]
        )
        for clip in pool.clips
    ]


def spliced(
    writer: FoldWriter,
    pool: Pool,
    seen: Sequence[int],
    recipe: Recipe,
    mates: Mapping[str, tuple[str, ...]],
) -> list[Row]:
    """Streams that end in a clip of either label, as the embedded head is fitted to."""
    random = np.random.default_rng(0)
    usable = WindowDraw(pool).usable(list(seen))
    draw = ClipDraw(pool.clips, usable, recipe.shares)
    splicer = Splicer(pool, usable, mates, recipe.head.longest)
    rows = []
    for number in range(STREAMS):
        stream = splicer.draw(draw, random)
        windows = np.concatenate([stream.before, stream.rows])
        rows.append(writer.train(f"stream-{number}", pool.clips[stream.bags[-1].clip], windows))
    return rows


if __name__ == "__main__":
    main()
