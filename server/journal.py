"""The log of what becomes of streams: one line a change, in whatever format was asked for."""

from __future__ import annotations

import logging

from server.alerts import Alert
from server.ingest.events import StatusChanged
from server.logs import about
from server.streams import StreamState

_logger = logging.getLogger(__name__)


class StateLog:
    """One stream's states as they are worth a line.

    An outage is one line however often the stream is tried again meanwhile: a
    try that fails for the reason already told is no change.
    """

    def __init__(self) -> None:
        self._told: StatusChanged | None = None

    def note(self, event: StatusChanged) -> None:
        """Log a state, unless it tells nothing new."""
        told = self._told
        if told is not None:
            same = (told.state, told.reason) == (event.state, event.reason)
            one_more_try = (told.state, event.state) == (
                StreamState.BACKING_OFF,
                StreamState.CONNECTING,
            )
            if same or one_more_try:
                return
        self._told = event
        why = {"reason": event.reason.value} if event.reason else {}
        _logger.info(
            "%s%s%s",
            event.state.value,
            f" ({event.reason.value})" if event.reason else "",
            f": {event.message}" if event.message else "",
            extra=about(event.stream_id, state=event.state.value, **why),
        )


def log_alert(alert: Alert) -> None:
    """Log that an alert opened, went on or closed."""
    _logger.info(
        "alert %s %s%s, peak %.3f",
        alert.alert_id,
        alert.state.value,
        alert.remarks,
        alert.peak_score,
        extra=about(alert.stream_id, state=alert.state.value, alert=alert.alert_id),
    )
