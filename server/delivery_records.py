"""Deliveries at rest: one change of an alert on its way to one receiver."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from server.alert_records import AlertChange


class DeliveryState(Enum):
    """Where a delivery is in its life."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"  # given up, until somebody replays it


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery as it is kept.

    Attributes:
        delivery_id: rises for ever, 1 or more.
        sink: name of the receiver, without credentials.
        event_id: the id that the receiver sees, the same on every attempt.
        alert_id: the alert that changed.
        state: where it is in its life.
        attempts: since it was written down or last replayed.
        created_seconds: UTC at which it was written down.
        due_seconds: UTC of the next attempt; None where there is none to come.
        error: why the last attempt failed; empty where it did not.
    """

    delivery_id: int
    sink: str
    event_id: str
    alert_id: str
    state: DeliveryState
    attempts: int
    created_seconds: float
    due_seconds: float | None
    error: str


@dataclass(frozen=True, slots=True)
class DueDelivery:
    """A delivery that is to be tried now, with all that the receiver is told.

    Attributes:
        delivery: as it is kept.
        change: the change; the alert has its windows' scores where it closed.
        since_seconds: UTC from which the longest time to try counts.
    """

    delivery: Delivery
    change: AlertChange
    since_seconds: float


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits for one receiver.

    Attributes:
        count: pending deliveries.
        oldest_seconds: age of the oldest of them; 0 where there is none.
    """

    count: int
    oldest_seconds: float


@dataclass(frozen=True, slots=True)
class DeliveryFilter:
    """Which deliveries to list; None leaves a criterion out."""

    state: DeliveryState | None = None
    sink: str | None = None
