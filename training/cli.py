"""gvvad-train: make a detector from labelled clips."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm  # type: ignore[import-untyped]

from server.bundle import BundleError
from server.engine.onnxruntime import EngineError
from server.preprocess import PreprocessSpec
from training.ablate_cli import add_ablate, run_ablate
from training.bank_cli import add_bank, run_bank
from training.clips import TrainingError, find_clips
from training.density_recipe import HEAD_RECIPES
from training.describe.cli import add_describe, run_describe
from training.evaluate_cli import add_evaluate, run_evaluate
from training.extract_cli import add_extract, run_extract
from training.filter.cli import add_filter, run_filter
from training.generate.cli import add_generate, run_generate
from training.import_cli import add_import, run_import
from training.mil_cli import DEFAULT_HEAD, run_head
from training.recipe import EMBEDDED, load_recipe
from training.render import render
from training.report import Report
from training.selftest_cli import add_selftest, run_selftest
from training.train import Places, Progress, total_steps, train

EMBEDDED_PREPROCESS = PreprocessSpec(112, 112, "squash", "area", "bt601", "declared")

_EPILOG = """\
example:
  gvvad-train extract CLIPS --encoder server/default_bundle --out runs/mine/features
  gvvad-train train --manifest runs/mine/features/manifest.jsonl --out runs/mine
  gvvad-export bundle --encoder server/default_bundle --head runs/mine --out runs/mine/bundle
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    options = _parser().parse_args(arguments)
    # Ended by its supervisor or by hand, a run stops its workers.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _COMMANDS[options.command](options)
    except (TrainingError, BundleError, EngineError, OSError) as error:
        print(f"gvvad-train: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("gvvad-train: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gvvad-train",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_describe(commands)
    add_generate(commands)
    add_filter(commands)
    add_extract(commands)
    add_import(commands)
    one = commands.add_parser(
        "render",
        help="render every clip once, at the size that the model sees",
        description="Render every clip that a ground_truth.json in DATA_DIR or one folder down "
        "names. Clips that are there already are kept; one that cannot be read is skipped.",
    )
    one.add_argument("data", metavar="DATA_DIR", type=Path, help="folder of the clips")
    one.add_argument("--out", required=True, type=Path, help="folder for the rendered frames")
    two = commands.add_parser(
        "train",
        help="fit a detector, with out-of-fold figures by source",
        description="Fit a detector a fold of sources for honest figures, then one on all "
        "clips. Finished folds are kept: the same command goes on after an interruption.",
    )
    data = two.add_mutually_exclusive_group(required=True)
    data.add_argument("--windows", type=Path, help="what render wrote: fit encoder and head")
    data.add_argument(
        "--manifest", type=Path, help="JSON lines, a video with features each: fit a head"
    )
    two.add_argument("--out", required=True, type=Path, help="folder for checkpoint and figures")
    two.add_argument(
        "--recipe",
        help=f"YAML; with --manifest also {', '.join(HEAD_RECIPES)} (default {DEFAULT_HEAD}), "
        "with --windows the embedded detector's",
    )
    two.add_argument(
        "--prompts", type=Path, help=".npy of (P, E) sentence embeddings, for MPL and PAL"
    )
    two.add_argument("--bank", type=Path, help="what bank made, for recipes on a bank")
    two.add_argument(
        "--workers",
        type=int,
        default=min(2, os.cpu_count() or 1),
        help="processes that fit at the same time, half a gigabyte each; the outcome is the "
        "same for any number (default %(default)s)",
    )
    add_evaluate(commands)
    add_bank(commands)
    add_ablate(commands)
    add_selftest(commands)
    return parser


def _render(options: argparse.Namespace) -> None:
    clips = find_clips(options.data)
    shown = tqdm(clips, desc="render", unit="clip", disable=None)
    extraction = render(shown, options.data, options.out, EMBEDDED_PREPROCESS)
    for stored in extraction.clips:
        if stored.skipped is not None:
            print(f"skipped {stored.clip.name}: {stored.skipped}", file=sys.stderr)
    print(f"{len(extraction.usable)} of {len(clips)} clips in {options.out}")


def _train(options: argparse.Namespace) -> None:
    if options.manifest is not None:
        run_head(options)
        return
    if not 1 <= options.workers <= 64:
        raise TrainingError(f"--workers ({options.workers}) must be 1 to 64")
    recipe = load_recipe(EMBEDDED if options.recipe is None else Path(options.recipe))
    with tqdm(total=total_steps(recipe), desc="train", unit="step", disable=None) as bar:
        progress = Progress(
            lambda clips: tqdm(clips, desc="windows", unit="clip", disable=None, leave=False),
            lambda steps: _advance(bar, steps),
        )
        places = Places(options.windows, options.out)
        report = train(places, recipe, options.workers, progress)
    _print_report(report)
    print(f"checkpoint in {options.out}; next: gvvad-export bundle --checkpoint {options.out}")


def _advance(bar: tqdm[None], steps: int) -> None:
    bar.update(steps)


def _print_report(report: Report) -> None:
    print("source            anomalous normal   AUC  baseline  found  false events  minutes")
    for line in report.sources():
        print(
            f"{line.source[:18]:18}{line.anomalous:8}{line.normal:8}{_number(line.auc):>8}"
            f"{_number(line.baseline_auc):>8}{line.detected:8}{line.false_events:8}"
            f"{line.normal_minutes:8.1f}"
        )
    for name, value in report.metrics().items():
        print(f"{name:50} {value:.3f}")
    print(f"threshold {report.threshold:.4f}: {report.threshold_rule()}")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


_COMMANDS = {
    "render": _render,
    "filter": run_filter,
    "generate": run_generate,
    "extract": run_extract,
    "import": run_import,
    "train": _train,
    "evaluate": run_evaluate,
    "ablate": run_ablate,
    "bank": run_bank,
    "selftest": run_selftest,
    "describe": run_describe,
}
