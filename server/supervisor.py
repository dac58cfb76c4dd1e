"""Many streams: create, watch over, update, delete; and their way through the server.

Decode workers hand windows in, the batcher hands scores out; in between stands
one record a stream. What is done to one stream never touches another.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from server.alerts import Alert, AlertMachine, AlertPolicy, ScoredSpan
from server.batcher import Batcher, BatchSettings, Lane
from server.engine.onnxruntime import OnnxDetector
from server.hub import Hub
from server.ingest.access import AccessPolicy
from server.ingest.events import (
    FrameStats,
    IngestEvent,
    Reconnected,
    StatusChanged,
    WindowReady,
    WindowsSkipped,
)
from server.ingest.pool import IngestPool
from server.scoring import DropReason, WindowScore
from server.store import Store, StoreError
from server.streams import Mode, SourceError, StreamConfig, StreamState, StreamStatus
from server.telemetry import Telemetry
from server.views import (
    CapacityError,
    Change,
    ModelInfo,
    StreamExistsError,
    StreamView,
    UnknownStreamError,
)

logger = logging.getLogger(__name__)

SEQUENCES_RESERVED = 1000
"""Sequences that the store gives out at a time, so that a crash never repeats one."""

MakePool = Callable[[Callable[[IngestEvent], None]], IngestPool]


@dataclass(frozen=True, slots=True)
class SupervisorSettings:
    """Values of the supervisor.

    Attributes:
        batch: how windows are joined.
        close_ratio: default close threshold as a share of the open threshold.
        min_duration_seconds: that an event must last to become an alert.
        max_streams: at most so many at a time.
        access: which sources may be opened.
    """

    batch: BatchSettings
    close_ratio: float
    min_duration_seconds: float
    max_streams: int
    access: AccessPolicy


@dataclass(slots=True, eq=False)
class _Stream:
    """All that belongs to one stream; guarded by the supervisor's lock."""

    config: StreamConfig
    created_seconds: float
    lane: Lane
    machine: AlertMachine
    reserved: int
    last_score: float | None = None
    status: StreamStatus = field(default_factory=lambda: StreamStatus(StreamState.CONNECTING))


class Supervisor:
    """The domain behind the gRPC services.

    Args:
        detector: loaded and warm; from now on the batcher's alone.
        model: what it is.
        settings: values.
        store: where streams survive a restart.
        telemetry: where everything is counted.
        make_pool: builds the decode workers around the callback for their events.
    """

    def __init__(
        self,
        detector: OnnxDetector,
        model: ModelInfo,
        settings: SupervisorSettings,
        *,
        store: Store,
        telemetry: Telemetry,
        hubs: tuple[Hub[WindowScore], Hub[Alert]],
        make_pool: MakePool,
    ) -> None:
        self.model = model
        self.scores, self.alerts = hubs
        self._settings = settings
        self._store = store
        self._telemetry = telemetry
        self._batcher = Batcher(detector, settings.batch, self)
        self._pool = make_pool(self._take_event)
        self._streams: dict[str, _Stream] = {}
        self._lock = threading.Lock()
        self._changing = asyncio.Lock()

    # Lifecycle

    async def start(self) -> None:
        """Start the engine thread and the workers, then every stored stream."""
        self._batcher.start()
        await asyncio.to_thread(self._pool.start)
        for stored in await asyncio.to_thread(self._store.load):
            await self._open(stored.config, stored.created_seconds, stored.next_sequence)

    async def stop(self) -> None:
        """Stop workers and engine; sequences go on from here at the next start."""
        async with self._changing:  # a change whose client hung up may still be under way
            await asyncio.to_thread(self._pool.stop)
            await asyncio.to_thread(self._batcher.stop)
            for stream in self._all():
                self._publish(stream.machine.finish())
                next_sequence = stream.lane.next_sequence
                await asyncio.to_thread(self._store.settle, stream.config.stream_id, next_sequence)

    # What clients ask for

    async def create(self, config: StreamConfig) -> StreamView:
        """Add a stream and start it.

        Raises:
            StreamExistsError: the id, or the port to listen on, is taken.
            CapacityError: there are as many streams as the settings allow.
            SourceError: ADDRESS_DENIED.
            StoreError: it could not be stored; then it does not exist.
        """
        self._settings.access.check(config)
        async with self._changing:
            self._check_free(config)
            created_seconds = time.time()
            await asyncio.to_thread(self._store.save, config, created_seconds)
            return await self._open(config, created_seconds, next_sequence=0)

    def get(self, stream_id: str) -> StreamView:
        """One stream.

        Raises:
            UnknownStreamError: there is none of that id.
        """
        with self._lock:
            return _view(self._known(stream_id))

    def list(self) -> list[StreamView]:
        """All streams, by id."""
        return [_view(stream) for stream in self._all()]

    async def update(self, stream_id: str, change: Change) -> StreamView:
        """Change a stream; it reconnects where its source changed or it had come to rest.

        Raises:
            UnknownStreamError, StreamExistsError, SourceError, StoreError: as `create`;
                and whatever `change` raises.
        """
        async with self._changing:
            # Read here and not by the caller: what another update just changed is kept.
            config = change(self.get(stream_id).config)
            self._settings.access.check(config)
            self._check_port(config)
            await asyncio.to_thread(self._store.update, config)
            with self._lock:
                stream = self._known(stream_id)
                stream.config = config
                stream.lane.lossless = config.url.scheme == "file"
                stream.machine.policy = self._policy(config)
            self._reopen(config)
            return self.get(stream_id)

    async def delete(self, stream_id: str) -> None:
        """Stop a stream and forget it.

        Raises:
            UnknownStreamError: there is none of that id.
            StoreError: it could not be removed from the store; then it lives on.
        """
        async with self._changing:
            with self._lock:
                self._known(stream_id)
            await asyncio.to_thread(self._store.delete, stream_id)
            self._pool.remove(stream_id)
            with self._lock:
                stream = self._streams.pop(stream_id)
                self._batcher.close_lane(stream.lane)
                self._publish(stream.machine.finish())
                self._telemetry.forget(stream_id)
            self.scores.end_stream(stream_id)
            self.alerts.end_stream(stream_id)
            logger.info("stream %s deleted", stream_id)

    # What the workers report; on their reader threads

    def _take_event(self, event: IngestEvent) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is None:
            return
        match event:
            case WindowReady():
                self._batcher.submit(stream.lane, event.window)
                self._reserve(stream)
            case WindowsSkipped():
                self._batcher.pass_over(stream.lane, event.count - len(event.windows))
                for span in event.windows:
                    self._batcher.report_drop(stream.lane, span, DropReason.BACKLOG)
                self._reserve(stream)
            case StatusChanged():
                self._change_status(stream, event)
            case FrameStats():
                self._count_frames(stream, event)
            case Reconnected():
                with self._lock:
                    count = stream.status.reconnects + 1
                    stream.status = replace(stream.status, reconnects=count)
                    if stream.lane.open:
                        self._telemetry.reconnected(event.stream_id, event.reason.value)

    def _change_status(self, stream: _Stream, event: StatusChanged) -> None:
        with self._lock:
            stream.status = replace(
                stream.status, state=event.state, reason=event.reason, message=event.message
            )
            if stream.lane.open:
                is_up = event.state is StreamState.RUNNING
                self._telemetry.stream_up(event.stream_id, is_up)
        if event.state is not StreamState.RUNNING:
            self._batcher.break_off(stream.lane)

    def _count_frames(self, stream: _Stream, event: FrameStats) -> None:
        with self._lock:
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

    def _reserve(self, stream: _Stream) -> None:
        if stream.lane.next_sequence + SEQUENCES_RESERVED // 10 <= stream.reserved:
            return
        stream.reserved = stream.lane.next_sequence + SEQUENCES_RESERVED
        try:
            self._store.reserve(stream.config.stream_id, stream.reserved)
        except StoreError as error:
            if stream.lane.open:
                logger.warning("stream %s: %s", stream.config.stream_id, error)

    # What the batcher reports; on the engine thread

    def scored(self, lane: Lane, score: WindowScore) -> None:
        """Publish one window's score, and what it does to the stream's alert."""
        self._pool.acknowledge(lane.stream_id)
        with self._lock:
            stream = self._streams.get(lane.stream_id)
            if stream is None or stream.lane is not lane:
                return
            if score.score is None:
                assert score.drop_reason is not None
                self._telemetry.window_dropped(lane.stream_id, score.drop_reason.value)
            else:
                stream.last_score = score.score
                self._telemetry.window_scored(lane.stream_id, score.score, score.latency_seconds)
            self.scores.publish(score)
            self._publish(stream.machine.push(_scored_span(score)))

    def broke_off(self, lane: Lane) -> None:
        """The source broke off: close an open alert, nothing is known beyond."""
        with self._lock:
            stream = self._streams.get(lane.stream_id)
            if stream is not None and stream.lane is lane:
                self._publish(stream.machine.finish())

    def stage(self, name: str, seconds: float) -> None:
        """Count one stage of a batch."""
        self._telemetry.stage(name, seconds)

    def batch(self, size: int) -> None:
        """Count one batch."""
        self._telemetry.batch(size)

    # Helpers

    async def _open(
        self, config: StreamConfig, created_seconds: float, next_sequence: int
    ) -> StreamView:
        lossless = config.url.scheme == "file"
        lane = self._batcher.open_lane(config.stream_id, next_sequence, lossless=lossless)
        machine = AlertMachine(config.stream_id, self.model.bundle_id, self._policy(config))
        reserved = next_sequence + SEQUENCES_RESERVED
        stream = _Stream(config, created_seconds, lane, machine, reserved)
        await asyncio.to_thread(self._store.reserve, config.stream_id, reserved)
        with self._lock:
            self._streams[config.stream_id] = stream
            self._telemetry.stream_up(config.stream_id, False)
            view = _view(stream)
        logger.info("stream %s: %s", config.stream_id, config.url)
        try:
            self._pool.add(config)
        except SourceError as error:
            # A stored stream that today's settings deny waits for its update.
            denied = StatusChanged(
                config.stream_id, StreamState.PARKED, error.reason, error.sentence
            )
            self._change_status(stream, denied)
        return view

    def _reopen(self, config: StreamConfig) -> None:
        try:
            self._pool.update(config)
        except KeyError:
            self._pool.add(config)  # it was denied at the start and never opened

    def _publish(self, changes: Sequence[Alert]) -> None:
        for alert in changes:
            if alert.is_closed:
                self._telemetry.alert_closed(alert.stream_id)
            else:
                self._telemetry.alert_opened(alert.stream_id)
            logger.info(
                "stream %s alert %s %s, peak %.3f",
                alert.stream_id,
                alert.alert_id,
                alert.state.value,
                alert.peak_score,
            )
            self.alerts.publish(alert)

    def _policy(self, config: StreamConfig) -> AlertPolicy:
        opens = config.open_threshold
        if opens is None:
            opens = self.model.threshold
        closes = self._settings.close_ratio * opens
        return AlertPolicy(opens, closes, self._settings.min_duration_seconds)

    def _known(self, stream_id: str) -> _Stream:
        stream = self._streams.get(stream_id)
        if stream is None:
            raise UnknownStreamError(f"there is no stream {stream_id!r}; list them first")
        return stream

    def _all(self) -> Sequence[_Stream]:
        with self._lock:
            return [self._streams[stream_id] for stream_id in sorted(self._streams)]

    def _check_free(self, config: StreamConfig) -> None:
        if config.stream_id in self._streams:
            raise StreamExistsError(
                f"stream {config.stream_id!r} exists already; choose another id or update it"
            )
        if len(self._streams) >= self._settings.max_streams:
            raise CapacityError(
                f"this server takes {self._settings.max_streams} streams and has as many; "
                "delete one first or raise max_streams"
            )
        self._check_port(config)

    def _check_port(self, config: StreamConfig) -> None:
        if config.mode is not Mode.LISTEN:
            return
        for other in self._all():
            if other.config.stream_id == config.stream_id or other.config.mode is not Mode.LISTEN:
                continue
            if other.config.url.port == config.url.port:
                raise StreamExistsError(
                    f"port {config.url.port} is listened on by stream "
                    f"{other.config.stream_id!r} already; choose another port"
                )


def _view(stream: _Stream) -> StreamView:
    return StreamView(
        config=stream.config,
        status=stream.status,
        next_sequence=stream.lane.next_sequence,
        last_score=stream.last_score,
        created_seconds=stream.created_seconds,
    )


def _scored_span(score: WindowScore) -> ScoredSpan:
    return ScoredSpan(
        sequence=score.sequence,
        start_seconds=score.span.start_capture_seconds,
        end_seconds=score.span.end_capture_seconds,
        score=score.score,
        after_gap=score.span.number == 0,
    )
