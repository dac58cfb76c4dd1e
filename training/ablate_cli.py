"""gvvad-train ablate: the paper's ablations and two of its open questions, as reports."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from pydantic import BaseModel
from tqdm import tqdm  # type: ignore[import-untyped]

from training import ablate_gap, ablate_learnable
from training.ablate_filter import check_known, filter_arms
from training.ablate_gap import GAPS, GapCell, GapResult, gap_figures
from training.ablate_learnable import POLICIES, PROBLEMS, PolicyCell, PolicyResult, policy_figures
from training.ablate_pictures import draw_arms, draw_gap, draw_learnable, draw_shares
from training.ablate_report import (
    FEW_SEEDS,
    arms_json,
    arms_markdown,
    compared,
    gap_markdown,
    learnable_markdown,
)
from training.ablate_run import HeadResult, Study, check_seeds, figures, open_study
from training.ablation import Ablation, bases, fig5, table2, table3
from training.cells import CELLS, Cell, Shelf, run_cells
from training.clips import TrainingError
from training.filter.findings import load_findings
from training.mil_cli import DEFAULT_HEAD
from training.mil_data import Texts
from training.mil_recipe import BUILT_IN, MilRecipe, load_mil_recipe

R = TypeVar("R", bound=BaseModel)

_ON_MANIFESTS = {
    "table2": "generation, filtering and loss scaling, beside the paper's Table II",
    "table3": "values of lambda and policies that learn it, beside the paper's Table III",
    "fig5": "a quarter to all of the real videos, alone and with synthetic ones, beside Fig. 5",
    "bases": "several recipes side by side, each alone and with synthetic videos",
    "filter": "open question 1: each criterion of the filter on its own and left out",
}
_CONTROLLED = {
    "gap": "open question 2: the best lambda over controlled domain gaps",
    "learnable": "open question 3: lambda and gradients of every policy, step by step",
}
_EPILOG = """\
examples:
  gvvad-train ablate table2 --manifest ucf.jsonl --recipe lap-causal --out runs/ablate
  gvvad-train ablate table3 --manifest fold-*.jsonl --seeds 10 --out runs/ablate
  gvvad-train ablate gap --out runs/gap

The same command goes on after an interruption. Runs that two tables share are done once if both
have one --out.
"""


def add_ablate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "ablate",
        help="the paper's ablations over several seeds, and controlled experiments",
        description="Train variants over several seeds and write OUT/WHAT.md, a table with a "
        "picture, beside the paper's figures; or settle a question on controlled problems.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    for name, told in _ON_MANIFESTS.items():
        one = what.add_parser(name, help=told, description=told)
        _add_manifest_options(one, several=name == "bases")
        if name == "filter":
            one.add_argument("--verdicts", required=True, type=Path, help="what filter wrote")
        else:
            _add_filter_option(one)
        _add_shared_options(one)
    for name, told in _CONTROLLED.items():
        one = what.add_parser(name, help=told, description=f"{told}; needs no data")
        _add_shared_options(one)


def _add_manifest_options(parser: argparse.ArgumentParser, *, several: bool) -> None:
    parser.add_argument(
        "--manifest",
        required=True,
        type=Path,
        nargs="+",
        help="JSON lines, a video with features each; several are folds, whose test videos' "
        "frames are pooled",
    )
    parser.add_argument(
        "--recipe",
        nargs="+" if several else None,
        default=[DEFAULT_HEAD] if several else DEFAULT_HEAD,
        help=f"YAML file or one of {', '.join(BUILT_IN)} (default {DEFAULT_HEAD})",
    )
    parser.add_argument("--prompts", type=Path, help=".npy of (P, E) embeddings, for MPL and PAL")
    parser.add_argument("--bank", type=Path, help="what bank made, for recipes on a bank")


def _add_filter_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--without-filter",
        action="store_true",
        help="leave the filter out, as where the manifest does not say which videos it `kept`",
    )


def _add_shared_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seeds",
        type=int,
        default=FEW_SEEDS,
        help=f"runs of each variant, 2 or more; under {FEW_SEEDS} their spread means little "
        "(default %(default)s)",
    )
    parser.add_argument("--steps", type=int, help="of each run (default the recipe's)")
    parser.add_argument(
        "--workers",
        type=int,
        default=min(2, os.cpu_count() or 1),
        help="runs at the same time, a core each; the outcome is the same for any number "
        "(default %(default)s)",
    )
    parser.add_argument("--out", required=True, type=Path, help="folder for report and runs")
    parser.add_argument("--json", action="store_true", help="print the table as one JSON object")


def run_ablate(options: argparse.Namespace) -> None:
    """Run, report, say where.

    Raises:
        TrainingError: data, recipe or options cannot be used.
    """
    if not 1 <= options.workers <= 64:
        raise TrainingError(f"--workers ({options.workers}) must be 1 to 64")
    if options.steps is not None and options.steps < 1:
        raise TrainingError(f"--steps ({options.steps}) must be 1 or more")
    check_seeds(options.seeds)
    torch.set_num_threads(1)  # so that the outcome is that of any number of workers
    if options.what == "gap":
        _run_gap(options)
    elif options.what == "learnable":
        _run_learnable(options)
    else:
        _run_arms(options)


def _run_arms(options: argparse.Namespace) -> None:
    study = open_study(options.manifest, Texts(options.prompts, options.bank), options.seeds)
    ablation = _ablation(options, study)
    shelf = Shelf(options.out / CELLS, HeadResult)
    _run([cell for arm in ablation.arms for cell in study.cells(arm)], shelf, options.workers)
    rows = compared(figures(ablation, study, shelf))
    draw = draw_shares if ablation.name == "fig5" else draw_arms
    draw(options.out / f"{ablation.name}.png", ablation.title, rows)
    text = arms_markdown(ablation, study, rows)
    _write(options, text, arms_json(ablation, study, rows))


def _ablation(options: argparse.Namespace, study: Study) -> Ablation:
    if options.what == "filter":
        found = load_findings(options.verdicts)
        check_known(study.manifests, found)
        return filter_arms(_recipe(options.recipe, options), found)
    filtered = study.filtered and not options.without_filter
    if options.what == "bases":
        recipes = [(name, _recipe(name, options)) for name in options.recipe]
        return bases(recipes, filtered=filtered, made=study.made)
    if not study.made:
        raise TrainingError(
            f"{options.what} compares training with and without synthetic videos, but a manifest "
            'has none; mark them with "source": "synthetic"'
        )
    if options.what == "table2" and not study.filtered and not options.without_filter:
        raise TrainingError(
            "table2 has rows with the filter, but a manifest says of no synthetic video whether "
            "it was `kept`; mark them true or false, or give --without-filter to leave those "
            "rows out"
        )
    tables: dict[str, Callable[..., Ablation]] = {"table2": table2, "table3": table3, "fig5": fig5}
    return tables[options.what](_recipe(options.recipe, options), filtered=filtered)


def _recipe(name: str, options: argparse.Namespace) -> MilRecipe:
    recipe = load_mil_recipe(name)
    return recipe if options.steps is None else recipe.model_copy(update={"steps": options.steps})


def _run_gap(options: argparse.Namespace) -> None:
    steps = options.steps or ablate_gap.STEPS
    cells = [GapCell(gap, seed, steps) for gap in GAPS for seed in range(options.seeds)]
    shelf = Shelf(options.out / CELLS, GapResult)
    _run(cells, shelf, options.workers)
    by_gap = _by(options.seeds, [shelf.result(cell) for cell in cells])
    found = gap_figures(dict(zip(GAPS, by_gap, strict=True)))
    told = ablate_gap.conclusions(found)
    draw_gap(options.out / "gap.png", found)
    content = {"conclusions": told, "rows": [one.to_json() for one in found.values()]}
    _write(options, gap_markdown(found, options.seeds, told), content)


def _run_learnable(options: argparse.Namespace) -> None:
    steps = options.steps or ablate_learnable.STEPS
    pairs = [(problem, policy) for problem in PROBLEMS for policy in POLICIES]
    cells = [PolicyCell(*pair, seed, steps) for pair in pairs for seed in range(options.seeds)]
    shelf = Shelf(options.out / CELLS, PolicyResult)
    _run(cells, shelf, options.workers)
    by_pair = _by(options.seeds, [shelf.result(cell) for cell in cells])
    found = policy_figures(dict(zip(pairs, by_pair, strict=True)))
    told = ablate_learnable.conclusions(found)
    draw_learnable(options.out / "learnable.png", found)
    content = {"conclusions": told, "rows": [one.to_json() for one in found]}
    _write(options, learnable_markdown(found, options.seeds, told), content)


def _by(seeds: int, results: Sequence[R]) -> list[Sequence[R]]:
    return [results[first : first + seeds] for first in range(0, len(results), seeds)]


def _run(cells: Sequence[Cell[R]], shelf: Shelf[R], workers: int) -> None:
    """Do the cells that are left, with a bar over their steps."""
    left = shelf.unfinished(cells)
    total = sum(cell.steps for cell in left)
    with tqdm(total=total, desc=f"{len(left)} runs", unit="step", disable=None) as bar:
        run_cells(cells, shelf, workers, lambda steps: _advance(bar, steps))


def _advance(bar: tqdm[None], steps: int) -> None:
    bar.update(steps)


def _write(options: argparse.Namespace, text: str, content: dict[str, object]) -> None:
    report = options.out / f"{options.what}.md"
    (options.out / f"{options.what}.json").write_text(json.dumps(content, indent=1) + "\n")
    report.write_text(text)
    if options.json:
        print(json.dumps(content | {"report": str(report)}))
        return
    print(text, end="")
    print(f"\nreport in {report}")
