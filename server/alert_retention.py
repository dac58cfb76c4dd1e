"""How long alerts are kept."""

from __future__ import annotations

import logging
import time

from server.store.alerts import AlertLog
from server.store.database import StoreError

logger = logging.getLogger(__name__)

PURGE_EVERY_SECONDS = 3600.0
PURGED_AT_ONCE = 500


class Retention:
    """Deletes what is too old, a little at a time so that no alert waits for it."""

    def __init__(self, log: AlertLog, keep_seconds: float | None) -> None:
        self._log = log
        self._keep_seconds = keep_seconds
        self._next_at = time.monotonic()
        self._alerts = self._changes = 0

    def due_in_seconds(self) -> float:
        """How long until there is something to do; not over zero where there is now."""
        if self._keep_seconds is None:
            return PURGE_EVERY_SECONDS
        return self._next_at - time.monotonic()

    def step(self) -> None:
        """Delete a little."""
        assert self._keep_seconds is not None
        try:
            gone = self._log.purge(time.time() - self._keep_seconds, PURGED_AT_ONCE)
        except StoreError as error:
            logger.warning("old alerts are kept for now: %s", error)
            self._next_at = time.monotonic() + PURGE_EVERY_SECONDS
            return
        self._alerts += gone.alerts
        self._changes += gone.changes
        if gone.changes == PURGED_AT_ONCE:
            return
        if self._changes:
            logger.info(
                "retention deleted %d alerts and %d changes of alerts", self._alerts, self._changes
            )
        self._alerts = self._changes = 0
        self._next_at = time.monotonic() + PURGE_EVERY_SECONDS
