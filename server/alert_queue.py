"""What waits at the alert desk, and what of it goes where there is no more room."""

from __future__ import annotations

import logging
import time
from collections import deque
from dataclasses import dataclass

from server.alert_records import AlertChange, ChangeKind, Evidence
from server.alerts import Alert
from server.hub import Subscription
from server.store.alerts import AlertLog

logger = logging.getLogger(__name__)

MOST_WAITING = 10_000
LOSSES_TOLD_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Opening:
    """An alert that opened or closed."""

    kind: ChangeKind
    alert: Alert

    @property
    def alert_id(self) -> str:
        return self.alert.alert_id

    def write(self, log: AlertLog) -> AlertChange | None:
        """Write it down."""
        return log.append(self.kind, self.alert, time.time())


@dataclass(frozen=True, slots=True)
class Picture:
    """What is kept of an alert's pictures."""

    alert_id: str
    evidence: Evidence

    def write(self, log: AlertLog) -> AlertChange | None:
        """Write it down."""
        return log.set_evidence(self.alert_id, self.evidence, time.time())


@dataclass(frozen=True, slots=True)
class Farewell:
    """The watches of a stream that is gone, to be ended once its last change is told."""

    watches: tuple[Subscription[AlertChange], ...]


Entry = Opening | Picture | Farewell


def spared(waiting: deque[Entry]) -> Entry:
    """Take out the entry whose loss costs least.

    That is the oldest opening of an alert whose end waits as well, which says all that
    it said; else the oldest of all but farewells, which cost nothing.
    """
    closed = {
        entry.alert_id
        for entry in waiting
        if isinstance(entry, Opening) and entry.kind is ChangeKind.CLOSED
    }
    told = (
        place
        for place, entry in enumerate(waiting)
        if isinstance(entry, Opening)
        and entry.kind is ChangeKind.OPENED
        and entry.alert_id in closed
    )
    oldest = (place for place, entry in enumerate(waiting) if not isinstance(entry, Farewell))
    place = next(told, None)
    place = next(oldest, 0) if place is None else place
    entry = waiting[place]
    del waiting[place]
    return entry


class Losses:
    """Counts what had no room, and says so once a minute."""

    def __init__(self) -> None:
        self._lost = 0
        self._told_at = -LOSSES_TOLD_SECONDS

    def count(self, entry: Entry) -> None:
        """One more is lost."""
        self._lost += 1
        if time.monotonic() - self._told_at < LOSSES_TOLD_SECONDS:
            return
        self._told_at = time.monotonic()
        of = "" if isinstance(entry, Farewell) else f", the newest of alert {entry.alert_id}"
        logger.error(
            "%d changes of alerts are lost so far%s: over %d wait for the store",
            self._lost,
            of,
            MOST_WAITING,
        )
