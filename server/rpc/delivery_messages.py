"""Deliveries to messages and back, and requests for them, checked."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from gvvad.v1 import delivery_pb2

from server.delivery_records import Delivery, DeliveryFilter, DeliveryState
from server.rpc.requests import page_size
from server.rpc.wire import InvalidError, seconds, timestamp
from server.wording import one_line

MOST_IDS = 1000
"""That one request may name."""

_LONGEST_SINK = 255
_LONGEST_ID = 18  # digits, so that any such number fits into the store
_TOKEN_PREFIX = "deliveries/"

_STATE = {
    item: delivery_pb2.DeliveryState.Value(f"DELIVERY_STATE_{item.name}") for item in DeliveryState
}
_STATE_OF = {value: key for key, value in _STATE.items()}


@dataclass(frozen=True, slots=True)
class DeliveryPage:
    """Which deliveries to list.

    Attributes:
        wanted: which ones.
        size: most deliveries, 1 to `requests.LARGEST_PAGE`.
        after: delivery that the page begins after; None for the first page.
    """

    wanted: DeliveryFilter
    size: int
    after: int | None


def delivery_message(delivery: Delivery) -> delivery_pb2.AlertDelivery:
    """A delivery as the API shows it."""
    due = delivery.due_seconds
    return delivery_pb2.AlertDelivery(
        delivery_id=str(delivery.delivery_id),
        sink=delivery.sink,
        event_id=delivery.event_id,
        alert_id=delivery.alert_id,
        state=_STATE[delivery.state],
        attempts=delivery.attempts,
        create_time=timestamp(delivery.created_seconds),
        next_attempt_time=None if due is None else timestamp(due),
        error=delivery.error,
    )


def delivery(message: delivery_pb2.AlertDelivery) -> Delivery:
    """A delivery as the API showed it."""
    has_next = message.HasField("next_attempt_time")
    return Delivery(
        delivery_id=int(message.delivery_id),
        sink=message.sink,
        event_id=message.event_id,
        alert_id=message.alert_id,
        state=_STATE_OF[message.state],
        attempts=message.attempts,
        created_seconds=seconds(message.create_time),
        due_seconds=seconds(message.next_attempt_time) if has_next else None,
        error=message.error,
    )


def list_request(
    wanted: DeliveryFilter, size: int, token: str
) -> delivery_pb2.ListDeliveriesRequest:
    """The request for a page."""
    return delivery_pb2.ListDeliveriesRequest(
        state=(
            delivery_pb2.DELIVERY_STATE_UNSPECIFIED
            if wanted.state is None
            else _STATE[wanted.state]
        ),
        sink=wanted.sink or "",
        page_size=size,
        page_token=token,
    )


def page(request: delivery_pb2.ListDeliveriesRequest) -> DeliveryPage:
    """The page to list.

    Raises:
        InvalidError: a field that cannot be used.
    """
    state = _STATE_OF.get(request.state)
    if state is None and request.state != delivery_pb2.DELIVERY_STATE_UNSPECIFIED:
        names = ", ".join(delivery_pb2.DeliveryState.keys()[1:])
        raise InvalidError(f"state ({request.state}) must be one of {names}, or left out")
    wanted = DeliveryFilter(state, _sink(request.sink))
    after = _after(request.page_token) if request.page_token else None
    return DeliveryPage(wanted, page_size(request.page_size), after)


def page_token(after: int | None) -> str:
    """Token of the page that begins after a delivery; empty where there is none."""
    if after is None:
        return ""
    return base64.urlsafe_b64encode(f"{_TOKEN_PREFIX}{after}".encode()).decode()


def replayed_ids(request: delivery_pb2.ReplayDeliveriesRequest) -> Sequence[int]:
    """The deliveries that a request names.

    Raises:
        InvalidError: one that is none, or too many.
    """
    if len(request.delivery_ids) > MOST_IDS:
        raise InvalidError(
            f"delivery_ids ({len(request.delivery_ids)} of them) must be at most {MOST_IDS}; "
            "leave them out to replay all"
        )
    return [_number(text, f"delivery_ids ({one_line(text)!r})") for text in request.delivery_ids]


def replayed_sink(
    request: delivery_pb2.ReplayDeliveriesRequest, sinks: Collection[str]
) -> str | None:
    """The receiver that a request names; None where it names none.

    Raises:
        InvalidError: there is no such receiver now.
    """
    sink = _sink(request.sink)
    if sink is not None and sink not in sinks:
        known = ", ".join(sorted(sinks)) or "none, since the settings name no receiver"
        raise InvalidError(f"sink ({one_line(sink)!r}) must be one of: {known}")
    return sink


def _sink(text: str) -> str | None:
    if len(text) > _LONGEST_SINK or "\0" in text:
        raise InvalidError(
            f"sink ({one_line(text)!r}) must be a receiver's name of at most "
            f"{_LONGEST_SINK} characters"
        )
    return text or None


def _after(token: str) -> int:
    try:
        text = base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        text = ""
    shown = f"page_token ({one_line(token)[:80]!r})"
    if not text.startswith(_TOKEN_PREFIX):
        raise InvalidError(f"{shown} must be the next_page_token of the page before")
    return _number(text.removeprefix(_TOKEN_PREFIX), shown)


def _number(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _LONGEST_ID):
        raise InvalidError(f"{what} must be what ListDeliveries returned")
    return int(text)
