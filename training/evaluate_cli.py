"""gvvad-train evaluate: a detector's figures on videos of known truth, as a report."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm  # type: ignore[import-untyped]

from server.alerts import MIN_DURATION_SECONDS
from server.bundle import file_sha256, load_bundle
from training.bags import Contents, open_bags
from training.clips import TrainingError
from training.evaluation import Evaluation, EvaluationSpec, evaluate
from training.evaluation_report import markdown
from training.head_run import load_run
from training.manifest import Manifest, Row, load_manifest
from training.pictures import draw
from training.scored import VideoScores, by_bundle, by_head, check_truth

REPORT, FIGURES = "report.md", "report.json"


@dataclass(frozen=True, slots=True)
class Judged:
    """Scored videos, and what a reader must know of them.

    Attributes:
        name: of the detector.
        videos: scored.
        skipped: why others could not be, by id.
        seen: ids of videos that the detector was trained on.
        threshold: its default; None where it has none.
        threshold_rule: how it was chosen.
    """

    name: str
    videos: list[VideoScores]
    skipped: dict[str, str]
    seen: list[str]
    threshold: float | None
    threshold_rule: str


def add_evaluate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "evaluate",
        help="judge a detector on videos of known truth: a report with pictures",
        description="Score the manifest's videos and write report.md, report.json and pictures. "
        "Rows marked as test are judged, where there are any; --split says otherwise.",
    )
    parser.add_argument("--manifest", required=True, type=Path, help="JSON lines, a video each")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--head", type=Path, help="folder of gvvad-train train --manifest")
    what.add_argument("--bundle", type=Path, help="scores the videos themselves, as the server")
    parser.add_argument(
        "--split",
        choices=("train", "validation", "test", "all"),
        default="test",
        help="rows to judge (default test)",
    )
    parser.add_argument("--threshold", type=float, help="of an alert (default the detector's)")
    parser.add_argument(
        "--min-duration",
        type=float,
        default=MIN_DURATION_SECONDS,
        metavar="SECONDS",
        help="that an event must last to be told (default %(default)s)",
    )
    parser.add_argument("--rounds", type=int, default=1000, help="of the bootstrap (default 1000)")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default 0)")
    parser.add_argument("--out", required=True, type=Path, help="folder for the report")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")


def run_evaluate(options: argparse.Namespace) -> None:
    """Score, judge, report.

    Raises:
        TrainingError, BundleError: detector or videos cannot be used.
    """
    _check(options)
    manifest = load_manifest(options.manifest)
    rows = judged_rows(manifest, options.split)
    check_truth(rows)  # before minutes of scoring
    judged = (
        _by_head(manifest, rows, options) if options.head else _by_bundle(manifest, rows, options)
    )
    if not judged.videos:
        first, reason = next(iter(judged.skipped.items()))
        raise TrainingError(f"none of {len(rows)} videos can be scored; {first}: {reason}")
    check_truth([video.row for video in judged.videos])
    threshold = options.threshold if options.threshold is not None else judged.threshold
    if threshold is None:
        raise TrainingError(f"{judged.name} has no threshold of its own; give --threshold")
    rule = judged.threshold_rule if options.threshold is None else "given"
    spec = EvaluationSpec(threshold, rule, options.min_duration, options.rounds, options.seed)
    found = evaluate(judged.videos, spec)
    report = write_report(options.out, manifest, judged, found)
    if options.json:
        print(json.dumps(found.to_json() | {"report": str(report), "skipped": judged.skipped}))
        return
    auc, causal = found.frames["auc"], found.causal_auc
    print(f"{judged.name}: {found.videos} videos, frame AUC {auc.value:.3f}", end="")
    print(f" ({auc.low:.3f} to {auc.high:.3f}), strict-causal {causal.value:.3f}")
    print(f"report in {report}")


def _check(options: argparse.Namespace) -> None:
    if options.threshold is not None and not 0 < options.threshold <= 1:
        raise TrainingError(f"--threshold ({options.threshold}) must be over 0 and at most 1")
    if not options.min_duration >= 0:
        raise TrainingError(f"--min-duration ({options.min_duration}) must be 0 or more")
    if not 1 <= options.rounds <= 100_000:
        raise TrainingError(f"--rounds ({options.rounds}) must be 1 to 100000")
    if options.seed < 0:
        raise TrainingError(f"--seed ({options.seed}) must be 0 or more")


def judged_rows(manifest: Manifest, split: str) -> list[Row]:
    """Real videos of a split.

    Raises:
        TrainingError: it is empty.
    """
    rows = [
        row for row in manifest.rows if not row.synthetic and (split == "all" or row.split == split)
    ]
    if not rows:
        raise TrainingError(
            f"no real video of {manifest.path} is marked {split!r}; mark rows with `split`, or "
            "give --split all, which judges videos that were trained on as well"
        )
    return rows


def _by_head(manifest: Manifest, rows: Sequence[Row], options: argparse.Namespace) -> Judged:
    run = load_run(options.head)
    contents = Contents(run.encoder, run.reads_captions)
    bags = open_bags(manifest, rows, contents)
    shown = tqdm(bags, desc="score", unit="video", disable=None)
    videos = by_head(run.head, manifest, bags, lambda _: shown)
    seen = [row.id for row in rows if row.video_sha256 in run.clips]
    return Judged(run.name, videos, {}, seen, run.threshold, run.threshold_rule)


def _by_bundle(manifest: Manifest, rows: Sequence[Row], options: argparse.Namespace) -> Judged:
    bundle = load_bundle(options.bundle)
    with tqdm(total=len(rows), desc="score", unit="video", disable=None) as bar:
        videos, skipped = by_bundle(bundle, manifest, rows, lambda: _advance(bar))
    threshold, known = bundle.manifest.threshold, set(bundle.manifest.training.clips)
    seen = [v.row.id for v in videos if file_sha256(manifest.file(str(v.row.video))) in known]
    name = f"{bundle.manifest.name} ({bundle.bundle_id[:12]})"
    return Judged(name, videos, skipped, seen, threshold.value, threshold.chosen)


def _advance(bar: tqdm[None]) -> None:
    bar.update()


def write_report(folder: Path, manifest: Manifest, judged: Judged, found: Evaluation) -> Path:
    """Write pictures, then JSON, then the Markdown that shows them; its path."""
    folder.mkdir(parents=True, exist_ok=True)

    def find(video: VideoScores) -> Path | None:
        return None if video.row.video is None else manifest.file(video.row.video)

    pictures = draw(folder, found, judged.videos, find)
    (folder / FIGURES).write_text(json.dumps(found.to_json(), indent=1) + "\n")
    notes = []
    if judged.seen:
        notes.append(
            f"**{len(judged.seen)} of these videos were trained on**, so the figures flatter: "
            f"{', '.join(judged.seen[:3])}{' and others' if len(judged.seen) > 3 else ''}."
        )
    if judged.skipped:
        first, reason = next(iter(judged.skipped.items()))
        notes.append(f"{len(judged.skipped)} videos could not be scored; {first}: {reason}.")
    report = folder / REPORT
    report.write_text(markdown(judged.name, found, notes, pictures))
    return report
