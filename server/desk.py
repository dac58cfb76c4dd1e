"""The alert desk: changes of alerts are written down first, then told.

Whoever makes a change hands it in and goes on; a thread of the desk's writes. While
the store takes nothing, changes wait in memory, in order, and are tried again; no
more than `MOST_WAITING`, beyond which the one goes whose loss costs least. Nobody hears
of a change before it is committed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from server.alert_queue import MOST_WAITING, Entry, Farewell, Losses, Opening, Picture, spared
from server.alert_records import AlertChange, AlertRecord, ChangeKind, Evidence
from server.alert_retention import Retention
from server.alerts import Alert
from server.hub import Hub
from server.logs import about
from server.store.alerts import AlertLog
from server.store.database import StoreError
from server.telemetry import Telemetry
from server.views import UnknownAlertError

logger = logging.getLogger(__name__)

DRAIN_SECONDS = 1.5
"""How long a stop waits for the store; the whole server's has less than five seconds."""

FIRST_RETRY_SECONDS = 0.1
LAST_RETRY_SECONDS = 5.0

Listener = Callable[[AlertChange], None]


class AlertDesk:
    """Takes changes of alerts from any thread. Start it and stop it once.

    Attributes:
        log: where the changes are.
        changed: hands every watcher, of whatever stream, a change when there is something
            new in the log; one that is behind gets the newest alone, and reads the log.

    Args:
        log: where changes are written.
        telemetry: told how many wait.
        listeners: called with every change once it is committed, in order; they must
            return at once.
        keep_seconds: alerts that did not change for so long are deleted; None keeps them.
        max_watchers: at a time.
    """

    def __init__(
        self,
        log: AlertLog,
        telemetry: Telemetry,
        listeners: Sequence[Listener] = (),
        keep_seconds: float | None = None,
        max_watchers: int = 100,
    ) -> None:
        self.log = log
        self.changed: Hub[AlertChange] = Hub(1, max_watchers)
        self._telemetry = telemetry
        self._listeners = list(listeners)
        self._retention = Retention(log, keep_seconds)
        self._losses = Losses()
        self._writing = threading.Lock()
        self._told = 0
        self._waiting: deque[Entry] = deque()
        self._under_way: Entry | None = None
        self._condition = threading.Condition()
        self._stop_by: float | None = None
        # A daemon: a database that never answers must not keep the process alive.
        self._thread = threading.Thread(target=self._run, name="alert-desk", daemon=True)

    # Lifecycle

    def listen(self, listener: Listener) -> None:
        """Add a listener, before the start."""
        self._listeners.append(listener)

    def start(self) -> None:
        """Close what a killed server left open, then begin to write.

        Raises:
            StoreError: the store cannot be read or written.
        """
        self._told = self.log.newest_position()
        for change in self.log.close_lost(time.time()):
            logger.warning(
                "alert %s closed: the server was killed while it was open",
                change.record.alert.alert_id,
                extra=about(change.stream_id, alert=change.record.alert.alert_id),
            )
            self._tell(change)
        self._thread.start()

    def stop(self, within_seconds: float = DRAIN_SECONDS) -> None:
        """Write what waits; what the store has not taken by then is lost, and logged."""
        with self._condition:
            self._stop_by = time.monotonic() + within_seconds
            self._condition.notify_all()
        if self._thread.is_alive():
            self._thread.join(within_seconds)
        with self._condition:
            left = self._count()
            self._waiting.clear()
        if left:
            logger.error("%d changes of alerts are lost: the store has not taken them", left)

    # What is handed in; never waits for the store, but for `acknowledge`

    def submit(self, alert: Alert) -> None:
        """An alert opened or closed."""
        kind = ChangeKind.CLOSED if alert.is_closed else ChangeKind.OPENED
        self._enqueue(Opening(kind, alert))

    def get(self, alert_id: str) -> AlertRecord:
        """An alert as it is written down. Raises: UnknownAlertError, StoreError."""
        return self.log.get(alert_id)

    def set_evidence(self, alert_id: str, evidence: Evidence) -> None:
        """What is kept of an alert's pictures has changed."""
        self._enqueue(Picture(alert_id, evidence))

    def end_stream(self, stream_id: str) -> None:
        """A stream is gone: its watches end after what was handed in before."""
        # Those of now: who watches a stream of this id that comes next is left alone.
        self._enqueue(Farewell(self.changed.watching(stream_id)))

    def acknowledge(self, alert_id: str, note: str) -> AlertRecord:
        """Somebody has seen an alert; returns once that is committed.

        Raises:
            UnknownAlertError: there is no such alert.
            StoreError: it could not be written.
        """
        with self._writing:
            change = self.log.acknowledge(alert_id, note, time.time())
            self._tell(change)
        return change.record

    def begins_at(self, stream_id: str) -> int:
        """Lowest sequence that no alert of a stream uses that still waits to be written."""
        with self._condition:
            entries = [*self._waiting, self._under_way]
        return max(
            (
                entry.alert.last_sequence + 1
                for entry in entries
                if isinstance(entry, Opening) and entry.alert.stream_id == stream_id
            ),
            default=0,
        )

    # The desk's thread

    def _run(self) -> None:
        failures = 0
        while self._take():
            assert self._under_way is not None
            try:
                self._deal_with(self._under_way)
            except StoreError as error:
                failures += 1
                self._wait_after(failures, error)
                continue
            if failures:
                logger.info("the store takes changes of alerts again")
            failures = 0
            with self._condition:
                self._under_way = None
                self._telemetry.alerts_waiting(self._count())

    def _take(self) -> bool:
        """Whether there is something to do; waits for it, and sees to retention meanwhile."""
        while True:
            with self._condition:
                if self._is_over():
                    return False
                if self._under_way is None and self._waiting:
                    self._under_way = self._waiting.popleft()
                if self._under_way is not None:
                    return True
                if self._stop_by is not None:
                    return False
                wait_seconds = self._retention.due_in_seconds()
                if wait_seconds > 0:
                    self._condition.wait(wait_seconds)
                    continue
            self._retention.step()

    def _is_over(self) -> bool:
        return self._stop_by is not None and time.monotonic() >= self._stop_by

    def _deal_with(self, entry: Entry) -> None:
        if isinstance(entry, Farewell):
            for watch in entry.watches:
                watch.end()
            return
        with self._writing:
            try:
                change = entry.write(self.log)
            except UnknownAlertError as error:
                logger.warning("evidence of alert %s is left out: %s", entry.alert_id, error)
                return
            if change is not None:
                self._tell(change)

    def _wait_after(self, failures: int, error: StoreError) -> None:
        if failures == 1:
            logger.error("%s; changes of alerts wait in memory and are tried again", error)
        wait_seconds = min(LAST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** min(failures - 1, 16))
        with self._condition:
            self._telemetry.alerts_waiting(self._count())
            # A stop cuts the wait short: there is little time left to try again in.
            if self._stop_by is None:
                self._condition.wait_for(lambda: self._stop_by is not None, wait_seconds)
            else:
                self._condition.wait(FIRST_RETRY_SECONDS)

    def _tell(self, change: AlertChange) -> None:
        if change.position <= self._told:
            return  # it was written down before, and changed nothing now
        self._told = change.position
        for listener in self._listeners:
            listener(change)
        # Those of other streams too: their place in the log must not fall behind and be purged.
        self.changed.publish_to_all(change)

    # The queue; under the condition

    def _enqueue(self, entry: Entry) -> None:
        with self._condition:
            self._waiting.append(entry)
            if len(self._waiting) > MOST_WAITING:
                self._losses.count(spared(self._waiting))
            self._telemetry.alerts_waiting(self._count())
            self._condition.notify_all()

    def _count(self) -> int:
        return len(self._waiting) + (self._under_way is not None)
