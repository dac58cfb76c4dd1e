"""Many streams: create, watch over, update, delete; and their way through the server.

Decode workers hand windows in, the batcher hands scores out; in between stands
one record a stream. What is done to one stream never touches another.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial

from server.admission import Admission
from server.alert_machine import AlertMachine
from server.alerts import Alert, EndReason
from server.batcher import Batcher, Lane
from server.calibration import Calibration, CalibrationAsk, CalibrationError
from server.calibrator import Calibrator
from server.capacity import CapacitySummary
from server.desk import AlertDesk
from server.evidence.keeper import EvidenceKeeper
from server.evidence.reader import EvidenceReader
from server.hub import Hub
from server.ingest.events import (
    IngestEvent,
    StatusChanged,
)
from server.ingest.orders import EvidenceOrder
from server.ingest.pool import IngestPool
from server.journal import log_alert
from server.logs import about
from server.push import PushCalls, PushSession, waiting_for_push
from server.pushed import PushFormat
from server.record import StreamRecord, scored_span
from server.registry import Registry
from server.scoring import Detector, WindowScore
from server.store.database import StoreError
from server.store.streams import StreamStore
from server.streams import (
    PUSHED,
    Reason,
    SourceError,
    SourceUrl,
    StreamConfig,
    StreamState,
)
from server.supervision import SupervisorSettings
from server.telemetry import Telemetry
from server.thinning import Thinning
from server.views import (
    Change,
    ModelInfo,
    NotPushableError,
    StreamView,
    UnknownStreamError,
)
from server.worker_reports import SEQUENCES_RESERVED, WorkerReports

logger = logging.getLogger(__name__)

MakePool = Callable[[Callable[[IngestEvent], None]], IngestPool]


class Supervisor:
    """The domain behind the gRPC services.

    Args:
        detector: loaded and warm; from now on the batcher's alone.
        model: what it is.
        settings: values.
        store: where streams survive a restart.
        telemetry: where everything is counted.
        scores: where scores are published.
        desk: where changes of alerts are handed in; started before and stopped after.
        keeper: of the alerts' evidence.
        make_pool: builds the decode workers around the callback for their events.
    """

    def __init__(
        self,
        detector: Detector,
        model: ModelInfo,
        settings: SupervisorSettings,
        *,
        store: StreamStore,
        telemetry: Telemetry,
        scores: Hub[WindowScore],
        desk: AlertDesk,
        keeper: EvidenceKeeper,
        make_pool: MakePool,
    ) -> None:
        self.model = model
        self.push_calls = PushCalls(settings.push)
        self.scores, self.desk = scores, desk
        self._settings = settings
        self._store, self._keeper = store, keeper
        self._telemetry = telemetry
        self._batcher = Batcher(detector, settings.batch, self)
        self._registry = registry = Registry(settings.max_streams)
        self._admission = admission = Admission(
            registry,
            settings.capacity,
            telemetry,
            lambda: self._pool.worker_pids(),
            self.set_thinned,
        )
        self._reports = WorkerReports(registry, self._batcher, store, telemetry, keeper, admission)
        self._pool = make_pool(self._reports.take)
        self._thinning = Thinning(registry, self._pool, telemetry)
        self._changing = asyncio.Lock()
        self._calibrator = Calibrator(store.database, model, settings, telemetry, self._configs)
        self._calibrator.tell_drift = self._tell_drift

    # Lifecycle

    async def start(self) -> None:
        """Start the engine thread and the workers, then every stored stream."""
        self._batcher.start()
        await asyncio.to_thread(self._pool.start)
        await asyncio.to_thread(self._calibrator.start)
        for stored in await asyncio.to_thread(self._store.load):
            config = self._calibrator.in_service(stored.config)
            await self._open(config, stored.created_seconds, stored.next_sequence)
        self._admission.start()

    async def stop(self) -> None:
        """Stop workers and engine; sequences go on from here at the next start."""
        self._admission.stop()
        async with self._changing:  # a change whose client hung up may still be under way
            await asyncio.to_thread(self._pool.stop)
            await asyncio.to_thread(self._batcher.stop)
            await asyncio.to_thread(self._calibrator.history.stop)
            for stream in self._registry.all():
                self._follow(stream, stream.machine.finish(EndReason.STOPPED))
                if stream.temporary:
                    continue
                stream_id, next_sequence = stream.config.stream_id, stream.lane.next_sequence
                try:
                    await asyncio.to_thread(self._store.settle, stream_id, next_sequence)
                except StoreError as error:  # then the sequence goes on a little higher
                    logger.warning("%s", error, extra=about(stream_id))

    # What clients ask for

    async def create(self, config: StreamConfig) -> StreamView:
        """Add a stream and start it.

        Raises:
            StreamExistsError: the id, or the port to listen on, is taken.
            CapacityError: there are as many streams as the settings allow, or the machine holds.
            SourceError: ADDRESS_DENIED.
            PolicyError: its tuning does not go with its threshold.
            StoreError: it could not be stored; then it does not exist.
        """
        self._settings.access.check(config)
        self._settings.alert_policy(config, self.model.threshold)
        lossless = config.url.scheme == "file"
        async with self._admission.entering(self._changing, at_once=lossless):
            crowded = self._admission.check(config, lossless=lossless)
            created_seconds = time.time()
            await asyncio.to_thread(self._store.save, config, created_seconds)
            next_sequence = await asyncio.to_thread(self._begins_at, config.stream_id)
            view = await self._open(config, created_seconds, next_sequence)
            if crowded:
                self._admission.settle_soon()
            return view

    @property
    def capacity(self) -> CapacitySummary:
        """What the streams take and what there is, at this moment."""
        return self._admission.capacity().summary()

    def get(self, stream_id: str) -> StreamView:
        """One stream.

        Raises:
            UnknownStreamError: there is none of that id.
        """
        with self._registry.lock:
            return self._viewed(self._registry.known(stream_id))

    def list(self) -> list[StreamView]:
        """All streams, by id."""
        return [self._viewed(stream) for stream in self._registry.all()]

    async def update(self, stream_id: str, change: Change) -> StreamView:
        """Change a stream; it reconnects where its source changed or it had come to rest.

        What changes its alerts, its sampling or its priority alone never makes it reconnect.

        Raises:
            UnknownStreamError, StreamExistsError, SourceError, PolicyError, StoreError: as
                `create`; and whatever `change` raises.
        """
        async with self._changing:
            # Read here and not by the caller: what another update just changed is kept.
            config = change(self.get(stream_id).config)
            self._settings.access.check(config)
            self._registry.check_port(config)
            policy = self._settings.alert_policy(config, self.model.threshold)
            with self._registry.lock:
                stream = self._registry.known(stream_id)
            if not stream.temporary:
                await asyncio.to_thread(self._store.update, config)
            with self._registry.lock:
                before, stream.config = stream.config, config
                stream.machine.policy = policy
            self._reopen(stream, before)
            self._thinning.tell(stream)
            return self.get(stream_id)

    def set_thinned(self, stream_id: str, thinned: bool) -> None:
        """Have a stream scored by its `sampling_when_full`, or by its `sampling` again.

        Safe from any thread.

        Raises:
            UnknownStreamError: there is none of that id.
            ValueError: the stream may not be thinned.
        """
        self._thinning.set(stream_id, thinned)

    async def delete(self, stream_id: str) -> None:
        """Stop a stream and forget it.

        Raises:
            UnknownStreamError: there is none of that id.
            StoreError: it could not be removed from the store; then it lives on.
        """
        async with self._changing:
            with self._registry.lock:
                stream = self._registry.known(stream_id)
            if not stream.temporary:
                await asyncio.to_thread(self._store.delete, stream_id)
            self._forget(stream)
            await asyncio.to_thread(self._calibrator.forget, stream_id)

    async def calibrate(self, stream_id: str, ask: CalibrationAsk) -> Calibration:
        """Learn a threshold from footage; it is kept only where it is applied.

        Raises:
            UnknownStreamError: there is none of that id.
            CalibrationError: the footage cannot answer, or nothing is kept of the stream.
            StoreError: the store cannot be read or written.
        """
        with self._registry.lock:
            stream = self._registry.known(stream_id)
        if stream.temporary:
            raise CalibrationError(
                f"stream {stream_id!r} goes with the call that pushes it; add one that stays"
            )
        found = await asyncio.to_thread(self._calibrator.learn, stream.config, ask)
        if not ask.apply:
            return found
        async with self._changing:
            if self._registry.known(stream_id) is not stream:
                raise UnknownStreamError(f"stream {stream_id!r} was deleted meanwhile")
            await asyncio.to_thread(self._calibrator.keep, stream_id, found)
        opens = found.open_threshold
        await self.update(stream_id, lambda config: replace(config, open_threshold=opens))
        return replace(found, applied=True)

    @asynccontextmanager
    async def pushing(
        self, stream_id: str | None, temporary_id: str, push: PushFormat
    ) -> AsyncIterator[PushSession]:
        """A session in which a client pushes video; it ends with the block.

        Args:
            stream_id: the stream to push to; None makes a temporary one.
            temporary_id: the id of that one.
            push: what will be sent.

        Raises:
            UnknownStreamError: there is no stream of that id.
            NotPushableError: it is no push:// stream, or another call pushes to it.
            StreamExistsError: the temporary id is taken.
            CapacityError: there are as many streams as the settings allow, or the machine holds.
            StoreError: nobody knows where the sequence of the temporary id begins.
        """
        session = await self._begin_push(stream_id, temporary_id, push)
        try:
            yield session
        finally:
            await asyncio.shield(self._end_push(session))

    @property
    def evidence(self) -> EvidenceReader:
        """Opens what is kept of alerts' pictures."""
        return self._keeper.reader

    def direct(self, stream_id: str, order: EvidenceOrder) -> bool:
        """Pass an order about evidence on to a stream's worker; whether there is one."""
        return self._pool.direct(stream_id, order)

    def end_pushes(self, error: Exception) -> None:
        """End every session, because of `error`."""
        for stream in self._registry.all():
            if stream.session is not None:
                stream.session.fail(error)

    # What the batcher reports; on the engine thread

    def scored(self, lane: Lane, score: WindowScore) -> None:
        """Publish one window's score, and what it does to the stream's alert."""
        with self._registry.lock:
            stream = self._registry.find(lane.stream_id)
            if stream is None or stream.lane is not lane:
                return
            if stream.session is not None:
                stream.session.offer(score)  # acknowledged once the client has it
            elif lane.lossless:
                self._pool.acknowledge(lane.stream_id)
            if score.score is None:
                assert score.drop_reason is not None
                self._telemetry.window_dropped(lane.stream_id, score.drop_reason.value)
            else:
                stream.last_score = score.score
                self._telemetry.window_scored(lane.stream_id, score.score, score.latency_seconds)
            self.scores.publish(score)
            span = scored_span(score)
            if not stream.temporary:
                self._calibrator.history.add(lane.stream_id, span)
            self._follow(stream, stream.machine.push(span))

    def broke_off(self, lane: Lane) -> None:
        """The source broke off: close an open alert, nothing is known beyond."""
        with self._registry.lock:
            stream = self._registry.find(lane.stream_id)
            if stream is not None and stream.lane is lane:
                self._follow(stream, stream.machine.finish())

    def stage(self, name: str, seconds: float) -> None:
        """Count one stage of a batch."""
        self._telemetry.stage(name, seconds)

    def batch(self, size: int) -> None:
        """Count one batch."""
        self._admission.ran(size)
        self._telemetry.batch(size)

    # Helpers

    def _begins_at(self, stream_id: str) -> int:
        # What waits at the desk may be in the store by the time that is asked, not before.
        waiting = self.desk.begins_at(stream_id)
        return max(waiting, self._store.begins_at(stream_id))

    async def _open(
        self, config: StreamConfig, created_seconds: float, next_sequence: int
    ) -> StreamView:
        reserved = next_sequence + SEQUENCES_RESERVED
        await asyncio.to_thread(self._store.reserve, config.stream_id, reserved)
        stream = self._enter(config, created_seconds, next_sequence, reserved)
        # A cooldown goes on over a restart.
        stream.machine.delivered_until_seconds = await asyncio.to_thread(
            self.desk.log.delivered_until, config.stream_id
        )
        view = self.get(config.stream_id)
        if config.is_pushed:
            self._reports.change_status(stream, waiting_for_push(config.stream_id, None))
            return self.get(config.stream_id)
        stream.lane.lossless = config.url.scheme == "file"
        try:
            self._pool.add(stream.in_effect)
        except SourceError as error:
            # A stored stream that today's settings deny waits for its update.
            denied = StatusChanged(
                config.stream_id, StreamState.PARKED, error.reason, error.sentence
            )
            self._reports.change_status(stream, denied)
        return view

    def _enter(
        self, config: StreamConfig, created_seconds: float, next_sequence: int, reserved: int
    ) -> StreamRecord:
        """Make the record of a stream, without a source yet."""
        lane = self._batcher.open_lane(config.stream_id, next_sequence)
        self._batcher.prioritise(lane, config.priority)
        machine = AlertMachine(
            config.stream_id,
            self.model.bundle_id,
            self._settings.usable_policy(config, self.model.threshold),
        )
        stream = StreamRecord(config, created_seconds, lane, machine, reserved)
        with self._registry.lock:
            self._registry.enter(stream)
            self._telemetry.stream_up(config.stream_id, False)
        logger.info("taken up from %s", config.url, extra=about(config.stream_id))
        return stream

    def _forget(self, stream: StreamRecord) -> None:
        """Leave nothing of a stream but what the store has of it."""
        stream_id = stream.config.stream_id
        self._pool.remove(stream_id)
        self._admission.forget(stream_id)
        with self._registry.lock:
            self._registry.remove(stream_id)
            self._batcher.close_lane(stream.lane)
            self._follow(stream, stream.machine.finish(EndReason.STOPPED))
            self._telemetry.forget(stream_id)
        if stream.session is not None:
            stream.session.fail(UnknownStreamError(f"stream {stream_id} was deleted"))
        self.scores.end_stream(stream_id)
        self.desk.end_stream(stream_id)
        logger.info("deleted", extra=about(stream_id))

    def _reopen(self, stream: StreamRecord, before: StreamConfig) -> None:
        config = stream.config
        self._batcher.prioritise(stream.lane, config.priority)
        if config != before and config.tuned_as(before) == before:
            self._thinning.follow(stream)
            return  # a snooze must not ask a camera again that refused us
        if config.is_pushed and before.is_pushed:
            with suppress(KeyError):  # nobody pushes to it now
                self._pool.update(stream.in_effect)
            return
        if stream.session is not None:
            gone = NotPushableError(f"stream {config.stream_id!r} got another source")
            stream.session.fail(gone)
            stream.session = None
        if config.is_pushed or before.is_pushed:
            self._pool.remove(config.stream_id)
        if config.is_pushed:
            self._reports.change_status(stream, waiting_for_push(config.stream_id, None))
            return
        stream.lane.lossless = config.url.scheme == "file"
        try:
            self._pool.update(stream.in_effect)
        except KeyError:
            self._pool.add(stream.in_effect)  # it was denied at the start, or was pushed so far

    async def _begin_push(
        self, stream_id: str | None, temporary_id: str, push: PushFormat
    ) -> PushSession:
        at_once = push.lossless or stream_id is not None
        async with self._admission.entering(self._changing, at_once=at_once):
            if stream_id is None:
                config = StreamConfig(temporary_id, SourceUrl(PUSHED))
                self._admission.check(config, lossless=push.lossless)
                next_sequence = await asyncio.to_thread(self._begins_at, temporary_id)
                stream = self._enter(config, time.time(), next_sequence, 0)
                stream.temporary = True
            else:
                stream = self._registry.pushable(stream_id)
            name = stream.config.stream_id
            session = PushSession(
                name,
                push,
                self.push_calls.limits,
                stream.lane.next_sequence,
                partial(self._pool.feed, name),
                partial(self._pool.acknowledge, name),
            )
            with self._registry.lock:
                stream.session = session
                stream.lane.lossless = push.lossless
            self._pool.add(stream.in_effect, push)
            return session

    async def _end_push(self, session: PushSession) -> None:
        async with self._changing:
            stream = self._registry.find(session.stream_id)
            if stream is None or stream.session is not session:
                return  # deleted, or given another source
            stream.session = None
            if stream.temporary:
                self._forget(stream)
                return
            self._pool.remove(session.stream_id)
            self._reports.change_status(
                stream, waiting_for_push(session.stream_id, Reason.END_OF_STREAM)
            )

    def _follow(self, stream: StreamRecord, changes: Sequence[Alert]) -> None:
        self._keeper.watch(stream.config, stream.machine.event)
        self._publish(changes)

    def _publish(self, changes: Sequence[Alert]) -> None:
        for alert in changes:
            self._keeper.changed(alert)
            self._telemetry.alert_changed(alert)
            log_alert(alert)
            self.desk.submit(alert)

    def _viewed(self, stream: StreamRecord) -> StreamView:
        return replace(stream.view, calibration=self._calibrator.shown(stream.config))

    def _configs(self) -> Sequence[StreamConfig]:
        return [stream.config for stream in self._registry.all()]

    def _tell_drift(self, stream_id: str, drift: float) -> None:
        with self._registry.lock:
            if self._registry.find(stream_id) is not None:
                self._telemetry.score_drift(stream_id, drift)
