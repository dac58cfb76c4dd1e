"""gvvad-train filter: which generated videos are worth training on, and a report of why."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm  # type: ignore[import-untyped]

from training.clips import TrainingError
from training.crew import Crew
from training.encoders import EncoderChoice
from training.extract_cli import add_crew, add_encoder
from training.filter.criteria import BY_NAME, CRITERIA, Limit
from training.filter.findings import OVERRIDES, Findings
from training.filter.footage import Sampling
from training.filter.report import REPORT
from training.filter.run import Looking, Places, Wishes, run
from training.filter.verdicts import LABELS, Label, counts
from training.manifest import MANIFEST, open_videos

DEFAULT_SHARE = 0.5

_DESCRIPTION = """\
Judge every generated video by separate criteria, keep the best or those within limits
that real footage gives, and write a manifest that says `kept`, a report, histograms and
contact sheets.
"""
_EPILOG = """\
criteria:
{criteria}

examples:
  gvvad-train filter made --real CLIPS --model ViT-L-14 --pretrained openai --out kept
  gvvad-train filter made --real CLIPS --encoder server/default_bundle --by-limits --out kept

What is measured is kept: the same command with another decision takes seconds.
OUT/{overrides} holds decisions by hand; edit it and run the command again.
"""


def add_filter(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    told = "\n".join(f"  {one.name:12} {one.question}" for one in CRITERIA)
    parser = commands.add_parser(
        "filter",
        help="keep the generated videos that are worth training on",
        description=_DESCRIPTION,
        epilog=_EPILOG.format(criteria=told, overrides=OVERRIDES),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "videos",
        metavar="GENERATED",
        type=Path,
        help="manifest, or folder with one or with a ground_truth.json",
    )
    parser.add_argument(
        "--real",
        type=Path,
        help="the same of real videos, where GENERATED has none; test rows rest",
    )
    parser.add_argument("--out", required=True, type=Path, help="folder for all that is made")
    add_encoder(parser)
    _add_decision(parser)
    parser.add_argument(
        "--fps", type=float, default=8.0, help="that footage is looked at, Hz (default 8)"
    )
    parser.add_argument(
        "--seconds", type=float, default=30.0, help="of each video that are looked at (default 30)"
    )
    add_crew(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")


def _add_decision(parser: argparse.ArgumentParser) -> None:
    decision = parser.add_mutually_exclusive_group()
    decision.add_argument(
        "--keep",
        nargs="+",
        metavar="SHARE",
        help="part of each label's videos to keep, as 0.4 or anomalous=0.39 normal=0.63 "
        f"(default {DEFAULT_SHARE})",
    )
    decision.add_argument(
        "--by-limits", action="store_true", help="keep what lies within every limit instead"
    )
    parser.add_argument(
        "--criteria",
        nargs="+",
        choices=sorted(BY_NAME),
        metavar="NAME",
        help="that count (default all that can be known)",
    )
    parser.add_argument(
        "--limit",
        nargs="+",
        default=[],
        metavar="NAME=LOW:HIGH",
        help="in place of those that real footage gives; either end may be left out",
    )
    parser.add_argument(
        "--overrides", type=Path, help=f"decisions by hand (default OUT/{OVERRIDES})"
    )
    parser.add_argument(
        "--detector", type=Path, metavar="BUNDLE", help="trained on real videos alone, to ask too"
    )


def run_filter(options: argparse.Namespace) -> None:
    """Filter.

    Raises:
        TrainingError, BundleError: videos, encoder or a wish cannot be used.
    """
    generated = open_videos(options.videos)
    real = generated if options.real is None else open_videos(options.real)
    shares = None if options.by_limits else _shares(options.keep)
    criteria = None if options.criteria is None else tuple(dict.fromkeys(options.criteria))
    limits = dict(_limit(text) for text in options.limit)
    wishes = Wishes(shares, criteria, limits, options.overrides, options.detector)
    choice = EncoderChoice(options.encoder, options.model, options.pretrained)
    looking = Looking(
        choice, Sampling(options.fps, options.seconds), Crew(options.workers, options.ray)
    )
    bars: list[tqdm[None]] = []
    try:
        found = run(
            Places(generated, real, options.out.absolute()),
            wishes,
            looking,
            lambda title, total: _begun(bars, title, total),
        )
    finally:
        for bar in bars:
            bar.close()
    _tell(found, options)


def _begun(bars: list[tqdm[None]], title: str, total: int) -> Callable[[int], None]:
    bar = tqdm(total=total, desc=title, unit="video", disable=None)
    bars.append(bar)

    def advance(count: int) -> None:
        bar.update(count)

    return advance


def _shares(words: Sequence[str] | None) -> dict[Label, float]:
    shares: dict[Label, float] = dict.fromkeys(LABELS, DEFAULT_SHARE)
    for word in words or ():
        label, _, number = word.rpartition("=")
        try:
            share = float(number)
        except ValueError:
            share = float("nan")
        names = [name for name in LABELS if label in ("", name)]
        if not 0 < share <= 1 or not names:
            raise TrainingError(
                f"--keep {word!r} must be a share over 0 and up to 1, alone or as "
                "anomalous=SHARE or normal=SHARE"
            )
        shares |= dict.fromkeys(names, share)
    return shares


def _limit(word: str) -> tuple[str, Limit]:
    name, _, ends = word.partition("=")
    low, colon, high = ends.partition(":")
    try:
        limit = Limit(low=float(low) if low else None, high=float(high) if high else None)
    except ValueError:
        limit = Limit()
    empty = limit.low is None and limit.high is None
    crossed = None not in (limit.low, limit.high) and float(limit.low or 0) > float(limit.high or 0)
    if name not in BY_NAME or not colon or empty or crossed:
        raise TrainingError(
            f"--limit {word!r} must be NAME=LOW:HIGH with LOW or HIGH or both, the lower first, "
            f"and a NAME of {', '.join(BY_NAME)}"
        )
    return name, limit


def _tell(found: Findings, options: argparse.Namespace) -> None:
    numbers = counts(found.verdicts)
    files = {"manifest": str(options.out / MANIFEST), "report": str(options.out / REPORT)}
    if options.json:
        told = {label: {"kept": kept, "of": of} for label, (kept, of) in numbers.items()}
        print(json.dumps(files | {"videos": told, "skipped": found.skipped}))
        return
    for name, reason in found.skipped.items():
        print(f"skipped {name}: {reason}", file=sys.stderr)
    for label, (kept, of) in numbers.items():
        print(f"{label}: {kept} of {of} kept")
    print(f"manifest in {files['manifest']}, report in {files['report']}")
