"""Whether a receiver takes what it is sent: a line in the log when that changes."""

from __future__ import annotations

import logging
import time

logger = logging.getLogger(__name__)

STABLE_SECONDS = 30.0
"""Without a failure for so long a receiver is well: one that flaps is logged once."""


class SinkHealth:
    """Of one receiver.

    Args:
        sink: its name.
        stable_seconds: without a failure for so long it is well again.
    """

    def __init__(self, sink: str, stable_seconds: float = STABLE_SECONDS) -> None:
        self._sink = sink
        self._stable_seconds = stable_seconds
        self._failed_at: float | None = None
        self._well_since_then = False
        self._gave_up = False
        self._store_failed = False

    def failed(self, sentence: str) -> None:
        """An attempt failed."""
        if self._failed_at is None:
            logger.warning("deliveries to %s fail: %s", self._sink, sentence)
        self._failed_at = time.monotonic()
        self._well_since_then = False

    def succeeded(self) -> None:
        """An attempt succeeded."""
        self._well_since_then = True
        self._store_failed = False

    def gave_up(self, event_id: str) -> None:
        """A delivery is dead; told for the first of many."""
        if not self._gave_up:
            logger.error(
                "event %s for %s is given up; see: gvvad deliveries list --state dead",
                event_id,
                self._sink,
            )
        self._gave_up = True

    def store_failed(self, sentence: str) -> None:
        """What is owed to it cannot be read or written."""
        if not self._store_failed:
            logger.error("deliveries to %s wait: %s", self._sink, sentence)
        self._store_failed = True

    def check(self) -> None:
        """Say so where it is well again; call it every few seconds."""
        if self._failed_at is None or not self._well_since_then:
            return
        if time.monotonic() - self._failed_at >= self._stable_seconds:
            logger.info("deliveries to %s succeed again", self._sink)
            self._failed_at, self._gave_up = None, False
