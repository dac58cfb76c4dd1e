"""Evidence under test: real workers and a keeper, alerts by hand, a log in memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
from prometheus_client import generate_latest

from server.alert_records import AlertChange, AlertRecord, ChangeKind, Evidence, EvidenceState
from server.alerts import Alert, AlertState, alert_id
from server.evidence.files import EvidenceKind, evidence_path
from server.evidence.keeper import EvidenceKeeper
from server.evidence.rules import EvidenceRules
from server.ingest.events import IngestEvent
from server.ingest.orders import EvidenceLost, EvidenceReport
from server.ingest.pool import IngestPool
from server.ingest.settings import IngestSettings
from server.streams import StreamConfig
from server.telemetry import Telemetry
from server.views import UnknownAlertError
from server.windows import Window
from tests.support.pools import HASTY, PREPROCESS, WINDOW, Recorder

WAIT_SECONDS = 20.0
SETTLED = (EvidenceState.READY, EvidenceState.FAILED, EvidenceState.DELETED)


class MemoryLog:
    """Alerts at rest, as the keeper needs them."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._records: dict[str, AlertRecord] = {}
        self.history: list[tuple[str, Evidence]] = []

    def add(self, alert: Alert) -> AlertChange:
        with self._changed:
            record = AlertRecord(alert)
            self._records[alert.alert_id] = record
        return AlertChange(1, ChangeKind.OPENED, record, time.time())

    def get(self, alert_id: str) -> AlertRecord:
        with self._changed:
            if alert_id not in self._records:
                raise UnknownAlertError(f"there is no alert {alert_id!r}")
            return self._records[alert_id]

    def set_evidence(self, alert_id: str, evidence: Evidence) -> None:
        record = self.get(alert_id)
        with self._changed:
            self._records[alert_id] = replace(record, evidence=evidence)
            self.history.append((alert_id, evidence))
            self._changed.notify_all()

    def wait(self, alert_id: str, *states: EvidenceState) -> Evidence:
        """Wait until an alert's evidence is in one of the states."""
        end = time.monotonic() + WAIT_SECONDS
        with self._changed:
            while (found := self._records[alert_id].evidence).state not in states:
                left = end - time.monotonic()
                assert left > 0, f"evidence of {alert_id} is {found}, not {states}"
                self._changed.wait(left)
            return found


class Rig:
    """A pool and a keeper; tests play the part of the scores."""

    def __init__(self, rules: EvidenceRules, settings: IngestSettings) -> None:
        self.rules = rules
        self.log = MemoryLog()
        self.events = Recorder()
        self.telemetry = Telemetry()
        self.keeper = EvidenceKeeper(rules, self.telemetry)
        self.pool = IngestPool(replace(settings, evidence=rules), WINDOW, PREPROCESS, self._take)

    def _take(self, event: IngestEvent) -> None:
        if isinstance(event, EvidenceReport | EvidenceLost):
            self.keeper.report(event)
        self.events(event)

    def hold(self, config: StreamConfig, alert: Alert) -> None:
        """A score made an event of these windows, or raised its peak."""
        self.keeper.watch(config, alert)

    def open(self, config: StreamConfig, alert: Alert) -> None:
        """The event became an alert."""
        self.keeper.watch(config, alert)
        self.keeper.changed(alert)
        self.keeper.committed(self.log.add(alert))

    def close(self, config: StreamConfig, alert: Alert) -> None:
        """The alert is over."""
        self.keeper.watch(config, None)
        self.keeper.changed(replace(alert, state=AlertState.CLOSED))

    def path(self, alert: Alert, kind: EvidenceKind) -> Path:
        assert self.rules.directory is not None
        return evidence_path(self.rules.directory, alert.stream_id, alert.alert_id, kind)

    def metrics(self) -> str:
        return generate_latest(self.telemetry.registry).decode()


@contextmanager
def rig(directory: Path, settings: IngestSettings = HASTY, **rules: Any) -> Iterator[Rig]:
    """A started rig with short rolls, stopped as the server stops it."""
    given = {"pre_roll_seconds": 2.0, "post_roll_seconds": 1.0} | rules
    one = Rig(EvidenceRules(directory=directory, **given), settings)
    one.pool.start()
    one.keeper.start(one.log, one.pool.direct)
    try:
        yield one
    finally:
        one.pool.stop()
        one.keeper.stop()


def event_of(stream_id: str, windows: list[Window], peak: Window, number: int = 0) -> Alert:
    """The alert that these windows would make."""
    return Alert(
        alert_id=alert_id(stream_id, "b" * 64, number),
        stream_id=stream_id,
        bundle_id="b" * 64,
        state=AlertState.OPEN,
        first_sequence=number,
        last_sequence=number + len(windows) - 1,
        start_seconds=windows[0].start_capture_seconds,
        end_seconds=windows[-1].end_capture_seconds,
        peak_score=0.9,
        peak_seconds=peak.end_capture_seconds,
    )


def played(path: Path) -> list[tuple[float, np.ndarray]]:
    """All pictures of a clip, decoded, with their times in seconds."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return [
            (frame.time or 0.0, frame.to_ndarray(format="rgb24"))
            for frame in container.decode(stream)
        ]


def picture(path: Path) -> np.ndarray:
    """A picture file, decoded."""
    return played(path)[0][1]


def slices(path: Path) -> list[bytes]:
    """The coded pictures of an H.264 file in their order, without what frames them."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return [
            unit
            for packet in container.demux(stream)
            for unit in _units(bytes(packet))
            if unit and unit[0] & 0x1F in (1, 5)
        ]


def _units(packet: bytes) -> Iterator[bytes]:
    at = 0
    while at + 4 <= len(packet):
        length = int.from_bytes(packet[at : at + 4], "big")
        yield packet[at + 4 : at + 4 + length]
        at += 4 + length


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {WAIT_SECONDS} s"
        threading.Event().wait(0.02)
