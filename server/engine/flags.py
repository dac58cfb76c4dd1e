"""Which engine, on which device: the names, and the flags of commands that run one.

No engine is imported here, so that settings and `--help` need not wait for one.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from server.wording import one_line, or_near

EngineName = Literal["onnxruntime", "tensorrt", "tensorrt_rtx"]
Device = Literal["cpu", "cuda"]

ENGINES: tuple[EngineName, ...] = get_args(EngineName)
DEVICES: tuple[Device, ...] = get_args(Device)


@dataclass(frozen=True, slots=True)
class EngineFlags:
    """What a command was told to run with.

    Attributes:
        name: of the engine.
        device: where the encoder runs; None for the engine's own.
        threads: of ONNX Runtime on the CPU; None leaves it to ONNX Runtime.
    """

    name: EngineName = "onnxruntime"
    device: Device | None = None
    threads: int | None = None


def add_engine_flags(parser: argparse.ArgumentParser, default: str = "onnxruntime") -> None:
    """`--engine` and `--device`, as the server's `engine.name` and `engine.device`.

    Args:
        parser: of the command.
        default: what happens without `--engine`, in words.
    """
    add_engine_flag(parser, default)
    parser.add_argument(
        "--device",
        type=_device,
        metavar="NAME",
        help="where onnxruntime runs the encoder: cpu or cuda (default cpu)",
    )


def add_engine_flag(parser: argparse.ArgumentParser, default: str = "onnxruntime") -> None:
    """`--engine` alone, for what runs each engine on its own device."""
    parser.add_argument(
        "--engine",
        type=_engine,
        metavar="NAME",
        help=f"what runs the bundle: {', '.join(ENGINES)} (default: {default})",
    )


def add_threads_flag(parser: argparse.ArgumentParser) -> None:
    """`--threads`, as the server's `engine.threads`."""
    parser.add_argument(
        "--threads",
        type=_threads,
        metavar="N",
        help="of onnxruntime on the CPU, 1 to 1024 (default: it chooses)",
    )


def read_engine_flags(options: argparse.Namespace) -> EngineFlags:
    """What the flags say.

    Raises:
        ValueError: threads for what runs on a GPU.
    """
    name: EngineName = options.engine or "onnxruntime"
    device: Device | None = options.device
    if options.threads is not None and (name != "onnxruntime" or device == "cuda"):
        raise ValueError(
            f"--threads ({options.threads}) is of onnxruntime on the CPU; leave it out for a GPU"
        )
    return EngineFlags(name, device, options.threads)


@contextlib.contextmanager
def telling_of_builds() -> Iterator[None]:
    """Meanwhile engines tell on standard error what takes them minutes, such as a plan's build."""
    logger, handler = logging.getLogger("server.engine"), logging.StreamHandler()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _engine(text: str) -> str:
    return _one_of(text, ENGINES)


def _device(text: str) -> str:
    return _one_of(text, DEVICES)


def _one_of(text: str, known: tuple[str, ...]) -> str:
    if text not in known:
        raise argparse.ArgumentTypeError(
            f"{one_line(text)!r} must be one of {', '.join(known)}{or_near(text, known)}"
        )
    return text


def _threads(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= 1024):
        raise argparse.ArgumentTypeError(f"{one_line(text)!r} must be 1 to 1024")
    return int(text)
