"""What decode workers report, on their reader threads: windows, states and counts of streams."""

from __future__ import annotations

import logging
from dataclasses import replace

from server.admission import Admission
from server.batcher import Batcher
from server.evidence.keeper import EvidenceKeeper
from server.ingest.events import (
    FrameStats,
    FrameTaken,
    IngestEvent,
    Reconnected,
    StatusChanged,
    StreamEvent,
    WindowReady,
    WindowsSkipped,
)
from server.ingest.orders import EvidenceLost, EvidenceReport
from server.logs import about
from server.record import StreamRecord
from server.registry import Registry
from server.store.database import StoreError
from server.store.streams import StreamStore
from server.streams import StreamState
from server.telemetry import Telemetry

logger = logging.getLogger(__name__)

SEQUENCES_RESERVED = 1000
"""Sequences that the store gives out at a time, so that a crash never repeats one."""


class WorkerReports:
    """Hands on what the workers report, each to whom it concerns."""

    def __init__(
        self,
        registry: Registry,
        batcher: Batcher,
        store: StreamStore,
        telemetry: Telemetry,
        keeper: EvidenceKeeper,
        admission: Admission,
    ) -> None:
        self._registry = registry
        self._batcher = batcher
        self._store = store
        self._telemetry = telemetry
        self._keeper = keeper
        self._admission = admission

    def take(self, event: IngestEvent) -> None:
        """Take one event, of a stream or of evidence."""
        if isinstance(event, EvidenceReport | EvidenceLost):
            self._keeper.report(event)  # of files, which may outlive their stream
            return
        stream = self._registry.find(event.stream_id)
        if stream is not None:
            self._take_of_stream(stream, event)

    def _take_of_stream(self, stream: StreamRecord, event: StreamEvent) -> None:
        match event:
            case WindowReady():
                self._batcher.submit(stream.lane, event.window)
                self._admission.closed(stream, 1, 1)
                self._reserve(stream)
            case WindowsSkipped():
                self._batcher.pass_over(stream.lane, event.count - len(event.windows))
                for skipped in event.windows:
                    self._batcher.report_drop(stream.lane, skipped.span, skipped.reason)
                self._admission.skipped(stream, event)
                self._reserve(stream)
            case StatusChanged():
                self.change_status(stream, event)
            case FrameStats():
                self._count_frames(stream, event)
            case FrameTaken():
                if stream.session is not None:
                    stream.session.took(event.damaged)
            case Reconnected():
                self._count_reconnect(stream, event)

    def change_status(self, stream: StreamRecord, event: StatusChanged) -> None:
        """A stream is in another state: tell whom it concerns."""
        with self._registry.lock:
            stream.status = replace(
                stream.status, state=event.state, reason=event.reason, message=event.message
            )
            if stream.lane.open:
                stream.state_log.note(event)
                is_up = event.state is StreamState.RUNNING
                self._telemetry.stream_up(event.stream_id, is_up)
        if event.state is not StreamState.RUNNING:
            self._admission.interrupted(event.stream_id)
            self._batcher.break_off(stream.lane)
            if stream.session is not None:
                stream.session.conclude(event, stream.lane.next_sequence)

    def _count_frames(self, stream: StreamRecord, event: FrameStats) -> None:
        self._admission.told(event)
        with self._registry.lock:
            stream.status = replace(
                stream.status,
                frames_decoded=stream.status.frames_decoded + event.frames,
                last_frame_seconds=event.last_frame_seconds,
            )
            if stream.lane.open:
                self._telemetry.frames(event.stream_id, event.frames, event.last_frame_seconds)
        if event.frames:
            self._telemetry.stage("decode", event.decode_seconds / event.frames)
        if event.windows:
            self._telemetry.stage("preprocess", event.preprocess_seconds / event.windows)

    def _count_reconnect(self, stream: StreamRecord, event: Reconnected) -> None:
        with self._registry.lock:
            stream.status = replace(stream.status, reconnects=stream.status.reconnects + 1)
            if stream.lane.open:
                self._telemetry.reconnected(event.stream_id, event.reason.value)

    def _reserve(self, stream: StreamRecord) -> None:
        ample = stream.lane.next_sequence + SEQUENCES_RESERVED // 10 <= stream.reserved
        if ample or stream.temporary:
            return
        stream.reserved = stream.lane.next_sequence + SEQUENCES_RESERVED
        try:
            self._store.reserve(stream.config.stream_id, stream.reserved)
        except StoreError as error:
            if stream.lane.open:
                logger.warning("%s", error, extra=about(stream.config.stream_id))
