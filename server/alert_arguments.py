"""The arguments of `gvvad alerts`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

SHOWN = 50


def add_alerts(
    commands: Commands, add_client_flags: Callable[[argparse.ArgumentParser], None]
) -> None:
    """Add `alerts` with its actions to the commands."""
    alerts = commands.add_parser("alerts", help="list, show, acknowledge, watch; evidence")
    actions = alerts.add_subparsers(title="actions", required=True, metavar="ACTION")
    for add in (_add_list, _add_get, _add_ack, _add_watch, _add_evidence):
        add_client_flags(add(actions))


def _add_list(actions: Commands) -> argparse.ArgumentParser:
    listing = actions.add_parser("list", help="list alerts, the newest first")
    listing.add_argument("stream", nargs="?", metavar="STREAM", help="only this one's")
    listing.add_argument("--state", choices=("open", "closed"), help="only those in this state")
    for flag, what in (("--since", "at this time or later"), ("--until", "before this time")):
        listing.add_argument(
            flag, metavar="TIME", help=f"only those that begin {what}: 2026-05-01T08:00:00Z"
        )
    listing.add_argument(
        "--min-peak",
        type=float,
        default=0.0,
        metavar="SCORE",
        help="only those with at least this peak score, 0 to 1",
    )
    listing.add_argument(
        "--unacknowledged", action="store_true", help="only those that nobody has acknowledged"
    )
    _add_suppressed(listing)
    listing.add_argument(
        "--limit", type=int, default=SHOWN, metavar="N", help="most to list (default %(default)s)"
    )
    listing.set_defaults(command="alerts list")
    return listing


def _add_get(actions: Commands) -> argparse.ArgumentParser:
    get = actions.add_parser("get", help="show one alert with the scores of its windows")
    get.add_argument("alert", metavar="ALERT", help="its id: 16 hex digits")
    get.set_defaults(command="alerts get")
    return get


def _add_ack(actions: Commands) -> argparse.ArgumentParser:
    ack = actions.add_parser("ack", help="say that you have seen an alert")
    ack.add_argument("alert", metavar="ALERT", help="its id: 16 hex digits")
    ack.add_argument("note", nargs="?", default="", metavar="NOTE", help="what you have to say")
    ack.set_defaults(command="alerts ack")
    return ack


def _add_watch(actions: Commands) -> argparse.ArgumentParser:
    watch = actions.add_parser(
        "watch",
        help="show changes of alerts as they come, and go on where you were",
        description="Show changes of alerts as they come. With --cursor-file nothing is lost or "
        "repeated from one run to the next, whatever became of the server in between.",
    )
    watch.add_argument("stream", nargs="?", metavar="STREAM", help="only this one (default: all)")
    _add_suppressed(watch)
    place = watch.add_mutually_exclusive_group()
    place.add_argument("--cursor", metavar="CURSOR", help="go on after the change it came with")
    place.add_argument(
        "--cursor-file",
        type=Path,
        metavar="FILE",
        help="go on after the last change that was shown, whose cursor is kept in this file",
    )
    watch.set_defaults(command="alerts watch")
    return watch


def _add_suppressed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--include-suppressed",
        action="store_true",
        help="also those that were delivered to nobody, in quiet hours say",
    )


def _add_evidence(actions: Commands) -> argparse.ArgumentParser:
    evidence = actions.add_parser("evidence", help="save an alert's snapshot and clip")
    evidence.add_argument("alert", metavar="ALERT", help="its id: 16 hex digits")
    evidence.add_argument(
        "--out", type=Path, default=Path(), metavar="DIR", help="where to (default: here)"
    )
    evidence.set_defaults(command="alerts evidence")
    return evidence
