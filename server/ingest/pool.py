"""Live ingest seen from the server: streams in worker processes, events out.

A stream runs in the worker with the fewest streams. A worker that dies or hangs
is reaped and replaced, and only its own streams notice.
"""

from __future__ import annotations

import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from server.contract import WindowSpec
from server.ingest.events import IngestEvent, StatusChanged
from server.ingest.messages import Acknowledge, Envelope, StartStream, StopStream, WorkerSetup
from server.ingest.process import WorkerProcess
from server.ingest.settings import IngestSettings
from server.preprocess import PreprocessSpec
from server.streams import Reason, StreamConfig, StreamState

_TICK_SECONDS = 0.1
_STALL_SECONDS = 1.0
_RESPAWN_FIRST_SECONDS = 0.25
_RESPAWN_MAX_SECONDS = 4.0

_logger = logging.getLogger(__name__)

_Command = Callable[[], None]


@dataclass(slots=True)
class _Stream:
    """A stream as the pool knows it; `delivery` guards what changes. Generation 0: removed."""

    config: StreamConfig
    slot: _Slot
    generation: int
    interrupted_by: Reason | None = None
    state: StreamState = StreamState.CONNECTING
    logged: tuple[StreamState, Reason | None] | None = None
    delivery: threading.RLock = field(default_factory=threading.RLock)

    @property
    def at_rest(self) -> bool:
        """Whether only an update can make it run again."""
        return self.state in (StreamState.PARKED, StreamState.ENDED)


@dataclass(slots=True)
class _Slot:
    """A place for a worker; only the supervisor thread touches it."""

    number: int
    worker: WorkerProcess | None = None
    start_at_seconds: float = 0.0
    started_at_seconds: float = 0.0
    losses: int = 0


class IngestPool:
    """Many live streams in a few decode processes.

    Every method is thread-safe and returns at once: what takes time happens in
    a supervisor thread. `on_event` is called from reader threads, one a worker,
    and from the supervisor thread; never for one stream from two at a time. It
    must return quickly, must not raise, and must not wait for a thread that is
    calling `update` or `remove` for the same stream. A `file://` stream is
    lossless: it sends its next windows only as `acknowledge` is called.

    Args:
        settings: values; see the type.
        window: geometry of the bundle's windows.
        preprocess: the bundle's.
        on_event: gets every event.
    """

    def __init__(
        self,
        settings: IngestSettings,
        window: WindowSpec,
        preprocess: PreprocessSpec,
        on_event: Callable[[IngestEvent], None],
    ) -> None:
        self._settings = settings
        self._setup = WorkerSetup(settings, window, preprocess)
        self._on_event = on_event
        self._lock = threading.Lock()
        self._streams: dict[str, _Stream] = {}
        self._slots = [_Slot(number) for number in range(settings.workers)]
        self._generations = itertools.count(1)
        self._commands: queue.SimpleQueue[_Command] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._deadline_seconds = 0.0
        self._supervisor = threading.Thread(
            target=self._supervise, name="ingest-supervisor", daemon=True
        )

    def start(self) -> None:
        """Start the workers."""
        self._supervisor.start()

    def add(self, config: StreamConfig) -> None:
        """Begin a stream.

        Raises:
            ValueError: there is one with this id.
            SourceError: ADDRESS_DENIED, the settings do not allow its source.
        """
        self._settings.access.check(config)
        with self._lock:
            if config.stream_id in self._streams:
                raise ValueError(f"stream {config.stream_id!r} exists already")
            stream = _Stream(config, self._emptiest_slot(), next(self._generations))
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
            same = replace(config, open_threshold=stream.config.open_threshold) == stream.config
            stream.config = config
            if same and not stream.at_rest:
                return
            self._order_stop(stream)
            stream.generation = next(self._generations)
            stream.interrupted_by = None
            stream.state = StreamState.CONNECTING
            self._order_start(stream)

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

    def acknowledge(self, stream_id: str) -> None:
        """A window of the stream is done with; lossless streams may send another."""
        stream = self._streams.get(stream_id)
        if stream is not None and stream.config.url.scheme == "file":
            slot, message = stream.slot, Acknowledge(stream.generation)
            self._commands.put(lambda: _send(slot, message))

    def stop(self, timeout_seconds: float = 3.0) -> None:
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
        slot = stream.slot
        message = StartStream(stream.generation, stream.config, stream.interrupted_by)
        self._commands.put(lambda: _send(slot, message))

    def _order_stop(self, stream: _Stream) -> None:
        slot, message = stream.slot, StopStream(stream.generation)
        self._commands.put(lambda: _send(slot, message))

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
        elif worker.gone:
            self._replace_worker(slot, worker, "ended")
        elif worker.hangs(self._settings.hang_seconds):
            self._replace_worker(slot, worker, "hung")

    def _start_worker(self, slot: _Slot) -> None:
        try:
            slot.worker = WorkerProcess(self._setup, self._deliver)
        except OSError as error:
            slot.start_at_seconds = time.monotonic() + _RESPAWN_MAX_SECONDS
            _logger.error("decode worker %d cannot be started: %s", slot.number, error)
            return
        slot.started_at_seconds = time.monotonic()
        with self._lock:
            streams = [one for one in self._streams.values() if one.slot is slot]
        for stream in streams:
            with stream.delivery:
                if stream.generation and not stream.at_rest:
                    self._order_start(stream)

    def _replace_worker(self, slot: _Slot, worker: WorkerProcess, what: str) -> None:
        worker.destroy()
        slot.worker = None
        if time.monotonic() - slot.started_at_seconds > self._settings.stable_seconds:
            slot.losses = 0
        wait_seconds = min(_RESPAWN_MAX_SECONDS, _RESPAWN_FIRST_SECONDS * 2**slot.losses)
        slot.losses = min(slot.losses + 1, 10)
        slot.start_at_seconds = time.monotonic() + wait_seconds
        _logger.warning("decode worker %d (pid %d) %s", slot.number, worker.pid, what)
        with self._lock:
            streams = [one for one in self._streams.values() if one.slot is slot]
        for stream in streams:
            self._tell_lost(stream, f"its decode process {what} and is being replaced")

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

    def _deliver(self, envelope: Envelope) -> None:
        stream = self._streams.get(envelope.event.stream_id)
        if stream is None:
            return
        with stream.delivery:
            if stream.generation != envelope.generation:
                return
            if isinstance(envelope.event, StatusChanged):
                self._note(stream, envelope.event)
            self._on_event(envelope.event)

    def _note(self, stream: _Stream, event: StatusChanged) -> None:
        """Remember the state; log it unless it is one more try of the same failure."""
        stream.state = event.state
        settled = (event.state, event.reason)
        if event.state is StreamState.CONNECTING or settled == stream.logged:
            return
        stream.logged = settled
        reason = f" ({event.reason.value})" if event.reason else ""
        detail = f": {event.message}" if event.message else ""
        _logger.info("stream %s %s%s%s", event.stream_id, event.state.value, reason, detail)

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


def _send(slot: _Slot, message: StartStream | StopStream | Acknowledge) -> None:
    if slot.worker is not None:
        slot.worker.send(message)
