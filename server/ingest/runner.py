"""The life of one stream: open, decode, cut into windows, fail, wait, open again.

One thread each, in a worker process. A live source is tried for ever, except
where trying would do harm (a wrong password gets the address banned) or can't
help; a file is played once, and what a client pushes is taken to its end.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import random
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterable
from dataclasses import replace
from typing import Any

import av
import av.container
import av.error

from server.contract import Image
from server.ingest import rtsp
from server.ingest.backoff import Backoff
from server.ingest.events import FrameStats, Reconnected, StatusChanged
from server.ingest.messages import StartStream, WorkerSetup
from server.ingest.meter import Meter
from server.ingest.outbox import Outbox
from server.ingest.push import PushDecoder
from server.ingest.recorder import EvidenceRoom, StreamRecorder
from server.ingest.turns import Turns
from server.ingest.video import decode, decode_file, open_file, video_stream
from server.logs import about
from server.preprocess import Preprocessor
from server.pushed import PushedFrame, PushFormat
from server.sampler import WindowSampler
from server.sampling import EVERY_WINDOW
from server.scoring import DropReason
from server.streams import Mode, Reason, SourceError, StreamConfig, StreamState
from server.windows import MIN_GAP_SECONDS, SourceFrame, Window, WindowAssembler, WindowSpan

FIRST_FRAME_SECONDS = 30.0
"""Packets may come for so long before the first frame: it takes a key frame."""

_PARKING = frozenset({Reason.AUTH_FAILED, Reason.ADDRESS_DENIED})
_UNSTUCK_SECONDS = 60.0

_logger = logging.getLogger(__name__)


class StreamRunner:
    """One stream in one worker.

    Args:
        start: the stream and the generation of this life.
        setup: what is common to all streams.
        room: for evidence, what is common to all streams.
        turns: entered to decode and render.
        wake: called after there is something to send.
    """

    def __init__(
        self,
        start: StartStream,
        setup: WorkerSetup,
        room: EvidenceRoom,
        turns: Turns,
        wake: Callable[[], None],
    ) -> None:
        self._config = start.config
        self._settings = setup.settings
        self._turns = turns
        self._push = start.push
        self._pushed: queue.SimpleQueue[PushedFrame | None] = queue.SimpleQueue()
        self._plays_file = start.config.url.scheme == "file"
        self._lossless = start.push.lossless if start.push else self._plays_file
        self._started_utc_seconds = time.time()
        self._interrupted_by = start.interrupted_by
        self._interruption = ""
        self._has_run = start.interrupted_by is not None
        self.outbox = Outbox(start.config.stream_id, wake)
        self._meter = Meter(start.config.stream_id)
        self.recorder = StreamRecorder(start.config, room)
        self._preprocess = Preprocessor(setup.preprocess, start.config.masks)
        self._shown: SourceFrame[av.VideoFrame] | None = None
        self._sampler = WindowSampler(EVERY_WINDOW if self._lossless else start.config.sampling)
        self._assembler = WindowAssembler(
            setup.window, self._render, self._sampler.opens, self._pass_over
        )
        self._moved_pts_seconds: float | None = None
        self._moved_arrival_seconds = 0.0
        self._stopped = threading.Event()
        self._progress_seconds = time.monotonic()
        name = f"stream-{start.config.stream_id}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end; one that waits for a camera ends by its own timeout."""
        self._stopped.set()
        self._pushed.put(None)
        self.recorder.close()

    def tune(self, config: StreamConfig) -> None:
        """Follow what can change while the stream runs: masks, sampling, evidence, thresholds."""
        self._config = config
        self._preprocess.set_masks(config.masks)
        if not self._lossless:
            self._sampler.sampling = config.sampling
        self.recorder.tune(config)

    def feed(self, frame: PushedFrame | None) -> None:
        """Hand over a frame that a client pushed; None after its last one."""
        self._pushed.put(frame)

    def join(self, timeout_seconds: float) -> None:
        """Wait for the thread to end."""
        self._thread.join(timeout_seconds)

    @property
    def finished(self) -> bool:
        """Whether the thread has ended."""
        return not self._thread.is_alive()

    @property
    def stuck(self) -> bool:
        """Whether the thread lives but has outlasted every timeout it runs under."""
        settings = self._settings
        allowed_seconds = (
            2 * settings.open_timeout_seconds + settings.read_timeout_seconds + _UNSTUCK_SECONDS
        )
        return not self.finished and time.monotonic() - self._progress_seconds > allowed_seconds

    def take_stats(self) -> FrameStats | None:
        """What happened since the last call; None where no frame came."""
        return self._meter.take()

    def _run(self) -> None:
        if self._push is not None:
            self._take_push(self._push)
        elif self._plays_file:
            self._play_file()
        else:
            self._follow_camera()

    def _follow_camera(self) -> None:
        settings = self._settings
        backoff = Backoff(
            settings.backoff_first_seconds,
            settings.backoff_max_seconds,
            settings.stable_seconds,
            random.Random(),
        )
        while not self._stopped.is_set():
            self._connecting()
            self._meter.begin_session()
            self._moved_pts_seconds = None
            failure = self._session(lambda: self._read_from(self._open_camera))
            self._assembler.reset()
            if self._stopped.is_set():
                return
            self._interrupted_by, self._interruption = failure.reason, failure.sentence
            if failure.reason in _PARKING:
                self._tell(StreamState.PARKED, failure.reason, failure.sentence)
                return
            if self._config.mode is Mode.LISTEN and self._meter.session_frames:
                continue  # the camera left; it may come back at once
            self._tell(StreamState.BACKING_OFF, failure.reason, failure.sentence)
            self._wait(backoff.next_wait_seconds(self._meter.session_seconds))

    def _play_file(self) -> None:
        self._connecting()
        self._play_out(self._session(lambda: self._read_from(self._open_file)))

    def _take_push(self, push: PushFormat) -> None:
        self._play_out(self._session(lambda: self._read_pushed(push)))

    def _play_out(self, failure: SourceError) -> None:
        """End a source that is read once, by why it ended."""
        if self._stopped.is_set():
            return
        ended = failure.reason is Reason.END_OF_STREAM
        if ended:
            with self._turns:
                for window in self._assembler.finish():
                    self._emit(window, self._shown)
        stats = self._meter.take()
        if stats is not None:
            self.outbox.put(stats)  # a push is forgotten before the next beat
        state = StreamState.ENDED if ended else StreamState.PARKED
        self._tell(state, failure.reason, failure.sentence)

    def _session(self, read: Callable[[], SourceError]) -> SourceError:
        """Read a source until it ends; returns why it did."""
        self.recorder.begin()
        try:
            return read()
        except SourceError as error:
            return error
        except Exception as error:  # the one boundary that keeps a stream from taking its worker
            report = self._config.url.redact(traceback.format_exc())
            _logger.error("failed: %s", report, extra=about(self._config.stream_id))
            return SourceError(Reason.INTERNAL, f"internal error ({type(error).__name__})")
        finally:
            self.recorder.end()

    def _read_from(
        self, open_source: Callable[[], av.container.InputContainer | None]
    ) -> SourceError:
        container = open_source()
        if container is None:
            return SourceError(Reason.END_OF_STREAM, "stopped")
        with container:
            return self._read(container)

    def _read(self, container: av.container.InputContainer) -> SourceError:
        name = str(self._config.url)
        if self._plays_file:
            self._follow(decode_file(container, name, self._on_packet, self._turns))
            return SourceError(Reason.END_OF_STREAM, "the file was played to its end")
        broken: Exception | None = None
        try:
            stream = video_stream(container, name)
            self._follow(decode(container, stream, self._on_packet, self._turns))
        except av.error.FFmpegError as error:
            broken = error
        return rtsp.ended(broken, self._config.mode, self._settings)

    def _read_pushed(self, push: PushFormat) -> SourceError:
        decoder = PushDecoder(push, self._settings.max_pixels)
        while (pushed := self._next_pushed()) is not None:
            with self._turns:
                started_seconds = time.monotonic()
                frames = decoder.decode(pushed)
                self._meter.count_decoding(time.monotonic() - started_seconds)
                self.recorder.take_push(push.codec, pushed, decoder.size)
                self._take_all(frames)
            self.outbox.took(damaged=decoder.was_damaged)
        with self._turns:
            self._take_all(decoder.flush())
        return SourceError(Reason.END_OF_STREAM, "the client sent its last frame")

    def _next_pushed(self) -> PushedFrame | None:
        while self._still_wanted():
            try:
                return self._pushed.get(timeout=1.0)
            except queue.Empty:
                continue
        return None

    def _follow(self, frames: Generator[SourceFrame[av.VideoFrame], None, None]) -> None:
        with contextlib.closing(frames):  # a failure's traceback would keep it, and its turn
            self._take_all(frames)

    def _take_all(self, frames: Iterable[SourceFrame[av.VideoFrame]]) -> None:
        for frame in frames:
            if self._stopped.is_set():
                return
            self._take(frame)

    def _take(self, frame: SourceFrame[av.VideoFrame]) -> None:
        first = self._meter.session_frames == 0
        self._meter.count_frame(frame.arrival_seconds)
        if first:
            self._running()
        if self._plays_file:
            # A file is read faster than real time, so arrival says nothing of capture.
            captured_seconds = self._started_utc_seconds + frame.pts_seconds
            frame = replace(frame, capture_seconds=captured_seconds)
        elif self._push is None:
            self._require_time_to_pass(frame)
        for window in self._assembler.push(frame):
            last = frame if frame.pts_seconds <= window.end_pts_seconds else self._shown
            self._emit(window, last)
        self._shown = frame

    def _require_time_to_pass(self, frame: SourceFrame[av.VideoFrame]) -> None:
        """Pictures whose times stand still have no place: that is a gap, and stale in the end."""
        if frame.pts_seconds != self._moved_pts_seconds:
            self._moved_pts_seconds = frame.pts_seconds
            self._moved_arrival_seconds = frame.arrival_seconds
            return
        stood_seconds = frame.arrival_seconds - self._moved_arrival_seconds
        allowed_seconds = self._settings.read_timeout_seconds
        if stood_seconds > allowed_seconds:
            sentence = f"frames came, but their times stood still for {allowed_seconds:g} s"
            raise SourceError(Reason.STALE, sentence)
        if stood_seconds > MIN_GAP_SECONDS:
            self._assembler.reset()

    def _emit(self, window: Window, last: SourceFrame[av.VideoFrame] | None) -> None:
        self._meter.count_window()
        reason = self._judge(window)
        if reason is not None:
            self.outbox.skip(window.span, reason)
            return
        if last is not None:
            # First: an order about the window's score finds its picture then.
            self.recorder.show(window.end_capture_seconds, last.picture)
        if self._lossless:
            with self._turns.outside():  # it waits for whoever scores
                self.outbox.deliver(window, self._still_wanted)
        else:
            self.outbox.offer(window)

    def _judge(self, window: Window) -> DropReason | None:
        started_seconds = time.monotonic()
        reason = self._sampler.judge(window)
        self._meter.count_preprocessing(time.monotonic() - started_seconds)
        return reason

    def _pass_over(self, span: WindowSpan) -> None:
        self.outbox.skip(span, DropReason.THINNED)

    def _open_camera(self) -> av.container.InputContainer | None:
        if self._config.mode is Mode.LISTEN:
            return rtsp.listen(self._config, self._settings, lambda: not self._still_wanted())
        return rtsp.pull(self._config, self._settings)

    def _open_file(self) -> av.container.InputContainer:
        return open_file(self._settings.access.allowed_file(self._config.url))

    def _on_packet(
        self, packet: av.Packet[Any], capture_seconds: float, decode_seconds: float
    ) -> None:
        if self._plays_file and packet.pts is not None:
            capture_seconds = self._started_utc_seconds + float(packet.pts * packet.time_base)
        self.recorder.take(packet, capture_seconds)
        self._progress_seconds = time.monotonic()
        undecoded_seconds = self._meter.count_packet(self._progress_seconds, decode_seconds)
        allowed_seconds = self._settings.read_timeout_seconds
        if not self._meter.session_frames:
            allowed_seconds = max(allowed_seconds, FIRST_FRAME_SECONDS)
        if undecoded_seconds > allowed_seconds and not self._plays_file:
            sentence = f"packets came, but no frame could be decoded for {allowed_seconds:g} s"
            raise SourceError(Reason.STALE, sentence)

    def _render(self, picture: av.VideoFrame) -> Image:
        started_seconds = time.monotonic()
        image = self._preprocess(picture)
        self._meter.count_preprocessing(time.monotonic() - started_seconds)
        return image

    def _still_wanted(self) -> bool:
        self._progress_seconds = time.monotonic()
        return not self._stopped.is_set()

    def _wait(self, seconds: float) -> None:
        end_seconds = time.monotonic() + seconds
        while self._still_wanted() and (left := end_seconds - time.monotonic()) > 0:
            self._stopped.wait(min(left, 1.0))

    def _connecting(self) -> None:
        self._progress_seconds = time.monotonic()
        listening = self._config.mode is Mode.LISTEN
        # A wait may be too short for anybody to read, so the failure is told on until frames flow.
        message = self._interruption
        if listening:
            message = f"waiting for a camera to push to {self._config.url}"
        self._tell(StreamState.CONNECTING, self._interrupted_by, message)

    def _running(self) -> None:
        self._tell(StreamState.RUNNING, None, "")
        if self._interrupted_by is not None and self._has_run:
            self.outbox.put(Reconnected(self._config.stream_id, self._interrupted_by))
        self._interrupted_by, self._interruption = None, ""
        self._has_run = True

    def _tell(self, state: StreamState, reason: Reason | None, message: str) -> None:
        message = self._config.url.redact(message)
        self.outbox.put(StatusChanged(self._config.stream_id, state, reason, message))
