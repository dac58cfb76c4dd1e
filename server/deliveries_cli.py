"""`gvvad deliveries`: what webhooks and MQTT were sent, and sending again what was given up."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from server.wording import one_line

if TYPE_CHECKING:
    from server.arguments import Commands
    from server.delivery_records import Delivery
    from server.rpc.client import Client

    Ask = Callable[[Callable[[Client], Any]], Any]

STATES = ("pending", "delivered", "dead")


def add_deliveries(
    commands: Commands, add_client_flags: Callable[[argparse.ArgumentParser], None]
) -> None:
    """Add the command's arguments."""
    deliveries = commands.add_parser(
        "deliveries", help="list what webhooks and MQTT are sent, replay what was given up"
    )
    actions = deliveries.add_subparsers(title="actions", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="deliveries, the newest first")
    listing.add_argument("--state", choices=STATES, help="only in this state")
    listing.add_argument("--sink", metavar="NAME", help="only to this receiver")
    listing.add_argument(
        "--limit", type=_count, default=50, metavar="N", help="most to show (default %(default)d)"
    )
    listing.set_defaults(command="deliveries list")
    replay = actions.add_parser("replay", help="try again what was given up")
    replay.add_argument("ids", nargs="*", type=_count, metavar="ID", help="of `deliveries list`")
    replay.add_argument("--sink", metavar="NAME", help="only to this receiver")
    replay.add_argument("--all", action="store_true", help="all that were given up")
    replay.set_defaults(command="deliveries replay")
    for parser in (listing, replay):
        add_client_flags(parser)


def list_deliveries(options: argparse.Namespace, ask: Ask) -> int:
    """Print deliveries; the exit code."""
    from server.delivery_records import DeliveryFilter, DeliveryState

    state = DeliveryState(options.state) if options.state else None
    wanted = DeliveryFilter(state, options.sink)
    found = ask(lambda client: client.deliveries(wanted, options.limit))
    if options.json:
        print(json.dumps([_json(one) for one in found]))
    else:
        print("\n".join(_table(found)))
    return 0


def replay_deliveries(options: argparse.Namespace, ask: Ask) -> int:
    """Replay deliveries and print how many; the exit code."""
    from server.arguments import UsageError

    if not options.ids and not options.sink and not options.all:
        raise UsageError("nothing to replay; give ids of `gvvad deliveries list`, --sink or --all")
    if options.ids and options.all:
        raise UsageError("ids and --all exclude each other; give one of them")
    replayed = ask(lambda client: client.replay(options.ids, options.sink))
    print(json.dumps({"replayed": replayed}) if options.json else f"{replayed} replayed")
    return 0


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < len(text) <= 18 and int(text)):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} must be a whole number of 1 or more")
    return int(text)


def _json(delivery: Delivery) -> dict[str, object]:
    from server.terminal import rfc3339

    return {
        "id": delivery.delivery_id,
        "sink": delivery.sink,
        "event_id": delivery.event_id,
        "alert": delivery.alert_id,
        "state": delivery.state.value,
        "attempts": delivery.attempts,
        "create_time": rfc3339(delivery.created_seconds),
        "next_attempt_time": rfc3339(delivery.due_seconds),
        "error": delivery.error,
    }


def _table(deliveries: list[Delivery]) -> list[str]:
    from server.terminal import rfc3339, table

    rows = [("ID", "CREATED", "SINK", "EVENT", "STATE", "ATTEMPTS", "ERROR")]
    rows += [
        (
            str(one.delivery_id),
            rfc3339(one.created_seconds) or "",
            one.sink,
            one.event_id,
            one.state.value,
            str(one.attempts),
            one_line(one.error),
        )
        for one in deliveries
    ]
    return table(rows)
