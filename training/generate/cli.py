"""gvvad-train generate: descriptions to videos and a manifest of them, with a bar."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from tqdm import tqdm  # type: ignore[import-untyped]

from training.clips import TrainingError
from training.crew import Crew
from training.generate.backend import BUILT_IN, Dtype, changed, load_backend
from training.generate.folder import Folder, Shard
from training.generate.memory import OFFLOADS, Device
from training.generate.run import Request, generate
from training.generate.worker import Hardware
from training.manifest import load_manifest

_SETTINGS = ("steps", "guidance", "frames", "fps", "height", "width", "negative_prompt")
_MOST_BATCH = 64
_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total} [{elapsed}<{remaining}{postfix}]"


def add_generate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "generate",
        help="descriptions to videos, by a text-to-video pipeline of diffusers",
        description="Make a video of every description, and a manifest of those that are there. "
        "Videos that are there already are kept: after any interruption the same command goes on, "
        "and tries those again that failed.",
    )
    parser.add_argument(
        "descriptions",
        metavar="DESCRIPTIONS.jsonl",
        type=Path,
        help="JSON lines, a row with a description each; a row without a seed gets its id's",
    )
    parser.add_argument(
        "--backend",
        required=True,
        help=f"{', '.join(BUILT_IN)}, or a YAML file like theirs for any other pipeline",
    )
    parser.add_argument(
        "--weights", metavar="DIR_OR_HUB_ID", help="default: what the backend names, from the hub"
    )
    parser.add_argument("--out", required=True, type=Path, help="folder for videos and manifest")
    _add_settings(parser)
    _add_hardware(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")


def _add_settings(parser: argparse.ArgumentParser) -> None:
    one = parser.add_argument_group("settings, where they are not the backend's")
    one.add_argument("--steps", type=int, help="of denoising")
    one.add_argument("--guidance", type=float, help="scale of classifier-free guidance")
    one.add_argument("--frames", type=int, help="of a video")
    one.add_argument("--fps", type=float, help="of a video")
    one.add_argument("--height", type=int, help="pixels")
    one.add_argument("--width", type=int, help="pixels")
    one.add_argument("--negative-prompt", metavar="TEXT", help="what to lead away from")
    one.add_argument(
        "--no-tiling", action="store_true", help="decode pictures whole: more memory, no seams"
    )
    one.add_argument(
        "--no-slicing", action="store_true", help="decode a whole batch at once: more memory"
    )


def _add_hardware(parser: argparse.ArgumentParser) -> None:
    one = parser.add_argument_group("what computes")
    one.add_argument("--device", choices=get_args(Device), help="default: the GPU where one is")
    one.add_argument(
        "--dtype",
        choices=get_args(Dtype),
        help="of the computation (default: the backend's on a GPU, fp32 on a CPU)",
    )
    one.add_argument(
        "--offload",
        choices=("auto", *OFFLOADS),
        default="auto",
        help="parts of the pipeline that wait outside the GPU: none, whole models, or each layer, "
        "which is slowest (default: the first that fits)",
    )
    one.add_argument(
        "--batch", type=int, default=1, help="videos at a time, 1 to 64 (default %(default)s)"
    )
    one.add_argument(
        "--shard",
        metavar="I/N",
        default="1/1",
        help="make every N-th row, from the I-th on: for several GPUs or machines on one folder",
    )
    one.add_argument(
        "--ray",
        action="store_true",
        help="let Ray Data's workers do it, a GPU each, on this machine or the cluster of "
        "RAY_ADDRESS, whose machines must see the same files",
    )
    one.add_argument("--workers", type=int, help="with --ray: how many, 1 to 64 (default 1)")


def run_generate(options: argparse.Namespace) -> None:
    """Generate.

    Raises:
        TrainingError: see `generate`, or flags do not agree.
    """
    request = _request(options)
    crew = _crew(options, request.hardware)
    with _Bar(request.hardware) as bar:
        result = generate(request, crew, bar)
    if options.json:
        content = {"manifest": str(result.manifest), "videos": result.videos}
        content |= {"made": result.made, "kept": result.kept, "failed": result.failed}
        print(json.dumps(content))
        return
    for name, reason in result.failed.items():
        print(f"failed {name}: {reason}", file=sys.stderr)
    print(
        f"{result.videos} of {len(request.rows)} videos in {result.manifest} ({result.made} made "
        f"now, {result.kept} kept, {len(result.failed)} failed)"
    )


def _request(options: argparse.Namespace) -> Request:
    own = load_backend(options.backend)
    given = {name: getattr(options, name) for name in _SETTINGS}
    changes = {name: value for name, value in given.items() if value is not None}
    changes |= {name: False for name in ("tiling", "slicing") if getattr(options, f"no_{name}")}
    if options.no_slicing and options.batch == 1:
        raise TrainingError("--no-slicing tells how a batch is decoded; give --batch 2 or more")
    return Request(
        rows=load_manifest(options.descriptions).rows,
        folder=Folder(options.out.absolute()),
        settings=changed(own, changes),
        own=own,
        weights=options.weights or own.weights,
        hardware=_hardware(options, own.dtype),
        shard=_shard(options.shard),
    )


def _hardware(options: argparse.Namespace, dtype: Dtype) -> Hardware:
    import torch

    if not 1 <= options.batch <= _MOST_BATCH:
        raise TrainingError(f"--batch ({options.batch}) must be 1 to {_MOST_BATCH}")
    there = torch.cuda.is_available()
    # Of a cluster, the workers look themselves.
    elsewhere = options.ray and "RAY_ADDRESS" in os.environ
    if options.device == "cuda" and not there and not elsewhere:
        raise TrainingError(
            "--device cuda: torch finds no GPU here; mend its driver, or leave --device out for "
            "the CPU"
        )
    device: Device = options.device or ("cuda" if there else "cpu")
    default = dtype if device == "cuda" else "fp32"
    offload = None if options.offload == "auto" else options.offload
    return Hardware(device, options.dtype or default, offload, options.batch)


def _crew(options: argparse.Namespace, hardware: Hardware) -> Crew:
    if options.workers is not None and not options.ray:
        raise TrainingError(
            f"--workers ({options.workers}) are Ray's; give --ray, or run the command once a GPU "
            "with --shard 1/2 and --shard 2/2"
        )
    workers = 1 if options.workers is None else options.workers
    return Crew(workers, options.ray, gpus=int(hardware.device == "cuda"))


def _shard(text: str) -> Shard:
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal()):
        raise TrainingError(f"--shard ({text[:40]}) must be i/n with 1 <= i <= n, as 1/4")
    return Shard(int(index), int(count))


class _Bar:
    """Shows videos, by fractions, the time that is left, and which one is at work.

    Where no bar can be drawn, as in the log of a night's run, a line tells of each video.
    """

    def __init__(self, hardware: Hardware) -> None:
        self._hardware = hardware
        self._bar: tqdm[None] | None = None
        self._finished = 0
        self._began_seconds = 0.0

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def begin(self, missing: int, kept: int) -> None:
        if missing and self._hardware.device == "cpu":
            self.warn("no GPU computes: a video of full size takes hours on a CPU")
        self._began_seconds = time.monotonic()
        # Over the whole run, not smoothed: steps are quick and the decoding after them is not.
        self._bar = tqdm(total=missing, desc="generate", bar_format=_BAR, smoothing=0, disable=None)

    def step(self, names: Sequence[str], share: float) -> None:
        self._show(self._finished + share * len(names), names[0])

    def done(self, name: str, reason: str | None) -> None:
        self._finished += 1
        self._show(self._finished, name)
        if self._bar is not None and self._bar.disable:
            each_seconds = (time.monotonic() - self._began_seconds) / self._finished
            left = tqdm.format_interval(each_seconds * (self._bar.total - self._finished))
            said = f"{name} {'made' if reason is None else 'failed'}, "
            said += f"{self._finished} of {self._bar.total}, {left} left"
            print(said, file=sys.stderr)

    def warn(self, sentence: str) -> None:
        print(sentence, file=sys.stderr)

    def _show(self, count: float, name: str) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(name[-30:], refresh=False)
            self._bar.update(count - self._bar.n)
