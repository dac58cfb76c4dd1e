"""Live ingest seen from the server: streams in worker processes, events out.

A stream runs in the worker with the fewest streams. A worker that dies, hangs or
outgrows its memory is reaped and replaced, and only its own streams notice.
"""

from __future__ import annotations

import itertools
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from server.contract import WindowSpec
from server.ingest.events import IngestEvent, StatusChanged, WorkerLoss
from server.ingest.messages import (
    Acknowledge,
    Command,
    DirectEvidence,
    Envelope,
    FeedStream,
    StartStream,
    StopStream,
    TuneStream,
    WorkerSetup,
)
from server.ingest.orders import EvidenceLost, EvidenceOrder, EvidenceReport
from server.ingest.process import WorkerProcess
from server.ingest.recycling import MemoryJudge, Verdict
from server.ingest.settings import IngestSettings
from server.preprocess import PreprocessSpec
from server.pushed import PushedFrame, PushFormat
from server.streams import Reason, StreamConfig, StreamState

_TICK_SECONDS = 0.1
_STALL_SECONDS = 1.0
_RESPAWN_FIRST_SECONDS = 0.25
_RESPAWN_MAX_SECONDS = 4.0
_MEASURE_SECONDS = 1.0
# A worker takes 0.7 s at most to close its sources.
_FAREWELL_SECONDS = 2.0

_logger = logging.getLogger(__name__)

_Task = Callable[[], None]


@dataclass(slots=True)
class _Stream:
    """A stream as the pool knows it; `delivery` guards what changes. Generation 0: removed."""

    config: StreamConfig
    slot: _Slot
    generation: int
    push: PushFormat | None = None
    interrupted_by: Reason | None = None
    state: StreamState = StreamState.CONNECTING
    unsent: deque[FeedStream] = field(default_factory=deque)  # pushed while there was no worker
    delivery: threading.RLock = field(default_factory=threading.RLock)

    @property
    def at_rest(self) -> bool:
        """Whether only an update can make it run again."""
        return self.state in (StreamState.PARKED, StreamState.ENDED)


@dataclass(slots=True)
class _Slot:
    """A place for a worker; only the supervisor thread touches it."""

    number: int
    judge: MemoryJudge
    worker: WorkerProcess | None = None
    start_at_seconds: float = 0.0
    started_at_seconds: float = 0.0
    measure_at_seconds: float = 0.0
    losses: int = 0
    farewell: _Farewell | None = None


@dataclass(frozen=True, slots=True)
class _Farewell:
    """Why a worker was asked to end, and when it is killed."""

    what: str
    until_seconds: float


class IngestPool:
    """Many live streams in a few decode processes.

    Every method is thread-safe and returns at once: what takes time happens in
    a supervisor thread. `on_event` is called from reader threads, one a worker,
    and from the supervisor thread; never for one stream from two at a time, but
    for reports of evidence. It
    must return quickly, must not raise, and must not wait for a thread that is
    calling `update` or `remove` for the same stream. A `file://` stream and a
    lossless push send their next windows only as `acknowledge` is called.

    Args:
        settings: values; see the type.
        window: geometry of the bundle's windows.
        preprocess: the bundle's.
        on_event: gets every event.
        on_loss: told of every worker that is replaced; from the supervisor thread.
    """

    def __init__(
        self,
        settings: IngestSettings,
        window: WindowSpec,
        preprocess: PreprocessSpec,
        on_event: Callable[[IngestEvent], None],
        on_loss: Callable[[WorkerLoss], None] = lambda loss: None,
    ) -> None:
        self._settings = settings
        self._setup = WorkerSetup(settings, window, preprocess)
        self._on_event = on_event
        self._on_loss = on_loss
        self._lock = threading.Lock()
        self._streams: dict[str, _Stream] = {}
        bound_bytes = settings.worker_memory_mb * 1_000_000
        self._slots = [_Slot(n, MemoryJudge(bound_bytes)) for n in range(settings.workers)]
        self._generations = itertools.count(1)
        self._commands: queue.SimpleQueue[_Task] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._deadline_seconds = 0.0
        self._supervisor = threading.Thread(
            target=self._supervise, name="ingest-supervisor", daemon=True
        )

    def start(self) -> None:
        """Start the workers."""
        self._supervisor.start()

    def add(self, config: StreamConfig, push: PushFormat | None = None) -> None:
        """Begin a stream.

        Args:
            config: of the stream.
            push: what `feed` will bring; None where the worker opens the source.

        Raises:
            ValueError: there is one with this id.
            SourceError: ADDRESS_DENIED, the settings do not allow its source.
        """
        self._settings.access.check(config)
        with self._lock:
            if config.stream_id in self._streams:
                raise ValueError(f"stream {config.stream_id!r} exists already")
            stream = _Stream(config, self._emptiest_slot(), next(self._generations), push)
            self._streams[config.stream_id] = stream
            self._order_start(stream)

    def update(self, config: StreamConfig) -> None:
        """Change a stream; it is opened anew if its source changed or it had come to rest.

        Raises:
            KeyError: there is none with this id.
            SourceError: ADDRESS_DENIED, the settings do not allow its source.
        """
        self._settings.access.check(config)
        with self._lock:
            stream = self._streams[config.stream_id]
        with stream.delivery:
            if not stream.generation:
                raise KeyError(config.stream_id)  # removed meanwhile
            same = _source_of(config) == _source_of(stream.config)
            stream.config = config
            if same and (stream.push is not None or not stream.at_rest):
                self._order(stream, TuneStream(stream.generation, config))
                return
            self._order_stop(stream)
            stream.generation = next(self._generations)
            stream.interrupted_by = None
            stream.state = StreamState.CONNECTING
            self._order_start(stream)

    def tune(self, config: StreamConfig) -> None:
        """Change of a stream what can change while it runs; its source stays as it is.

        One that is at rest follows once it runs again; one that is not there has nothing to follow.
        """
        stream = self._streams.get(config.stream_id)
        if stream is None:
            return
        with stream.delivery:
            stream.config = config
            self._order(stream, TuneStream(stream.generation, config))

    def remove(self, stream_id: str) -> None:
        """End a stream; one that is not there is none to end.

        Once this has returned, `on_event` gets no event of it any more.
        """
        with self._lock:
            stream = self._streams.pop(stream_id, None)
        if stream is not None:
            with stream.delivery:
                self._order_stop(stream)
                stream.generation = 0

    def feed(self, stream_id: str, frame: PushedFrame | None) -> None:
        """Bring a pushed stream its next frame, or None after the last one.

        What has no room in the worker piles up: the caller counts `FrameTaken`.
        """
        stream = self._streams.get(stream_id)
        if stream is not None:
            command = FeedStream(stream.generation, frame)
            self._commands.put(lambda: _feed(stream, command))

    def acknowledge(self, stream_id: str) -> None:
        """A window of a lossless stream is done with; it may send another."""
        stream = self._streams.get(stream_id)
        if stream is not None:
            self._order(stream, Acknowledge(stream.generation))

    def direct(self, stream_id: str, order: EvidenceOrder) -> bool:
        """Have a stream's worker do something about an alert's evidence.

        Returns:
            Whether there is such a stream; what the worker makes of it, an event tells.
        """
        stream = self._streams.get(stream_id)
        if stream is None:
            return False
        self._order(stream, DirectEvidence(stream.generation, order))
        return True

    def stop(self, timeout_seconds: float = 2.0) -> None:
        """End all streams and workers; no process is left behind.

        Args:
            timeout_seconds: workers that take longer are killed.
        """
        for stream_id in list(self._streams):
            self.remove(stream_id)
        self._deadline_seconds = time.monotonic() + timeout_seconds
        self._stopping.set()
        self._commands.put(lambda: None)
        if self._supervisor.is_alive():
            self._supervisor.join(timeout_seconds + len(self._slots) * 2.0)

    def worker_pids(self) -> list[int]:
        """Process ids of the workers that live now."""
        workers = [slot.worker for slot in self._slots]
        return [worker.pid for worker in workers if worker is not None]

    def _emptiest_slot(self) -> _Slot:
        loads = {slot.number: 0 for slot in self._slots}
        for stream in self._streams.values():
            loads[stream.slot.number] += 1
        return min(self._slots, key=lambda slot: loads[slot.number])

    def _order_start(self, stream: _Stream) -> None:
        self._order(stream, _start_of(stream))

    def _order_stop(self, stream: _Stream) -> None:
        self._order(stream, StopStream(stream.generation))

    def _order(self, stream: _Stream, command: Command) -> None:
        slot = stream.slot
        self._commands.put(lambda: _send(slot, command))

    def _supervise(self) -> None:
        looked_at_seconds = time.monotonic()
        while not self._stopping.is_set():
            stalled = time.monotonic() - looked_at_seconds > _STALL_SECONDS
            looked_at_seconds = time.monotonic()
            for slot in self._slots:
                if stalled and slot.worker is not None:
                    slot.worker.forgive()  # this process stood still; they did not
                self._tend(slot)
            try:
                self._commands.get(timeout=_TICK_SECONDS)()
                while True:
                    self._commands.get_nowait()()
            except queue.Empty:
                continue
        self._end_workers()

    def _tend(self, slot: _Slot) -> None:
        """See to one worker: start it where there is none, replace a lost one."""
        worker = slot.worker
        if worker is None:
            if time.monotonic() >= slot.start_at_seconds:
                self._start_worker(slot)
        elif slot.farewell is not None:
            if worker.gone or time.monotonic() >= slot.farewell.until_seconds:
                self._replace_worker(slot, worker, WorkerLoss.MEMORY, slot.farewell.what)
        elif worker.gone:
            self._replace_worker(slot, worker, WorkerLoss.ENDED, "ended")
        elif worker.hangs(self._settings.hang_seconds):
            self._replace_worker(slot, worker, WorkerLoss.HUNG, "hung")
        elif time.monotonic() >= slot.measure_at_seconds:
            self._measure(slot, worker)

    def _measure(self, slot: _Slot, worker: WorkerProcess) -> None:
        """Ask a worker that holds too much to end: some cameras have few sessions to give."""
        now_seconds = time.monotonic()
        slot.measure_at_seconds = now_seconds + _MEASURE_SECONDS
        held_bytes = worker.memory_bytes
        verdict = slot.judge.judge(held_bytes, now_seconds)
        bound = f"over ingest.worker_memory_mb ({self._settings.worker_memory_mb})"
        if verdict is Verdict.REPLACE:
            what = f"held {held_bytes / 1e6:.0f} MB, {bound},"
            slot.farewell = _Farewell(what, now_seconds + _FAREWELL_SECONDS)
            worker.ask_to_end()
        elif verdict is Verdict.SPARE:
            _logger.warning(
                "decode worker %d (pid %d) holds %.0f MB, %s, again soon after its start: its "
                "streams need so much, and it is left alone until it is %.0f s old; raise the "
                "bound or ingest.workers",
                slot.number,
                worker.pid,
                held_bytes / 1e6,
                bound,
                slot.judge.spared_seconds,
                extra={"worker": str(slot.number)},
            )

    def _start_worker(self, slot: _Slot) -> None:
        try:
            slot.worker = WorkerProcess(self._setup, self._deliver)
        except OSError as error:
            slot.start_at_seconds = time.monotonic() + _RESPAWN_MAX_SECONDS
            _logger.error(
                "decode worker %d cannot be started: %s",
                slot.number,
                error,
                extra={"worker": str(slot.number)},
            )
            return
        slot.started_at_seconds = time.monotonic()
        slot.judge.begin(slot.started_at_seconds)
        with self._lock:
            streams = [one for one in self._streams.values() if one.slot is slot]
        for stream in streams:
            with stream.delivery:
                if stream.generation and not stream.at_rest:
                    # At once: frames that wait among the orders must not overtake it.
                    _send(slot, _start_of(stream))
                    while stream.unsent:
                        _send(slot, stream.unsent.popleft())

    def _replace_worker(
        self, slot: _Slot, worker: WorkerProcess, loss: WorkerLoss, what: str
    ) -> None:
        worker.destroy()
        slot.worker = slot.farewell = None
        slot.start_at_seconds = time.monotonic() + self._respawn_wait_seconds(slot, loss)
        _logger.warning(
            "decode worker %d (pid %d) %s and is replaced",
            slot.number,
            worker.pid,
            what,
            extra={"worker": str(slot.number)},
        )
        self._on_loss(loss)
        with self._lock:
            streams = [one for one in self._streams.values() if one.slot is slot]
        for stream in streams:
            self._tell_lost(stream, f"its decode process {what} and is being replaced")
            self._on_event(EvidenceLost(stream.config.stream_id))

    def _respawn_wait_seconds(self, slot: _Slot, loss: WorkerLoss) -> float:
        if loss is WorkerLoss.MEMORY:
            return 0.0  # the judge paces these
        if time.monotonic() - slot.started_at_seconds > self._settings.stable_seconds:
            slot.losses = 0
        wait_seconds: float = min(_RESPAWN_MAX_SECONDS, _RESPAWN_FIRST_SECONDS * 2**slot.losses)
        slot.losses = min(slot.losses + 1, 10)
        return wait_seconds

    def _tell_lost(self, stream: _Stream, message: str) -> None:
        with stream.delivery:
            if stream.at_rest or not stream.generation:
                return
            stream.generation = next(self._generations)
            stream.interrupted_by = Reason.WORKER_LOST
            event = StatusChanged(
                stream.config.stream_id, StreamState.BACKING_OFF, Reason.WORKER_LOST, message
            )
            self._deliver(Envelope(stream.generation, event))

    def _deliver(self, envelope: Envelope | EvidenceReport) -> None:
        if isinstance(envelope, EvidenceReport):
            self._on_event(envelope)  # whatever became of the stream: the files are there
            return
        stream = self._streams.get(envelope.event.stream_id)
        if stream is None:
            return
        with stream.delivery:
            if stream.generation != envelope.generation:
                return
            if isinstance(envelope.event, StatusChanged):
                stream.state = envelope.event.state
            self._on_event(envelope.event)

    def _end_workers(self) -> None:
        workers = [slot.worker for slot in self._slots if slot.worker is not None]
        for worker in workers:
            worker.ask_to_end()
        for worker in workers:
            worker.wait(self._deadline_seconds - time.monotonic())
        for slot in self._slots:
            if slot.worker is not None:
                slot.worker.destroy()
                slot.worker = None


def _source_of(config: StreamConfig) -> tuple[object, ...]:
    """What a worker opens; the rest can change while it runs."""
    return config.url, config.mode, config.transport


def _start_of(stream: _Stream) -> StartStream:
    return StartStream(stream.generation, stream.config, stream.interrupted_by, stream.push)


def _feed(stream: _Stream, command: FeedStream) -> None:
    if stream.slot.worker is None:
        stream.unsent.append(command)
    else:
        _send(stream.slot, command)


def _send(slot: _Slot, command: Command) -> None:
    if slot.worker is not None:
        slot.worker.send(command)
