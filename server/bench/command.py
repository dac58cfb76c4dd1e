"""`gvvad bench`: how many cameras this machine holds, measured and shown.

Every check of the input comes first. Whatever happens then, everything that was started
is stopped, and what was found until then is shown.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from server.bench.arguments import DEFAULT_CAMERA, NO_NAIVE
from server.bench.crew import BenchError
from server.bench.farm import FarmError
from server.bench.findings import Findings
from server.bench.footage import read_footage
from server.bench.kinds import CameraKind, camera_kind
from server.bench.machine import Machine, this_machine
from server.bench.measuring import Measuring, Say, most_cameras, prepare_footage
from server.bench.naive import DEFAULT_PYTHON
from server.bench.plan import MOST_CAMERAS, Extras, Pace, Plan, quick_pace, usual_pace
from server.bench.report import as_json, head_lines, lines, trial_lines
from server.bundle import DEFAULT_BUNDLE, load_bundle
from server.interrupts import deafen, stoppable
from server.rpc.client import ClientError
from server.settings import is_secret, load_settings
from server.spawned import StartError
from server.streams import SourceError

LEAST_SECONDS, MOST_SECONDS = 2.0, 3600.0
MOST_ROUNDS = 100
LEAST_SOAK_MINUTES, MOST_SOAK_MINUTES = 0.2, 7 * 24 * 60.0
INTERRUPTED = 130

_OWN_SETTINGS = ("grpc.host", "grpc.port", "http.host", "http.port", "bundle", "access.file_roots")


class MeasuringError(RuntimeError):
    """The benchmark broke off; the message is the one line to print."""


@dataclass(frozen=True, slots=True)
class _Show:
    """Where a benchmark's findings go."""

    machine: Machine
    settings: Mapping[str, str]
    as_json: bool
    picture: Path | None


def run(options: argparse.Namespace, settings: Mapping[str, str]) -> int:
    """Run the benchmark.

    Args:
        options: as `add_bench` declares them.
        settings: of `--set`, by dotted key.

    Returns:
        The exit code: 0, 1 where `--require` was missed, 130 where it was interrupted.

    Raises:
        ValueError, FileNotFoundError: options that cannot be used, before anything starts.
        MeasuringError: it broke off; what was found until then is shown.
    """
    plans = _plans(options, settings)
    shown = {key: "***" if is_secret(key) else value for key, value in settings.items()}
    show = _Show(this_machine(), shown, options.json, options.out)
    findings: list[Findings] = []
    code, broken = 0, None
    with stoppable(), tempfile.TemporaryDirectory(prefix="gvvad-bench-") as scratch:
        try:
            for number, plan in enumerate(plans):
                _measure(plan, Path(scratch) / str(number), findings, show.machine)
        except KeyboardInterrupt:
            deafen()
            code = INTERRUPTED
        except (BenchError, FarmError, StartError, ClientError, OSError) as error:
            broken = str(error)
        _show(show, findings, whole=not code and broken is None)
    if broken is not None:
        raise MeasuringError(broken)
    return code or _required(options.require, findings)


def _measure(plan: Plan, scratch: Path, findings: list[Findings], machine: Machine) -> None:
    scratch.mkdir()
    say = _say(Console(stderr=True))
    found = Findings(plan.kinds, plan.bound_seconds, machine.cores)
    findings.append(found)
    say(f"preparing {', '.join(map(str, plan.kinds))}")
    footage = prepare_footage(plan.kinds, scratch)
    with Measuring(plan, footage, scratch, found, say) as measuring:
        measuring.play(most_cameras(plan, measuring.first_ceiling().cameras))
        measuring.settle_cameras()
        measuring.meet_naive()
        for _ in range(plan.pace.rounds):
            measuring.round()
        if plan.extras.twice:
            measuring.twice()
        if plan.extras.soak_minutes:
            measuring.soak()
        if plan.extras.memory:
            measuring.memory()


def _say(console: Console) -> Say:
    began_seconds = time.monotonic()

    def say(line: str) -> None:
        passed = f"{time.monotonic() - began_seconds:5.0f} s  "
        console.print(passed + line, markup=False, highlight=False, soft_wrap=True)

    return say


def _show(show: _Show, findings: Sequence[Findings], *, whole: bool) -> None:
    if show.as_json:
        print(json.dumps(as_json(show.machine, show.settings, findings, whole), default=str))
    else:
        model = next((one.model for one in findings if one.model is not None), None)
        print("\n".join(head_lines(show.machine, model)))
        for found in findings:
            print("\n".join(["", *lines(found), *trial_lines(found)]))
        if not whole:
            print("\nit did not run to its end; this is what was found until then")
    if show.picture is not None and any(found.all_trials() for found in findings):
        from server.bench.picture import draw

        draw(show.picture, [found for found in findings if found.all_trials()])
        print(f"picture: {show.picture}", file=sys.stderr)


def _required(share: float | None, findings: Sequence[Findings]) -> int:
    """1 where a mix holds less than the share of its ceiling."""
    if share is None:
        return 0
    missed = [
        one for one in findings if one.ceiling is None or one.held < math.floor(share * one.ceiling)
    ]
    for one in missed:
        ceiling = "no ceiling" if one.ceiling is None else f"a ceiling of {one.ceiling:.1f}"
        told = f"{', '.join(map(str, one.kinds))}: {one.held} cameras of {ceiling}"
        print(f"gvvad: {told} is less than the required {share:g} of it", file=sys.stderr)
    return 1 if missed else 0


def _plans(options: argparse.Namespace, settings: Mapping[str, str]) -> list[Plan]:
    """Plans by mix of cameras, checked. Raises ValueError."""
    _check_numbers(options)
    _check_output(options.out)
    load_bundle(options.bundle or DEFAULT_BUNDLE)
    for key in _OWN_SETTINGS:
        if key in settings:
            raise ValueError(f"--set {key} is the benchmark's own; leave it out")
    load_settings(None, settings, {})
    mixes = (
        [[one] for one in options.each] if options.each else [options.camera or [DEFAULT_CAMERA]]
    )
    if options.share is not None and any("://" in one for mix in mixes for one in mix):
        raise ValueError("--share needs a ceiling, which real cameras have not; give --cameras")
    return [
        Plan(
            kinds=_kinds(mix),
            bundle=(options.bundle or DEFAULT_BUNDLE).absolute(),
            engine=options.engine or "onnxruntime",
            settings=settings,
            bound_seconds=options.bound,
            cameras=options.cameras,
            share=options.share,
            pace=_pace(options),
            extras=Extras(options.twice, options.memory, options.soak),
            naive_python=_naive_python(options.naive_python),
        )
        for mix in mixes
    ]


def _check_numbers(options: argparse.Namespace) -> None:
    bounds = {
        "--bound": (options.bound, 0.01, 60.0),
        "--seconds": (options.seconds, LEAST_SECONDS, MOST_SECONDS),
        "--rounds": (options.rounds, 1, MOST_ROUNDS),
        "--cameras": (options.cameras, 1, MOST_CAMERAS),
        "--share": (options.share, 0.01, 2.0),
        "--soak": (options.soak or None, LEAST_SOAK_MINUTES, MOST_SOAK_MINUTES),
        "--require": (options.require, 0.0, 1.0),
    }
    for flag, (value, least, most) in bounds.items():
        if value is not None and not least <= value <= most:
            raise ValueError(f"{flag} ({value:g}) must be {least:g} to {most:g}")


def _check_output(out: Path | None) -> None:
    if out is None:
        return
    if out.suffix not in (".png", ".svg"):
        raise ValueError(f"--out {out} must end with .png or .svg")
    if not out.parent.is_dir():
        raise ValueError(f"--out {out}: {out.parent} is no directory; make it first")
    if find_spec("matplotlib") is None:
        raise ValueError('--out needs matplotlib: pip install "gvvad[demo]"')


def _kinds(texts: Sequence[str]) -> tuple[CameraKind, ...]:
    kinds = tuple(map(camera_kind, texts))
    for kind in kinds:
        if kind.file is not None:
            try:
                read_footage(kind.file)
            except SourceError as error:
                raise ValueError(error.sentence) from None
    return kinds


def _pace(options: argparse.Namespace) -> Pace:
    pace = quick_pace() if options.quick else usual_pace()
    return replace(
        pace, seconds=options.seconds or pace.seconds, rounds=options.rounds or pace.rounds
    )


def _naive_python(given: str | None) -> Path | None:
    if given == NO_NAIVE:
        return None
    return Path(given) if given is not None else DEFAULT_PYTHON
