"""gvvad-export bench: images a second, latency, memory, and how much of the machine that is."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm  # type: ignore[import-untyped]

from export.bench import Contestant, Figure, Plan, contestants, measure
from export.flops import graph_flops
from server.bundle import load_bundle
from server.engine.flags import add_engine_flags
from training.clips import TrainingError

MOST_BATCH = 1024


def add_bench(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "bench",
        help="measure a bundle's encoder beside plain ONNX Runtime and torch",
        description="Contestants take turns, and every round measures the machine's rate of "
        "matrix products as well: compare ratios and shares, not seconds of different days.",
    )
    parser.add_argument("directory", metavar="DIR", type=Path, help="the bundle")
    parser.add_argument("--model", help="the same tower in torch: open_clip's name, or a JSON file")
    parser.add_argument("--pretrained", help="with --model: open_clip's tag, or a weights file")
    parser.add_argument(
        "--batch",
        type=int,
        nargs="+",
        default=list(Plan().batches),
        metavar="B",
        help="windows at a time (default 1 to 64)",
    )
    parser.add_argument("--rounds", type=int, default=3, help="that take turns (default 3)")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a turn at least (default 1)")
    parser.add_argument(
        "--threads",
        type=int,
        default=os.cpu_count() or 1,
        help="of every contestant on the CPU (default all %(default)s cores)",
    )
    add_engine_flags(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")


def run_bench(options: argparse.Namespace) -> None:
    """Measure and tell.

    Raises:
        TrainingError, BundleError: flags, bundle or model cannot be used.
        EngineError: the engine asked for cannot run the bundle.
    """
    if not all(1 <= batch <= MOST_BATCH for batch in options.batch):
        raise TrainingError(f"--batch ({options.batch}) must be 1 to {MOST_BATCH} each")
    if not 1 <= options.rounds <= 100 or not 0 < options.seconds <= 600:
        raise TrainingError("--rounds must be 1 to 100, and --seconds over 0 and up to 600")
    if not 1 <= options.threads <= 1024:
        raise TrainingError(f"--threads ({options.threads}) must be 1 to 1024")
    if (options.model is None) != (options.pretrained is None):
        raise TrainingError("--model and --pretrained go together; give both or neither")
    bundle = load_bundle(options.directory)
    model = None if options.model is None else (options.model, options.pretrained)
    batches = tuple(sorted(set(options.batch)))
    plan = Plan(
        batches,
        options.rounds,
        options.seconds,
        options.threads,
        options.engine or "onnxruntime",
        options.device,
    )
    who, lacking = contestants(bundle, model, plan)
    flops = graph_flops(bundle.encoder_path)
    turns = len(batches) * plan.rounds * len(who)
    with tqdm(total=turns, desc="bench", unit="turn", disable=None) as bar:
        found = measure(who, bundle, flops, plan, bar.update)
    for name, reason in lacking.items():
        print(f"left out {name}: {reason}", file=sys.stderr)
    if options.json:
        memory = {one.name: one.bytes for one in who}
        content = {
            "bundle": bundle.bundle_id,
            "gflop_a_window": flops / 1e9,
            "bytes": memory,
            "devices": {one.name: one.device for one in who},
        }
        print(json.dumps(content | {"figures": [asdict(one) for one in found]}))
        return
    _tell(found, who, flops)


def _tell(found: Sequence[Figure], who: Sequence[Contestant], flops: float) -> None:
    print(f"{flops / 1e9:.1f} GFLOP a window; share: of this machine's own matrix products in fp32")
    print(f"{'':20} {'batch':>5} {'images/s':>9} {'latency':>10} {'share':>6} {'x plain':>8}")
    for one in found:
        share = "-" if one.peak_share is None else f"{100 * one.peak_share:.0f}%"
        ratio = "-" if one.ratio is None else f"{one.ratio:.2f}"
        print(
            f"{one.name:20} {one.batch:5} {one.images_per_second:9.2f} "
            f"{1e3 * one.latency_seconds:7.1f} ms {share:>6} {ratio:>8}"
        )
    for contestant in who:
        told = f"about {contestant.bytes / 1e6:.0f} MB to load and run once"
        print(f"{contestant.name:20} on {contestant.device}, {told}")
