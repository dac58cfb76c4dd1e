"""AlertService: what was written down of alerts, and what is written down next."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import grpc
from gvvad.v1 import alert_pb2, alert_pb2_grpc

from server.alert_records import AlertChange
from server.rpc import alert_messages, mapping
from server.rpc.evidence_service import read_evidence
from server.rpc.service import Backend
from server.rpc.wire import InvalidError
from server.store.alert_pages import PageTokenError
from server.store.alerts import AlertLog
from server.views import ExpiredCursorError, StoppingError, UnknownStreamError

CHANGES_AT_ONCE = 100
"""That a watch reads; what one holds in memory, however far it is behind."""


@dataclass(frozen=True, slots=True)
class _Part:
    """What a watch read of the log: changes, how far they reach, whether there are more."""

    changes: Sequence[AlertChange]
    reached: int
    more: bool


class AlertService(alert_pb2_grpc.AlertServiceServicer):
    """Watches of alerts, and what is known of them."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._log = backend.desk.log

    async def WatchAlerts(  # type: ignore[override]  # noqa: N802  the API's name
        self,
        request: alert_pb2.WatchAlertsRequest,
        context: grpc.aio.ServicerContext[
            alert_pb2.WatchAlertsRequest, alert_pb2.WatchAlertsResponse
        ],
    ) -> None:
        # Writing from a coroutine, where the stubs' types ask for a generator: a cancelled
        # call then gives up its place at once, not when the generator is collected.
        watched = mapping.stream_id(request.stream, "stream") if request.stream else None
        position = alert_messages.position_of(request.cursor) if request.cursor else None
        changed = self._backend.desk.changed
        async with changed.subscribe(watched) as woken:
            if watched is not None:
                # Only now: a stream that is deleted from here on ends the subscription.
                self._backend.get(watched)
            if position is None:
                position = await asyncio.to_thread(self._log.newest_position)
            await asyncio.to_thread(_check, self._log, position)
            begins = alert_messages.cursor(position)
            await context.send_initial_metadata(((alert_messages.CURSOR_KEY, begins),))
            position = await self._send_past(position, request, watched, context)
            async for _ in woken:
                position = await self._send_past(position, request, watched, context)
        if changed.closed:
            raise StoppingError
        raise UnknownStreamError(f"stream {watched} was deleted")

    async def ListAlerts(  # noqa: N802
        self,
        request: alert_pb2.ListAlertsRequest,
        context: grpc.aio.ServicerContext[
            alert_pb2.ListAlertsRequest, alert_pb2.ListAlertsResponse
        ],
    ) -> alert_pb2.ListAlertsResponse:
        wanted, size = alert_messages.alert_filter(request), alert_messages.page_size(request)
        try:
            records, token = await asyncio.to_thread(
                self._log.list, wanted, size, request.page_token or None
            )
        except PageTokenError as error:
            raise InvalidError(str(error)) from None
        return alert_pb2.ListAlertsResponse(
            alerts=[alert_messages.alert_message(record) for record in records],
            next_page_token=token or "",
        )

    async def GetAlert(  # noqa: N802
        self,
        request: alert_pb2.GetAlertRequest,
        context: grpc.aio.ServicerContext[alert_pb2.GetAlertRequest, alert_pb2.Alert],
    ) -> alert_pb2.Alert:
        alert_id = alert_messages.alert_id(request.alert_id)
        return alert_messages.alert_message(await asyncio.to_thread(self._log.get, alert_id))

    async def AcknowledgeAlert(  # noqa: N802
        self,
        request: alert_pb2.AcknowledgeAlertRequest,
        context: grpc.aio.ServicerContext[alert_pb2.AcknowledgeAlertRequest, alert_pb2.Alert],
    ) -> alert_pb2.Alert:
        alert_id = alert_messages.alert_id(request.alert_id)
        note = alert_messages.note(request.note)
        acknowledge = self._backend.desk.acknowledge
        return alert_messages.alert_message(await asyncio.to_thread(acknowledge, alert_id, note))

    async def _send_past(
        self,
        position: int,
        request: alert_pb2.WatchAlertsRequest,
        watched: str | None,
        context: grpc.aio.ServicerContext[
            alert_pb2.WatchAlertsRequest, alert_pb2.WatchAlertsResponse
        ],
    ) -> int:
        """Send all that the log has after a position; how far that reaches."""
        while True:
            part = await asyncio.to_thread(_read, self._log, position, watched)
            for change in part.changes:
                if change.record.alert.suppression is None or request.include_suppressed:
                    await context.write(alert_messages.change_message(change))
            position = part.reached
            if not part.more:
                return position

    async def ReadEvidence(  # type: ignore[override]  # noqa: N802  see WatchAlerts
        self,
        request: alert_pb2.ReadEvidenceRequest,
        context: grpc.aio.ServicerContext[
            alert_pb2.ReadEvidenceRequest, alert_pb2.ReadEvidenceResponse
        ],
    ) -> None:
        await read_evidence(self._backend, request, context)


def _read(log: AlertLog, position: int, watched: str | None) -> _Part:
    # Before the changes: what is not among them up to here is of no interest, so that a
    # watch of a stream at peace does not stay behind until its place is purged.
    newest = log.newest_position()
    changes = log.changes(position, watched, CHANGES_AT_ONCE)
    # After them: whatever was purged before they were read shows now.
    _check(log, position)
    more = len(changes) == CHANGES_AT_ONCE
    last = changes[-1].position if changes else position
    return _Part(changes, last if more else max(last, newest), more)


def _check(log: AlertLog, position: int) -> None:
    oldest, newest = log.oldest_position(), log.newest_position()
    if position < oldest - 1:
        raise ExpiredCursorError(
            f"cursor: {oldest - 1 - position} changes after it are gone with their retention; "
            "list the alerts and begin again without a cursor"
        )
    if position > newest:
        raise ExpiredCursorError(
            "cursor: this server's log of changes does not reach so far, so it is another log; "
            "list the alerts and begin again without a cursor"
        )
