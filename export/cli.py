"""gvvad-export: make a bundle that the server loads, and verify one."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from server.bundle import BundleError
from training.checkpoint import load_checkpoint
from training.clips import TrainingError

_EPILOG = """\
example:
  gvvad-export bundle --checkpoint runs/embedded --out runs/embedded/bundle
  gvvad-export verify runs/embedded/bundle --checkpoint runs/embedded
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    options = _parser().parse_args(arguments)
    try:
        {"bundle": _bundle, "verify": _verify}[options.command](options)
    except (TrainingError, BundleError, OSError) as error:
        print(f"gvvad-export: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gvvad-export",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    one = commands.add_parser(
        "bundle",
        help="write encoder.onnx, head.onnx and bundle.json",
        description="Export a finished training run. The bundle is written whole or not at all; "
        "an older bundle at that place is replaced, anything else is left alone.",
    )
    one.add_argument("--checkpoint", required=True, type=Path, help="folder of gvvad-train train")
    one.add_argument("--out", required=True, type=Path, metavar="DIR", help="the bundle")
    two = commands.add_parser(
        "verify",
        help="check hashes, shapes and numbers of a bundle",
        description="Check a bundle's hashes and shapes and that its scores do not depend on "
        "the batch; with --checkpoint also that features and a thousand steps of scores equal "
        "torch's within 1e-4.",
    )
    two.add_argument("directory", metavar="DIR", type=Path, help="the bundle")
    two.add_argument("--checkpoint", type=Path, help="what it was exported from")
    two.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _bundle(options: argparse.Namespace) -> None:
    from export.bundle import export_bundle

    checkpoint = load_checkpoint(options.checkpoint)
    print("exporting two graphs, about half a minute ...", file=sys.stderr)
    bundle = export_bundle(checkpoint, options.out)
    print(f"bundle {bundle.bundle_id} in {options.out}")


def _verify(options: argparse.Namespace) -> None:
    from export.verify import verify

    checkpoint = load_checkpoint(options.checkpoint) if options.checkpoint else None
    found = verify(options.directory, checkpoint)
    if options.json:
        print(json.dumps(asdict(found)))
        return
    for name, value in asdict(found).items():
        shown = "not compared, no --checkpoint" if value is None else value
        print(f"{name:16} {shown:.3g}" if isinstance(value, float) else f"{name:16} {shown}")
    print("verified")
