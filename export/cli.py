"""gvvad-export: make a bundle that the server loads, and verify one."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm  # type: ignore[import-untyped]

from export.bench_cli import add_bench, run_bench
from export.engines import EVERY_ENGINE
from export.parity_cli import add_parity, run_parity, tell, wants_parity
from server.bundle import BundleError
from server.contract import WINDOW_FRAMES
from server.engine.flags import (
    EngineFlags,
    add_engine_flags,
    add_threads_flag,
    read_engine_flags,
)
from server.engine.onnxruntime import EngineError
from training.bank import load_bank
from training.checkpoint import load_checkpoint
from training.clips import TrainingError
from training.head_run import load_run

if TYPE_CHECKING:
    from export.head_bundle import EncoderSource

_EPILOG = """\
example:
  gvvad-export bundle --checkpoint runs/embedded --out runs/embedded/bundle
  gvvad-export verify runs/embedded/bundle --checkpoint runs/embedded
  gvvad-export encoder --out runs/cells
  gvvad-export bundle --encoder server/default_bundle --head runs/mine --out runs/mine/bundle
  gvvad-export bundle --encoder ViT-L-14 --pretrained openai --head runs/clip --out runs/clip/bundle
"""

_TOWER_FLAGS = ("engine", "precision", "frames", "calibrate", "min_cosine")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    options = _parser().parse_args(arguments)
    try:
        _COMMANDS[options.command](options)
    except (TrainingError, BundleError, EngineError, OSError) as error:
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
        help="write the encoder's graph, head.onnx and bundle.json",
        description="Export a finished training run: one that fitted encoder and head, or the "
        "head of a run on features beside the encoder that made them, another bundle's or a "
        "visual tower of open_clip. The bundle is written whole or not at all; an older bundle at "
        "that place is replaced, anything else is left alone.",
    )
    run = one.add_mutually_exclusive_group(required=True)
    run.add_argument("--checkpoint", type=Path, help="folder of gvvad-train train --windows")
    run.add_argument("--head", type=Path, help="folder of gvvad-train train --manifest")
    one.add_argument(
        "--encoder",
        metavar="BUNDLE|MODEL",
        help="with --head: whose encoder made the features; with --pretrained the tower's name in "
        "open_clip, or a model's JSON file",
    )
    one.add_argument("--bank", type=Path, help="with --head: the bank that it was trained on")
    one.add_argument(
        "--threshold", type=float, help="with --head: default open threshold, instead of the run's"
    )
    one.add_argument("--out", required=True, type=Path, metavar="DIR", help="the bundle")
    _add_tower(one)
    two = commands.add_parser(
        "verify",
        help="check hashes, shapes and numbers of a bundle",
        description="Check a bundle's hashes and shapes and that its scores do not depend on "
        "the batch; with --checkpoint also that features and a thousand steps of scores equal "
        "torch's within 1e-4; with --head the same of the scores alone. With --reference or "
        "--model features are compared too, by every engine that runs here.",
    )
    two.add_argument("directory", metavar="DIR", type=Path, help="the bundle")
    made_of = two.add_mutually_exclusive_group()
    made_of.add_argument("--checkpoint", type=Path, help="what it was exported from")
    made_of.add_argument("--head", type=Path, help="the run on features that it was exported from")
    add_parity(two)
    add_engine_flags(two, "every one that can run the bundle here")
    add_threads_flag(two)
    two.add_argument("--json", action="store_true", help="print one JSON object")
    _add_encoder(commands)
    add_bench(commands)
    return parser


def _add_tower(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("with --encoder MODEL")
    group.add_argument("--pretrained", help="open_clip's tag, or a weights file")
    group.add_argument(
        "--frames", type=int, metavar="S", help="of a window that it sees, as in extract (1)"
    )
    group.add_argument(
        "--engine", choices=("onnxruntime", "tensorrt"), help="that will run it (onnxruntime)"
    )
    group.add_argument(
        "--precision",
        choices=("fp32", "fp16", "bf16", "int8", "fp8"),
        help="of the tower; bf16 and fp8 for tensorrt alone (fp32)",
    )
    group.add_argument(
        "--calibrate",
        type=Path,
        metavar="CLIPS",
        help="with int8 and fp8: folder of real footage, to find ranges and to judge by",
    )
    group.add_argument(
        "--min-cosine",
        type=float,
        metavar="COSINE",
        help="with int8 and fp8: to the features in fp32; what costs most is not rounded until "
        "it is reached (0.995)",
    )


def _add_encoder(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "encoder",
        help="write a bundle whose encoder needs no training, to extract features with",
        description="Its feature is a grid: flow and moving edges of every cell of the picture. "
        "Fit a density to what gvvad-train extract makes with it, its `cells` as printed here; "
        "until then the bundle's own score is how much moves.",
    )
    for name, pixels, what in (
        ("height", 240, "of the image"),
        ("width", 360, "of the image"),
        ("cell", 32, "side of a cell"),
        ("stride", 16, "from one cell to the next; less than a cell makes them overlap"),
    ):
        parser.add_argument(
            f"--{name}",
            type=int,
            default=pixels,
            metavar="PIXELS",
            help=f"{what}, a multiple of 4 (default %(default)s)",
        )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="the bundle")


def _encoder(options: argparse.Namespace) -> None:
    from export.cells import export_cells
    from training.motion_cells import CellSpec

    try:
        spec = CellSpec(options.height, options.width, options.cell, options.stride)
    except ValueError as error:
        raise TrainingError(f"--{error}") from None
    print("exporting two graphs, about a quarter of a minute ...", file=sys.stderr)
    bundle = export_cells(spec, options.out)
    print(f"bundle {bundle.bundle_id} in {options.out}: {spec.cells} cells")


def _bundle(options: argparse.Namespace) -> None:
    from export.bundle import export_bundle
    from export.head_bundle import HeadParts, export_head_bundle

    if options.head is None:
        for name in ("encoder", "bank", "threshold", "pretrained", *_TOWER_FLAGS):
            if getattr(options, name) is not None:
                raise TrainingError(f"--{name.replace('_', '-')} goes with --head alone")
        checkpoint = load_checkpoint(options.checkpoint)
        print("exporting two graphs, about half a minute ...", file=sys.stderr)
        bundle = export_bundle(checkpoint, options.out)
    else:
        if options.encoder is None:
            raise TrainingError("--head needs --encoder BUNDLE, whose encoder made the features")
        if options.threshold is not None and not 0 < options.threshold <= 1:
            raise TrainingError(f"--threshold ({options.threshold}) must be over 0 and at most 1")
        bank = None if options.bank is None else load_bank(options.bank)
        with Stages() as stages:
            source = _source(options, stages)
            print("exporting the head, about a quarter of a minute ...", file=sys.stderr)
            parts = HeadParts(options.head, source, bank, options.threshold)
            bundle = export_head_bundle(parts, options.out)
    print(f"bundle {bundle.bundle_id} in {options.out}")


def _source(options: argparse.Namespace, stages: Stages) -> EncoderSource:
    """Whichever encoder was asked for."""
    from export.head_bundle import BundleSource

    if options.pretrained is not None:
        return _tower(options, stages)
    for name in _TOWER_FLAGS:
        if getattr(options, name) is not None:
            raise TrainingError(
                f"--{name.replace('_', '-')} goes with --encoder MODEL --pretrained TAG_OR_FILE; "
                "a bundle's encoder is taken as it is"
            )
    if not Path(options.encoder).exists():
        raise TrainingError(
            f"--encoder {options.encoder} is no folder; give a bundle's, or with --pretrained the "
            "name of a model"
        )
    return BundleSource(Path(options.encoder))


def _tower(options: argparse.Namespace, stages: Stages) -> EncoderSource:
    """A tower, once all that was said of it makes sense."""
    from export.clip_bundle import ClipSource, Rounding
    from export.tower import TowerForm
    from training.encoders import ClipEncoder

    form = TowerForm(options.engine or "onnxruntime", options.precision or "fp32")
    frames = 1 if options.frames is None else options.frames
    if not 1 <= frames <= WINDOW_FRAMES:
        raise TrainingError(f"--frames ({frames}) must be 1 to {WINDOW_FRAMES}")
    for name in ("calibrate", "min_cosine"):
        if getattr(options, name) is not None and not form.needs_rounding:
            raise TrainingError(f"--{name.replace('_', '-')} goes with --precision int8 or fp8")
    rounding = None
    if form.needs_rounding:
        if options.calibrate is None:
            raise TrainingError(
                f"--precision {form.precision} needs --calibrate CLIPS, a folder of footage"
            )
        least = {} if options.min_cosine is None else {"min_cosine": options.min_cosine}
        rounding = Rounding(options.calibrate, **least)
    print("exporting the tower, minutes for a large one ...", file=sys.stderr)
    encoder = ClipEncoder(options.encoder, options.pretrained, frames)
    return ClipSource(encoder, form, rounding, print, stages)


class Stages:
    """A bar for whatever is being done, one after the other."""

    def __init__(self) -> None:
        self._what = ""
        self._bar: tqdm[None] | None = None

    def __enter__(self) -> Stages:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, what: str, done: int, total: int) -> None:
        if self._bar is None or self._what != what:
            self.__exit__()
            self._what = what
            self._bar = tqdm(desc=what, total=total, disable=None, file=sys.stderr)
        self._bar.update(done - self._bar.n)


def _verify(options: argparse.Namespace) -> None:
    from export.verify import verify

    checkpoint = load_checkpoint(options.checkpoint) if options.checkpoint else None
    run = load_run(options.head) if options.head else None
    compares, engines = wants_parity(options), _engines(options)
    found = verify(options.directory, checkpoint, None if run is None else run.head, engines)
    compared = run_parity(options, engines) if compares else None
    if options.json:
        told = {} if compared is None else {"compared": asdict(compared)}
        print(json.dumps(asdict(found) | told))
        return
    for name, value in asdict(found).items():
        shown = "not compared" if value is None else value
        print(f"{name:16} {shown:.3g}" if isinstance(value, float) else f"{name:16} {shown}")
    if compared is not None:
        tell(compared, options.directory)
    print("verified")


def _engines(options: argparse.Namespace) -> tuple[EngineFlags, ...]:
    if options.engine is None and options.device is None and options.threads is None:
        return EVERY_ENGINE
    try:
        return (read_engine_flags(options),)
    except ValueError as error:
        raise TrainingError(str(error)) from None


_COMMANDS = {"bundle": _bundle, "encoder": _encoder, "verify": _verify, "bench": run_bench}
