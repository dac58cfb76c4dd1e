"""Evidence seen from the server: tells workers what to keep, and the log what became of it.

The engine thread brings events and alerts, the workers' reader threads bring
reports; both return at once. What may wait, for a disk or the store, is done by a
thread of the keeper's own. Suppressed alerts keep evidence too: whether one was
rightly kept quiet can be judged from it alone.
"""

from __future__ import annotations

import logging
import queue
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from server.alert_records import (
    AlertChange,
    AlertRecord,
    ChangeKind,
    Evidence,
    EvidenceState,
)
from server.alerts import Alert
from server.evidence.files import (
    EvidenceKind,
    KeptFiles,
    delete_files,
    discard_scratch,
    files_of,
    kept_files,
)
from server.evidence.files import prepare as prepare_directory
from server.evidence.reader import EvidenceReader
from server.evidence.retention import DAY_SECONDS, expired
from server.evidence.rules import MB, EvidenceRules
from server.ingest.orders import (
    DropEvidence,
    EvidenceLost,
    EvidenceOrder,
    EvidenceReport,
    FinishEvidence,
    HoldEvidence,
    KeepEvidence,
)
from server.logs import about
from server.streams import StreamConfig
from server.telemetry import Telemetry
from server.tuning import EvidenceMode
from server.views import UnknownAlertError

GRACE_SECONDS = 30.0
"""A worker that has said nothing of an alert so long after its post-roll says nothing more."""

RETENTION_SECONDS = 60.0
_TICK_SECONDS = 1.0
_DISK_SECONDS = 5.0

_logger = logging.getLogger(__name__)

Direct = Callable[[str, EvidenceOrder], bool]


class EvidenceError(OSError):
    """Evidence cannot be kept where the settings say; the message says why."""


class EvidenceLog(Protocol):
    """What the keeper needs of the log of alerts."""

    def get(self, alert_id: str) -> AlertRecord:
        """An alert. Raises: UnknownAlertError, StoreError."""
        ...

    def set_evidence(self, alert_id: str, evidence: Evidence) -> object:
        """Write down what is kept. Raises: UnknownAlertError, StoreError."""
        ...


class _NoLog:
    """The log before the start: there is no alert."""

    def get(self, alert_id: str) -> AlertRecord:
        raise UnknownAlertError(f"there is no alert {alert_id!r}")

    def set_evidence(self, alert_id: str, evidence: Evidence) -> object:
        raise UnknownAlertError(f"there is no alert {alert_id!r}")


def _direct_nobody(stream_id: str, order: EvidenceOrder) -> bool:
    return False


@dataclass(slots=True)
class _Kept:
    """An alert whose evidence is being made; only the keeper's thread touches it."""

    stream_id: str
    committed: bool = False
    unsaid: Evidence | None = None
    final: bool = False
    deadline_seconds: float | None = None


class EvidenceKeeper:
    """Keeps the evidence of every alert, as the streams' modes ask for.

    Args:
        rules: what is kept, where, and for how long.
        telemetry: where evidence is counted.
    """

    def __init__(self, rules: EvidenceRules, telemetry: Telemetry) -> None:
        self._rules = rules
        self._telemetry = telemetry
        self._log: EvidenceLog = _NoLog()
        self._direct: Direct = _direct_nobody
        self._events: dict[str, HoldEvidence] = {}
        self._open: dict[str, str] = {}
        self._low = False
        self._kept: dict[str, _Kept] = {}
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._looked_seconds = self._cleaned_seconds = float("-inf")
        self._thread = threading.Thread(target=self._run, name="evidence-keeper", daemon=True)

    @property
    def reader(self) -> EvidenceReader:
        """Opens for clients what is kept."""
        return EvidenceReader(self._rules.directory, self._log.get)

    def start(self, log: EvidenceLog, direct: Direct) -> None:
        """Make the directory ready, then see to what an earlier server left.

        Args:
            log: where alerts are at rest.
            direct: sends an order to a stream's worker; whether there is such a stream.

        Raises:
            EvidenceError: the directory cannot be used.
        """
        self._log, self._direct = log, direct
        directory = self._rules.directory
        if directory is None:
            return
        try:
            prepare_directory(directory)
        except OSError as error:
            raise EvidenceError(
                f"evidence.directory {directory} cannot be used ({error.strerror}); choose "
                "another with --set evidence.directory=DIR"
            ) from None
        self._tasks.put(lambda: self._take_up(directory))
        self._thread.start()

    def stop(self, timeout_seconds: float = 1.0) -> None:
        """Write down what the workers have reported; call it once they are gone."""
        self._tasks.put(None)
        if self._thread.is_alive():
            self._thread.join(timeout_seconds)

    # What happens to alerts; on the engine thread, one at a time

    def watch(self, config: StreamConfig, event: Alert | None) -> None:
        """What may become an alert of a stream, or is one, after its newest score.

        Call it after every score, before `changed`.
        """
        stream_id = config.stream_id
        held = self._events.get(stream_id)
        if event is None or self._rules.mode_of(config) is EvidenceMode.NONE:
            if held is not None:
                del self._events[stream_id]
                self._let_go(stream_id, held)
            return
        from_seconds = event.start_seconds - self._rules.pre_roll_seconds
        wanted = HoldEvidence(event.alert_id, from_seconds, event.peak_seconds)
        if wanted == held or self._low:
            return
        if held is not None and held.alert_id != wanted.alert_id:
            self._let_go(stream_id, held)
        self._events[stream_id] = wanted
        self._direct(stream_id, wanted)

    def changed(self, alert: Alert) -> None:
        """An alert opened or closed."""
        if alert.is_closed:
            self._finish(alert)
            return
        held = self._events.get(alert.stream_id)
        if held is not None and held.alert_id == alert.alert_id:
            self._open[alert.alert_id] = alert.stream_id
            kept = _Kept(alert.stream_id)
            self._tasks.put(lambda: self._kept.update({alert.alert_id: kept}))
            self._direct(
                alert.stream_id,
                KeepEvidence(held.alert_id, held.from_seconds, held.peak_seconds),
            )
        elif self._low and self._rules.directory is not None:
            failed = _Kept(alert.stream_id, unsaid=Evidence(EvidenceState.FAILED), final=True)
            self._tasks.put(lambda: self._kept.update({alert.alert_id: failed}))

    def committed(self, change: AlertChange) -> None:
        """A change of an alert was written down; from any thread."""
        if change.kind is ChangeKind.OPENED:
            alert_id = change.record.alert.alert_id
            self._tasks.put(lambda: self._commit(alert_id))

    def report(self, event: EvidenceReport | EvidenceLost) -> None:
        """What a worker says; from any thread."""
        if isinstance(event, EvidenceReport):
            self._tasks.put(lambda: self._take(event))
        else:
            self._tasks.put(lambda: self._take_loss(event))

    def _let_go(self, stream_id: str, held: HoldEvidence) -> None:
        if held.alert_id not in self._open:
            self._direct(stream_id, DropEvidence(held.alert_id))

    def _finish(self, alert: Alert) -> None:
        if self._open.pop(alert.alert_id, None) is None:
            return
        until_seconds = alert.end_seconds + self._rules.post_roll_seconds
        self._direct(alert.stream_id, FinishEvidence(alert.alert_id, until_seconds))
        patience_seconds = self._rules.post_roll_seconds + GRACE_SECONDS
        deadline_seconds = time.monotonic() + patience_seconds
        self._tasks.put(lambda: self._bound(alert.alert_id, deadline_seconds))

    # The keeper's own thread

    def _run(self) -> None:
        while True:
            self._tend()
            try:
                task = self._tasks.get(timeout=_TICK_SECONDS)
                if task is None:
                    return
                task()
            except queue.Empty:
                continue

    def _tend(self) -> None:
        directory, now_seconds = self._rules.directory, time.monotonic()
        assert directory is not None
        for alert_id, kept in list(self._kept.items()):
            late = kept.deadline_seconds is not None and now_seconds > kept.deadline_seconds
            if late and not kept.final:
                self._resolve(directory, alert_id, kept, "its worker said nothing more of it")
            elif kept.final:
                self._say(alert_id, kept)  # again, where the store could not be written
        try:
            if now_seconds - self._cleaned_seconds >= RETENTION_SECONDS:
                self._cleaned_seconds = now_seconds
                self._enforce_retention(directory)
            if now_seconds - self._looked_seconds >= _DISK_SECONDS:
                self._looked_seconds = now_seconds
                self._look_at_disk(directory)
        except OSError as error:
            _logger.warning("evidence in %s cannot be looked after: %s", directory, error)

    def _take_up(self, directory: Path) -> None:
        """Write down what a server wrote to the disk that was killed before it said so."""
        for files in kept_files(directory):
            try:
                record = self._log.get(files.alert_id)
                if record.evidence.state in (EvidenceState.NONE, EvidenceState.PENDING):
                    self._log.set_evidence(files.alert_id, _evidence_of(files))
            except UnknownAlertError:
                continue  # of another store; it goes when it is old
            except OSError as error:
                _logger.warning("evidence of alert %s: %s", files.alert_id, error)

    def _commit(self, alert_id: str) -> None:
        kept = self._kept.get(alert_id)
        if kept is not None:
            kept.committed = True
            self._say(alert_id, kept)

    def _bound(self, alert_id: str, deadline_seconds: float) -> None:
        kept = self._kept.get(alert_id)
        if kept is not None:
            kept.deadline_seconds = deadline_seconds

    def _take(self, report: EvidenceReport) -> None:
        kept = self._kept.get(report.alert_id)
        if kept is None:
            if not report.final:
                return
            # Nobody waited for it any more; it is true all the same.
            kept = self._kept[report.alert_id] = _Kept(report.stream_id, committed=True)
        kept.final = report.final
        if report.final or report.snapshot_bytes:
            kept.unsaid = Evidence(
                _state_of(report),
                report.snapshot_bytes,
                report.clip_bytes,
                report.clip_start_seconds,
                report.clip_end_seconds,
            )
        self._say(report.alert_id, kept)

    def _take_loss(self, loss: EvidenceLost) -> None:
        directory = self._rules.directory
        assert directory is not None
        for alert_id, kept in list(self._kept.items()):
            if kept.stream_id == loss.stream_id and not kept.final:
                discard_scratch(directory, kept.stream_id, alert_id)
                self._resolve(directory, alert_id, kept, "its worker was lost")

    def _resolve(self, directory: Path, alert_id: str, kept: _Kept, why: str) -> None:
        """Settle for what is on the disk."""
        files = files_of(directory, kept.stream_id, alert_id)
        _logger.warning(
            "alert %s: evidence: %s; %s",
            alert_id,
            why,
            "what was written is kept" if files else "nothing was written",
            extra=about(kept.stream_id, alert=alert_id),
        )
        kept.unsaid = _evidence_of(files) if files else Evidence(EvidenceState.FAILED)
        kept.final = True
        self._say(alert_id, kept)

    def _say(self, alert_id: str, kept: _Kept) -> None:
        """Write down what is known, once the alert itself has been."""
        if not kept.committed:
            return
        if kept.unsaid is not None:
            try:
                self._log.set_evidence(alert_id, kept.unsaid)
            except UnknownAlertError:
                kept.final = True
            except OSError as error:
                _logger.warning("evidence of alert %s: %s", alert_id, error)
                return
            if kept.final and kept.unsaid.state is not EvidenceState.NONE:
                self._telemetry.evidence_made(kept.unsaid.state.value)
            kept.unsaid = None
        if kept.final:
            self._kept.pop(alert_id, None)

    def _look_at_disk(self, directory: Path) -> None:
        free_bytes = shutil.disk_usage(directory).free
        low = free_bytes < self._rules.min_free_mb * MB
        if low != self._low:
            what = "nothing new is kept" if low else "evidence is kept again"
            _logger.warning(
                "%d MB are free for evidence in %s, evidence.min_free_mb is %d: %s",
                free_bytes // MB,
                directory,
                self._rules.min_free_mb,
                what,
            )
        self._low = low

    def _enforce_retention(self, directory: Path) -> None:
        kept = [files for files in kept_files(directory) if files.alert_id not in self._kept]
        rules = self._rules
        gone = expired(kept, time.time(), rules.max_days * DAY_SECONDS, rules.max_mb * MB)
        for one in gone:
            count = delete_files(directory, one.files.stream_id, one.files.alert_id)
            self._telemetry.evidence_deleted(one.reason.value, count)
            try:
                deleted = Evidence(EvidenceState.DELETED)
                self._log.set_evidence(one.files.alert_id, deleted)
            except UnknownAlertError:
                continue
        left = sum(files.size_bytes for files in kept)
        left -= sum(one.files.size_bytes for one in gone)
        self._telemetry.evidence_kept(left, shutil.disk_usage(directory).free)


def _state_of(report: EvidenceReport) -> EvidenceState:
    if not report.final:
        return EvidenceState.PENDING
    if report.snapshot_bytes or report.clip_bytes:
        return EvidenceState.READY
    return EvidenceState.FAILED if report.problem else EvidenceState.NONE


def _evidence_of(files: KeptFiles) -> Evidence:
    return Evidence(
        EvidenceState.READY,
        files.sizes.get(EvidenceKind.SNAPSHOT, 0),
        files.sizes.get(EvidenceKind.CLIP, 0),
    )
