"""The arguments of `gvvad bench`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from server.engine.flags import add_engine_flag

NO_NAIVE = "none"
DEFAULT_CAMERA = "768x432@25"


def add_bench(commands: Any) -> None:
    """Declare them."""
    bench = commands.add_parser(
        "bench",
        help="how many cameras this machine holds, measured",
        description="Play cameras to a server of its own and find how many it holds: the 99th "
        "percentile of the latency stays under a bound and no window is dropped. Beside it, in "
        "the same minutes, measure what decoding and encoding alone would allow. Nothing of a "
        "server that runs already is touched, but it takes its share of the cores.",
    )
    _add_load(bench)
    _add_server(bench)
    _add_lengths(bench)
    _add_extras(bench)
    _add_output(bench)
    bench.set_defaults(command="bench")


def _add_load(bench: argparse.ArgumentParser) -> None:
    cameras = bench.add_mutually_exclusive_group()
    cameras.add_argument(
        "--camera",
        action="append",
        metavar="CAMERA",
        help="SIZE@FPS, FILE@FPS (H.264 without B-frames) or rtsp://HOST/PATH; several are mixed "
        f"in turn (default {DEFAULT_CAMERA})",
    )
    cameras.add_argument(
        "--each",
        nargs="+",
        metavar="CAMERA",
        help="as --camera, but one benchmark for each, such as --each 320x240 768x432 1920x1080",
    )
    number = bench.add_mutually_exclusive_group()
    number.add_argument(
        "--cameras", type=int, metavar="N", help="exactly so many, instead of a search"
    )
    number.add_argument(
        "--share",
        type=float,
        metavar="SHARE",
        help="in each round that share of the ceiling measured just before, such as 0.75, "
        "instead of a search: what holds does not hang on how fast the machine was before",
    )
    bench.add_argument(
        "--bound",
        type=float,
        default=1.0,
        metavar="SECONDS",
        help="that p99 latency must stay under (default %(default)g)",
    )


def _add_server(bench: argparse.ArgumentParser) -> None:
    bench.add_argument(
        "--bundle", type=Path, metavar="DIR", help="detector (default: the embedded one)"
    )
    add_engine_flag(bench)
    bench.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="one setting of the server, such as ingest.workers=4; may be repeated",
    )
    bench.add_argument(
        "--naive-python",
        metavar="PATH",
        help="interpreter with torch and OpenCV, to run the naive program beside the server; "
        f"{NO_NAIVE} leaves it out (default: .venv/bin/python where there is one)",
    )


def _add_lengths(bench: argparse.ArgumentParser) -> None:
    bench.add_argument(
        "--quick", action="store_true", help="an answer in under two minutes, and a rougher one"
    )
    bench.add_argument(
        "--seconds", type=float, metavar="S", help="of each load (default 20, with --quick 6)"
    )
    bench.add_argument(
        "--rounds", type=int, metavar="N", help="of everything (default 3, with --quick 1)"
    )


def _add_extras(bench: argparse.ArgumentParser) -> None:
    bench.add_argument(
        "--twice", action="store_true", help="also twice the cameras: what becomes of the first"
    )
    bench.add_argument(
        "--memory", action="store_true", help="also what each further camera takes of memory"
    )
    bench.add_argument(
        "--soak",
        type=float,
        default=0.0,
        metavar="MINUTES",
        help="also run what holds for so long, and tell whether memory grows",
    )


def _add_output(bench: argparse.ArgumentParser) -> None:
    bench.add_argument("--json", action="store_true", help="answer in JSON, for programs")
    bench.add_argument(
        "--out", type=Path, metavar="FILE", help="draw latency over cameras, as .png or .svg"
    )
    bench.add_argument(
        "--require",
        type=float,
        metavar="SHARE",
        help="exit with 1 where fewer cameras hold than this share of the ceiling, such as 0.75",
    )
