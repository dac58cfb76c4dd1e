"""Flags of `gvvad streams` that say how much of a stream is scored, and who comes first."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from server.sampling import DEFAULT_PRIORITY, EVERY_WINDOW, EveryWindow, Sampling, read_sampling

if TYPE_CHECKING:
    from server.rpc.client import StreamChange
    from server.streams import StreamConfig

REFUSE = "refuse"


def add_sampling_flags(parser: argparse.ArgumentParser) -> None:
    """The flags, of a stream that is added or changed."""
    parser.add_argument(
        "--sampling",
        type=_sampling,
        metavar="RULE",
        help="windows to score: every, nth:4, or motion[:5s], which scores a still scene at "
        "least every 5 s (a new stream: every)",
    )
    parser.add_argument(
        "--when-full",
        type=_when_full,
        metavar="RULE",
        help="windows to score where the server has no room for all of them: nth:4, motion[:5s], "
        "or refuse, which refuses the stream then (a new stream: refuse)",
    )
    parser.add_argument(
        "--priority",
        type=int,
        metavar="N",
        help="0 to 9; higher ones are scored first where there is too much (a new stream: "
        f"{DEFAULT_PRIORITY})",
    )


def with_load(config: StreamConfig, options: argparse.Namespace) -> StreamConfig:
    """A stream to add, with what the flags ask for.

    Raises:
        ValueError: a value is out of its range.
    """
    return replace(
        config,
        sampling=options.sampling or EVERY_WINDOW,
        sampling_when_full=_thins(options.when_full),
        priority=DEFAULT_PRIORITY if options.priority is None else options.priority,
    )


def with_load_change(change: StreamChange, options: argparse.Namespace) -> StreamChange:
    """A change with what the flags ask for."""
    return replace(
        change,
        sampling=options.sampling,
        sampling_when_full=_thins(options.when_full),
        refuse_when_full=isinstance(options.when_full, EveryWindow),
        priority=options.priority,
    )


def _thins(when_full: Sampling | None) -> Sampling | None:
    return None if isinstance(when_full, EveryWindow) else when_full


def _sampling(text: str) -> Sampling:
    try:
        return read_sampling(text)
    except ValueError as error:  # argparse would hide its sentence
        raise argparse.ArgumentTypeError(str(error)) from None


def _when_full(text: str) -> Sampling:
    """A rule that thins; every window stands for a stream that is refused."""
    if text == REFUSE:
        return EVERY_WINDOW
    rule = _sampling(text)
    if isinstance(rule, EveryWindow):
        raise argparse.ArgumentTypeError(f"every thins nothing; give nth:4, motion or {REFUSE}")
    return rule
