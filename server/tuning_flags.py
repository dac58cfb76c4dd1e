"""Flags of `gvvad streams` that tune how a stream's scores become alerts."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from server.tuning import AlertTuning, QuietHours
from server.tuning_text import length_seconds, moment_seconds, quiet_hours

if TYPE_CHECKING:
    from server.rpc.client import StreamChange

T = TypeVar("T")

_LENGTHS = (
    ("--min-duration", "capture time that an event must span to become an alert"),
    ("--merge-gap", "scores stay low for so long before an alert ends"),
    ("--max-duration", "a longer alert is ended and continued by another"),
    ("--cooldown", "none is delivered for so long after the end of a delivered one"),
)


def add_policy_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of what an alert policy holds beside its open threshold."""
    parser.add_argument(
        "--close-threshold",
        type=float,
        metavar="SCORE",
        help="score below which an alert begins to end, 0 to the threshold",
    )
    for flag, text in _LENGTHS:
        parser.add_argument(
            flag, type=_argument(length_seconds), metavar="LENGTH", help=f"{text}: 30, 30s, 5m, 2h"
        )


def add_tuning_flags(parser: argparse.ArgumentParser) -> None:
    """The same and quiet hours, of a stream that is added."""
    add_policy_flags(parser)
    parser.add_argument(
        "--quiet",
        action="append",
        type=_argument(quiet_hours),
        metavar="HOURS",
        help="when no alert is delivered, such as 'Mon-Fri 22:00-06:00 Europe/Berlin'; may be "
        "repeated",
    )


def add_update_flags(parser: argparse.ArgumentParser) -> None:
    """The same of a stream that is there already, and how to take them back."""
    add_tuning_flags(parser)
    parser.add_argument("--no-quiet", action="store_true", help="have no quiet hours any more")
    parser.add_argument(
        "--default-policy",
        action="store_true",
        help="go back to the server's close threshold and lengths, but for those named here",
    )


def add_snooze_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `gvvad streams snooze`."""
    parser.add_argument("stream", metavar="STREAM")
    how_long = parser.add_mutually_exclusive_group(required=True)
    how_long.add_argument(
        "length",
        nargs="?",
        type=_argument(length_seconds),
        metavar="LENGTH",
        help="from now on: 30m, 2h, 1d",
    )
    how_long.add_argument(
        "--until",
        type=_argument(moment_seconds),
        metavar="TIME",
        help="ISO 8601: 2026-11-27T06:00, by this machine's clock unless it has an offset",
    )
    how_long.add_argument("--end", action="store_true", help="deliver alerts again")


def policy_tuning(options: argparse.Namespace) -> AlertTuning:
    """What the flags of `add_policy_flags` ask for.

    Raises:
        ValueError: a value is out of its range.
    """
    return AlertTuning(
        close_threshold=options.close_threshold,
        min_duration_seconds=options.min_duration,
        merge_gap_seconds=options.merge_gap,
        max_duration_seconds=options.max_duration,
        cooldown_seconds=options.cooldown,
    )


def new_tuning(options: argparse.Namespace) -> AlertTuning:
    """What the flags of `add_tuning_flags` ask for.

    Raises:
        ValueError: a value is out of its range, or there are too many quiet hours.
    """
    return replace(policy_tuning(options), quiet_hours=tuple(options.quiet or ()))


def with_tuning(change: StreamChange, options: argparse.Namespace) -> StreamChange:
    """A change with what the flags of `add_update_flags` ask for.

    Raises:
        ValueError: as `new_tuning`; or quiet hours are both set and taken away.
    """
    if options.no_quiet and options.quiet:
        raise ValueError("--no-quiet and --quiet exclude each other; --quiet alone replaces all")
    hours: tuple[QuietHours, ...] | None = None
    if options.no_quiet or options.quiet:
        hours = new_tuning(options).quiet_hours
    return replace(
        change,
        policy=policy_tuning(options),
        default_policy=options.default_policy,
        quiet_hours=hours,
    )


def snooze_until(options: argparse.Namespace, now_seconds: float) -> float | None:
    """UTC until which `gvvad streams snooze` snoozes; None ends the snooze.

    Raises:
        ValueError: it lies in the past.
    """
    if options.end:
        return None
    until: float = options.until if options.length is None else now_seconds + options.length
    if until <= now_seconds:
        raise ValueError("a snooze must end in the future; --end ends one now")
    return until


def _argument(read: Callable[[str], T]) -> Callable[[str], T]:
    """For argparse, which hides the sentence of a ValueError."""

    def argument(text: str) -> T:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return argument
