"""gvvad-train extract: videos to features and a manifest of them, with a bar."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm  # type: ignore[import-untyped]

from training.clips import TrainingError
from training.crew import Crew
from training.encoders import EncoderChoice
from training.features import Work, extract
from training.manifest import MANIFEST, Row, joined, mark_tests, open_videos


def add_extract(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "extract",
        help="videos to features, and a manifest of them to train and evaluate on",
        description="Encode every video in windows, as the server would cut them. Features that "
        "are there already are kept; a video that cannot be read is skipped and its reason "
        "printed and kept in skipped.json.",
    )
    parser.add_argument(
        "videos",
        metavar="VIDEOS",
        type=Path,
        nargs="+",
        help="folder whose ground_truth.json, or those one folder down, name clips; or a manifest; "
        "of several the rows are joined",
    )
    parser.add_argument("--out", required=True, type=Path, help="folder for features and manifest")
    add_encoder(parser)
    parser.add_argument(
        "--frames",
        type=int,
        default=1,
        help="with --model: frames of a window that it sees, 1 to 16 (default 1, the middle one)",
    )
    parser.add_argument(
        "--crops",
        action="store_true",
        help="also ten crops of every window, to train on; figures use the whole picture",
    )
    parser.add_argument(
        "--test-share",
        type=float,
        metavar="SHARE",
        help="mark whole cameras or recordings with this share of the real videos as test, which "
        "evaluate judges on and train leaves alone; where nothing marks them yet",
    )
    parser.add_argument("--seed", type=int, default=0, help="of that choice (default %(default)s)")
    add_crew(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")


def add_encoder(parser: argparse.ArgumentParser) -> None:
    """Flags for which encoder sees the videos."""
    encoder = parser.add_mutually_exclusive_group(required=True)
    encoder.add_argument("--encoder", type=Path, metavar="BUNDLE", help="a bundle's encoder")
    encoder.add_argument("--model", help="visual tower of open_clip: name, or a model's JSON file")
    parser.add_argument("--pretrained", help="with --model: open_clip's tag, or a weights file")


def add_crew(parser: argparse.ArgumentParser) -> None:
    """Flags for who does the work."""
    parser.add_argument(
        "--workers",
        type=int,
        default=min(2, os.cpu_count() or 1),
        help="processes; the outcome is the same for any number, 1 to 64 (default %(default)s)",
    )
    parser.add_argument(
        "--ray",
        action="store_true",
        help="let Ray Data's workers do it, on this machine or the cluster of RAY_ADDRESS, whose "
        "machines must see the same files",
    )


def run_extract(options: argparse.Namespace) -> None:
    """Extract.

    Raises:
        TrainingError, BundleError: videos or encoder cannot be used.
    """
    if not 1 <= options.frames <= 16:
        raise TrainingError(f"--frames ({options.frames}) must be 1 to 16")
    if options.seed < 0:
        raise TrainingError(f"--seed ({options.seed}) must be 0 or more")
    out = options.out.absolute()
    source = joined([open_videos(path) for path in options.videos], out / MANIFEST)
    rows: Sequence[Row] = source.rows
    if options.test_share is not None:
        if not 0 < options.test_share < 1:
            raise TrainingError(f"--test-share ({options.test_share}) must be between 0 and 1")
        rows = mark_tests(rows, options.test_share, options.seed)
    choice = EncoderChoice(options.encoder, options.model, options.pretrained, options.frames)
    work = Work(out, choice, options.crops)
    crew = Crew(options.workers, options.ray)
    with tqdm(total=len(rows), desc="extract", unit="video", disable=None) as bar:
        outcome = extract(rows, out, work, crew, lambda name: _advance(bar, name))
    if options.json:
        content = {"manifest": str(outcome.manifest), "rows": outcome.rows}
        print(json.dumps(content | {"skipped": outcome.skipped}))
        return
    for name, reason in outcome.skipped.items():
        print(f"skipped {name}: {reason}", file=sys.stderr)
    print(f"{outcome.rows} of {len(rows)} videos in {outcome.manifest}")


def _advance(bar: tqdm[None], name: str) -> None:
    bar.update()
    bar.set_postfix_str(name[-30:], refresh=False)
