"""`gvvad calibrate`: a budget of false alarms, and what it says of a stream's threshold."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from server.calibration import Calibration, RecordedScores
    from server.rpc.client import Client

_BUDGET = re.compile(r"(\d+(?:\.\d+)?|\.\d+)/(day|week|hour)")
_PER_DAY = {"hour": 24.0, "day": 1.0, "week": 1 / 7}
_PAST = re.compile(r"(\d+(?:\.\d+)?)([dhm])")
_SECONDS = {"d": 86_400.0, "h": 3600.0, "m": 60.0}


def budget_per_day(text: str) -> float:
    """False alarms a day.

    >>> budget_per_day("1/day"), budget_per_day("0.5/day"), budget_per_day("7/week")
    (1.0, 0.5, 1.0)

    Raises:
        argparse.ArgumentTypeError: this is no budget.
    """
    found = _BUDGET.fullmatch(text)
    if found is None or not 0 < float(found[1]) * _PER_DAY[found[2]] <= 1000:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no budget; expected 1/day, 3/week or 0.5/day, over 0 to 1000/day"
        )
    return float(found[1]) * _PER_DAY[found[2]]


def past_seconds(text: str) -> float:
    """A length of time.

    >>> past_seconds("7d"), past_seconds("90m")
    (604800.0, 5400.0)

    Raises:
        argparse.ArgumentTypeError: this is none.
    """
    found = _PAST.fullmatch(text)
    if found is None or not float(found[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is no past; expected 7d, 12h or 90m")
    return float(found[1]) * _SECONDS[found[2]]


def add_calibrate(commands: Any, add_client_flags: Callable[[Any], None]) -> None:
    """Declare the command's arguments."""
    calibrate = commands.add_parser(
        "calibrate",
        help="learn the threshold that keeps a stream's false alarms within a budget",
        description="Learn the open threshold that keeps a stream's false alarms within a budget, "
        "from its own past or from recorded clips. Everything in the footage counts as normal, "
        "but what ground truth beside the clips calls anomalous. Nothing changes without --apply.",
    )
    calibrate.add_argument("stream", metavar="STREAM")
    calibrate.add_argument(
        "--budget",
        type=budget_per_day,
        required=True,
        metavar="N/day",
        help="false alarms that may be expected: 1/day, 3/week, 0.5/day",
    )
    footage = calibrate.add_mutually_exclusive_group()
    footage.add_argument(
        "--past",
        type=past_seconds,
        metavar="7d",
        help="look so far back: 7d, 12h, 90m (default: all that is kept)",
    )
    footage.add_argument(
        "--clips", type=Path, metavar="DIR", help="learn from these clips, replayed here"
    )
    calibrate.add_argument(
        "--bundle",
        type=Path,
        metavar="DIR",
        help="the served bundle, for --clips (default: the embedded one)",
    )
    calibrate.add_argument(
        "--apply", action="store_true", help="set the stream's threshold to what was found"
    )
    calibrate.add_argument(
        "--out", type=Path, metavar="DIR", help="draw events a day over the threshold, as PNG"
    )
    add_client_flags(calibrate)
    calibrate.set_defaults(command="calibrate")


def run(options: argparse.Namespace, client: Client) -> int:
    """Ask the server and show its answer.

    Raises:
        ClientError: the server refused.
        ValueError, FileNotFoundError: options or clips that cannot be used.
        OSError, EngineError: the clips could not be replayed, or nothing be written.
    """
    from server.calibration import CalibrationAsk

    if options.bundle is not None and options.clips is None:
        raise ValueError("--bundle goes with --clips; the server scores a stream's past itself")
    if options.out is not None and find_spec("matplotlib") is None:
        raise ValueError('--out needs matplotlib: pip install "gvvad[demo]"')
    recorded = _recorded(options, client) if options.clips is not None else None
    ask = CalibrationAsk(options.budget, options.past, recorded, options.apply)
    found = client.calibrate(options.stream, ask)
    picture = _drawn(options, found) if options.out is not None else None
    if options.json:
        print(json.dumps(calibration_json(options.stream, found, picture)))
        return 0
    print(f"{options.stream}: {found.message}")
    print(
        f"{options.stream}: its open threshold is {found.open_threshold:.4f} now"
        if found.applied
        else f"{options.stream}: nothing was changed; set the threshold with --apply"
    )
    if picture is not None:
        print(f"picture: {picture}")
    return 0


def calibration_json(stream_id: str, found: Calibration, picture: Path | None) -> dict[str, object]:
    """A calibration for programs."""
    return {
        "stream": stream_id,
        "open_threshold": found.open_threshold,
        "applied": found.applied,
        "false_alarms_per_day": found.false_alarms_per_day,
        "watched_seconds": found.watched_seconds,
        "events": found.events,
        "interval_per_day": [found.low_per_day, found.high_per_day],
        "held_out_per_day": found.held_out_per_day,
        "measurable": found.measurable,
        "message": found.message,
        "bundle": found.bundle_id,
        "curve": [[point.threshold, point.events] for point in found.curve],
        "picture": str(picture) if picture is not None else None,
    }


def _recorded(options: argparse.Namespace, client: Client) -> RecordedScores:
    from rich.console import Console

    from server.bundle import DEFAULT_BUNDLE, load_bundle
    from server.recorded import record

    bundle = load_bundle(options.bundle or DEFAULT_BUNDLE)
    served = client.model()
    if bundle.bundle_id != served.bundle_id:
        raise ValueError(
            f"the server serves bundle {served.bundle_name} ({served.bundle_id[:12]}), and "
            f"{bundle.directory} is {bundle.bundle_id[:12]}; give the served one with --bundle"
        )
    client.get(options.stream)  # before the work, not after it
    scores, broken = record(options.clips, bundle, Console(stderr=True))
    for sentence in broken:
        print(f"gvvad: {sentence}", file=sys.stderr)
    return scores


def _drawn(options: argparse.Namespace, found: Calibration) -> Path:
    from server.calibrate_picture import draw

    options.out.mkdir(parents=True, exist_ok=True)
    path: Path = options.out / f"calibration-{options.stream}.png"
    draw(path, options.stream, found)
    return path
