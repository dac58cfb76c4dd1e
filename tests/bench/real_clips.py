"""RTFM, TEVAD without text, LAP and a causal head on real clips, beside what metadata tells.

    python -m tests.bench.fold_features --windows runs/embedded/windows --out runs/folds
    python -m tests.bench.real_clips --folds runs/folds --data ../shared/data --out runs/real

Five folds by source; every head is judged on clips by themselves, over all sources and over
those alone that hold fights, and on streams that turn from normal to a fight. A finished run
is kept. LAP has no text here: its dictionary is 30 centres of the anomalous training windows.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from sklearn.cluster import KMeans
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from server.metrics import pooled, roc_auc
from server.operating import event_figures, flips_per_minute
from training.ablate_run import HeadCell, HeadResult, Study
from training.ablation import Arm, fixed
from training.cells import CELLS, Shelf, run_cells
from training.manifest import Row, load_manifest
from training.mil_data import Texts
from training.mil_recipe import load_mil_recipe
from training.scored import VideoScores

FIGHTS = Path(__file__).parent / "fights.yaml"
EACH = 8
"""Videos of either label a step: 250 runs in twenty minutes on two cores."""
PROMPTS = 30
WITHOUT_FIGHTS = ("fights_surv/camnet", "fights_surv/synopsis")
"""Sources of normal clips alone: who knows them by anything needs to know no fight."""

NORMAL_SHARE = 0.1
"""Of other folds' normal windows that reach the threshold on a fold's streams."""

ONE_WINDOW = 0.0
"""Seconds that an event must last on streams: they are a few windows long."""


def arms() -> list[Arm]:
    """The bases on the same steps and batches; none sees generated clips."""
    small = load_mil_recipe(str(FIGHTS)).model_copy(update={"each": EACH})
    same = {name: getattr(small, name) for name in ("steps", "each", "validation_share")}
    same |= {"validate_every": small.validate_every, "text": "none"}
    named = {
        "RTFM": load_mil_recipe("rtfm").model_copy(update=same),
        "TEVAD without text": load_mil_recipe("tevad").model_copy(update=same),
        "LAP, MPL and PAL": load_mil_recipe("lap").model_copy(update=same),
        "causal": small,
        "whole": small.model_copy(update={"half_life_windows": None}),
    }
    return [Arm(name, fixed(recipe, 1.0), "none") for name, recipe in named.items()]


@dataclass(frozen=True, slots=True)
class Fold:
    """A fold's manifest, with its own dictionary."""

    study: Study

    @classmethod
    def of(cls, manifest: Path, seeds: int) -> Fold:
        prompts = manifest.with_name(f"{manifest.stem}-prompts.npy")
        if not prompts.exists():
            np.save(prompts, _dictionary(manifest))
        texts = Texts(prompts=prompts)
        return cls(Study((load_manifest(manifest),), texts, tuple(range(seeds))))

    def cells(self, arm: Arm) -> list[HeadCell]:
        """One a seed."""
        return self.study.cells(arm)

    def videos(self, result: HeadResult) -> list[VideoScores]:
        """Its test videos, scored."""
        rows = {row.id: row for row in self.study.tests}
        return [
            VideoScores(rows[one.id], one.first_frames, one.end_frames, one.scores)
            for one in result.videos
        ]


def _dictionary(manifest: Path) -> np.ndarray:
    """(P, D) Centres of the windows of anomalous training videos."""
    rows = load_manifest(manifest).rows
    chosen = [row for row in rows if row.split == "train" and row.label == "anomalous"]
    windows = np.concatenate([np.load(manifest.parent / str(row.features)) for row in chosen])
    centres: np.ndarray = KMeans(PROMPTS, n_init=1, random_state=0).fit(windows).cluster_centers_
    return centres.astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folds", type=Path, required=True, help="of tests.bench.fold_features")
    parser.add_argument("--data", type=Path, required=True, help="the clips, for their sizes")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    kinds = {
        kind: [
            Fold.of(path, options.seeds) for path in sorted(options.folds.glob(f"{kind}-?.jsonl"))
        ]
        for kind in ("clips", "streams")
    }
    shelf = Shelf(options.out / CELLS, HeadResult)
    cells = [c for arm in arms() for folds in kinds.values() for f in folds for c in f.cells(arm)]
    total = sum(cell.steps for cell in shelf.unfinished(cells))
    with tqdm(total=total, unit="step", disable=None) as bar:
        run_cells(cells, shelf, options.workers, bar.update)
    found = {arm.name: _figures(arm, kinds, shelf, options.seeds) for arm in arms()}
    known = metadata_aucs([f.study.tests for f in kinds["clips"]], options.data)
    if options.json:
        print(json.dumps({"heads": found, "metadata": known}))
        return
    names = list(next(iter(found.values())))
    print("| what | " + " | ".join(names) + " |\n|---|" + "---|" * len(names))
    for arm, figures in found.items():
        print(f"| {arm} | " + " | ".join(_told(figures[name]) for name in names) + " |")
    for name, aucs in known.items():
        print(f"{name}: all sources {aucs[0]:.3f}, yt sources {aucs[1]:.3f}")


def _told(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"


def _figures(
    arm: Arm, kinds: dict[str, list[Fold]], shelf: Shelf[HeadResult], seeds: int
) -> dict[str, list[float]]:
    """Figures seed by seed."""
    found: dict[str, list[float]] = {}
    for seed in range(seeds):
        scored = {
            kind: [fold.videos(shelf.result(fold.cells(arm)[seed])) for fold in folds]
            for kind, folds in kinds.items()
        }
        clips = [video for fold in scored["clips"] for video in fold]
        yt = [video for video in clips if video.row.group not in WITHOUT_FIGHTS]
        one = {"all sources": frame_auc(clips), "yt sources": frame_auc(yt)}
        for name, value in (one | stream_figures(scored["streams"])).items():
            found.setdefault(name, []).append(value)
    return found


def frame_auc(videos: Sequence[VideoScores]) -> float:
    """Over all frames of all videos."""
    found = roc_auc(*pooled([(video.labels(), video.back_filled()) for video in videos]))
    assert found is not None
    return found


def stream_figures(folds: Sequence[list[VideoScores]]) -> dict[str, float]:
    """AUC, and what alarms do at a threshold that each fold takes from the others."""
    streams = [video for fold in folds for video in fold]
    within = [roc_auc(video.labels(), video.back_filled()) for video in streams]
    alarms, flips = [], []
    for number, fold in enumerate(folds):
        others = [v for n, other in enumerate(folds) if n != number for v in other]
        threshold = float(np.quantile(normal_scores(others), 1 - NORMAL_SHARE))
        for video in fold:
            alarms += video.alarms(threshold, ONE_WINDOW)
            flips.append((flips_per_minute(video.trace(), threshold) or 0.0, video.seconds))
    found = event_figures([video.truth() for video in streams], alarms)
    seconds = sum(length for _, length in flips)
    return {
        "streams": frame_auc(streams),
        "within streams": statistics.mean(auc for auc in within if auc is not None),
        "events found": found.recall or 0.0,
        "mean delay, s": found.mean_delay_seconds or 0.0,
        "false alarms": float(len(found.false_alarms)),
        "flips a minute": sum(value * length for value, length in flips) / seconds,
    }


def normal_scores(videos: Sequence[VideoScores]) -> np.ndarray:
    """Of windows without an anomalous frame."""
    return np.array(
        [
            score
            for video in videos
            for first, end, score in zip(
                video.first_frames, video.end_frames, video.scores, strict=True
            )
            if not video.labels()[first:end].any()
        ]
    )


def metadata_aucs(folds: Sequence[Sequence[Row]], data: Path) -> dict[str, tuple[float, float]]:
    """AUC, by clip, of what sees frame count, rate and size alone, on the same folds."""
    seen = [np.array([_metadata(data, row) for row in fold]) for fold in folds]
    labels = [np.array([row.label == "anomalous" for row in fold]) for fold in folds]
    groups = np.array([row.group for fold in folds for row in fold])
    makers: dict[str, Callable[[], object]] = {
        "metadata, logistic": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
        "metadata, boosted trees": lambda: GradientBoostingClassifier(random_state=0),
    }
    found = {}
    for name, make in makers.items():
        scores = np.concatenate([_scored(make(), seen, labels, n) for n in range(len(folds))])
        truth = np.concatenate(labels)
        yt = ~np.isin(groups, WITHOUT_FIGHTS)
        both = roc_auc(truth, scores), roc_auc(truth[yt], scores[yt])
        found[name] = (both[0] or 0.0, both[1] or 0.0)
    return found


def _scored(
    model: object, seen: Sequence[np.ndarray], labels: Sequence[np.ndarray], fold: int
) -> np.ndarray:
    others = [n for n in range(len(seen)) if n != fold]
    model.fit(
        np.concatenate([seen[n] for n in others]), np.concatenate([labels[n] for n in others])
    )
    scores: np.ndarray = model.predict_proba(seen[fold])[:, 1]
    return scores


def _metadata(data: Path, row: Row) -> tuple[float, ...]:
    with av.open(str(data / row.id)) as container:
        stream = container.streams.video[0]
        return (float(row.frames or 0), row.fps or 0.0, stream.width, stream.height)


if __name__ == "__main__":
    main()
