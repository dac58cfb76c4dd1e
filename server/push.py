"""Clients that send their video: one session a call, its limits and its way both ways.

A lossless session sends a frame to its decode worker only once there is room,
so that the wait reaches the client through gRPC's flow control. A live one
never waits: what finds no room is dropped and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from server.hub import Subscription
from server.ingest.bitstream import has_start_code, is_key_frame
from server.ingest.events import StatusChanged
from server.pushed import Codec, PushCounts, PushedFrame, PushFormat
from server.scoring import WindowScore
from server.streams import Reason, StreamState
from server.views import CapacityError, InvalidVideoError, LimitError, LostError

FRAMES_UNDER_WAY = 8
BYTES_UNDER_WAY = 4 * 1024 * 1024
"""A frame is sent to the decode worker while fewer of both are there undecoded."""

SCORES_KEPT = 256
"""Scores that a live client may lag behind before it loses the oldest."""

Feed = Callable[[PushedFrame | None], None]


@dataclass(frozen=True, slots=True)
class PushLimits:
    """What one client may do.

    Attributes:
        max_calls_per_client: open calls of one address.
        max_frames_per_second: frames within one second of their own times.
        idle_seconds: how long a call may stay without a frame, or its client may leave
            a score unread.
    """

    max_calls_per_client: int = 16
    max_frames_per_second: int = 240
    idle_seconds: float = 30.0


class PushSession:
    """One client's video on its way in and its scores on their way back.

    `send`, `finish`, `sent` and `scores` belong to the event loop that made the session;
    every other method may be called from any thread.

    Args:
        stream_id: whose video it is.
        push: what the client sends.
        limits: see the type.
        first_sequence: number that the session's first window will have.
        feed: hands a frame to the decode worker, None after the last one.
        acknowledge: tells the worker that the client has a score.
    """

    def __init__(
        self,
        stream_id: str,
        push: PushFormat,
        limits: PushLimits,
        first_sequence: int,
        feed: Feed,
        acknowledge: Callable[[], None],
    ) -> None:
        self.stream_id = stream_id
        self.push = push
        self.failure: Exception | None = None
        self.scores: Subscription[WindowScore] = Subscription(stream_id, SCORES_KEPT)
        self._feed = feed
        self._acknowledge = acknowledge
        self._loop = asyncio.get_running_loop()
        self._pace = _Pace(limits.max_frames_per_second)
        self._room = asyncio.Event()
        self._room.set()
        self._under_way: deque[int] = deque()
        self._waiting: PushedFrame | None = None
        self._needs_key_frame = False
        self._received = self._dropped = self._damaged = 0
        self._lock = threading.Lock()
        self._next_sequence = first_sequence
        self._end_sequence: int | None = None

    @property
    def counts(self) -> PushCounts:
        """What became of its frames so far."""
        return PushCounts(self._received, self._dropped, self._damaged)

    async def send(self, frame: PushedFrame) -> None:
        """Hand over the next frame; returns once it is under way, or dropped if live.

        Raises:
            InvalidVideoError: the frame is not what the call began with.
            LimitError: too many frames within a second of their times.
        """
        self._check(frame)
        self._pace.count(frame.time_microseconds)
        self._received += 1
        if self.push.lossless:
            while not self._has_room():
                self._room.clear()
                await self._room.wait()
            self._pass_on(frame)
        else:
            self._pass_on_or_drop(frame)

    async def finish(self) -> None:
        """The client has sent its last frame."""
        if self._waiting is not None:
            self._pass_on(self._waiting)
            self._waiting = None
        self._feed(None)

    def sent(self) -> None:
        """The client has been sent a score; a lossless session waits for that."""
        if self.push.lossless:
            self._acknowledge()

    def took(self, damaged: int) -> None:
        """The worker is done with the oldest frame under way."""
        # A loop that closed meanwhile has no session left.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._make_room, damaged)

    def offer(self, score: WindowScore) -> None:
        """A window of the stream was scored or dropped."""
        with self._lock:
            if score.sequence < self._next_sequence:
                return  # of the push before this one
            self._next_sequence = score.sequence + 1
            self.scores.offer(score)
            self._end_if_complete()

    def complete(self, end_sequence: int) -> None:
        """The last frame is decoded: the scores end before this sequence."""
        with self._lock:
            self._end_sequence = end_sequence
            self._end_if_complete()

    def conclude(self, event: StatusChanged, end_sequence: int) -> None:
        """The worker takes no more frames: the video has ended or cannot be decoded."""
        match event.reason:
            case Reason.END_OF_STREAM:
                self.complete(end_sequence)
            case Reason.PICTURE_TOO_LARGE:
                self.fail(LimitError(event.message))
            case Reason.CODEC_UNSUPPORTED:
                self.fail(InvalidVideoError(event.message))
            case _:
                self.fail(LostError(f"{event.message or 'the video was lost'}; push again"))

    def fail(self, error: Exception) -> None:
        """End the scores; `failure` says why. The first failure counts."""
        with self._lock:
            self.failure = self.failure or error
        self.scores.end()

    def _end_if_complete(self) -> None:
        if self._end_sequence is not None and self._next_sequence >= self._end_sequence:
            self.scores.end()

    def _check(self, frame: PushedFrame) -> None:
        codec, length = self.push.codec, len(frame.data)
        if codec.is_raw and length != self.push.frame_bytes:
            raise InvalidVideoError(
                f"frame {self._received} has {length} bytes; a {codec.name} frame of "
                f"{self.push.width}x{self.push.height} pixels has {self.push.frame_bytes}, "
                "without padding"
            )
        if codec in (Codec.H264, Codec.H265) and not has_start_code(frame.data):
            raise InvalidVideoError(
                f"frame {self._received} has no start code; send {codec.name} access units in "
                "Annex B form, such as FFmpeg's filter *_mp4toannexb makes"
            )
        if codec is Codec.JPEG and not frame.data.startswith(b"\xff\xd8"):
            raise InvalidVideoError(
                f"frame {self._received} is not a JPEG file; send one whole file a message"
            )

    def _has_room(self) -> bool:
        return len(self._under_way) < FRAMES_UNDER_WAY and sum(self._under_way) < BYTES_UNDER_WAY

    def _pass_on(self, frame: PushedFrame) -> None:
        self._under_way.append(len(frame.data))
        self._feed(frame)

    def _pass_on_or_drop(self, frame: PushedFrame) -> None:
        codec = self.push.codec
        if self._needs_key_frame and not is_key_frame(codec, frame.data):
            self._dropped += 1
        elif self._has_room():
            self._needs_key_frame = False
            self._pass_on(frame)
        elif codec.is_intra:
            # The newest wins: it waits in place of the one that waited so far.
            self._dropped += self._waiting is not None
            self._waiting = frame
        else:
            # What follows refers to this one, so it can't be decoded before the next key frame.
            self._needs_key_frame = True
            self._dropped += 1

    def _make_room(self, damaged: int) -> None:
        if self._under_way:
            self._under_way.popleft()
        self._damaged += damaged
        if self._waiting is not None and self._has_room():
            self._pass_on(self._waiting)
            self._waiting = None
        self._room.set()


class _Pace:
    """Holds frames to so many within one second of their times, whatever their order."""

    def __init__(self, max_frames_per_second: int) -> None:
        self._limit = max_frames_per_second
        self._recent: deque[int] = deque(maxlen=max_frames_per_second + 1)

    def count(self, time_microseconds: int) -> None:
        self._recent.append(time_microseconds)
        if len(self._recent) <= self._limit:
            return
        # Access units come in decoding order: first and last alone could be out of place.
        if max(self._recent) - min(self._recent) < 1_000_000:
            raise LimitError(
                f"over {self._limit} frames within one second of their times; send fewer, or "
                "give each frame its own time"
            )


class PushCalls:
    """The open calls, by client and by stream."""

    def __init__(self, limits: PushLimits) -> None:
        self.limits = limits
        self._open: Counter[str] = Counter()

    @contextlib.contextmanager
    def admitted(self, client: str) -> Iterator[None]:
        """Holds one of a client's places.

        Raises:
            CapacityError: it has none left.
        """
        if self._open[client] >= self.limits.max_calls_per_client:
            raise CapacityError(
                f"your address has {self._open[client]} open calls that push video, and as many "
                "go; end one first or raise push.max_calls_per_client"
            )
        self._open[client] += 1
        try:
            yield
        finally:
            self._open[client] -= 1
            if not self._open[client]:
                del self._open[client]


def waiting_for_push(stream_id: str, reason: Reason | None) -> StatusChanged:
    """The state of a push:// stream while nobody pushes; `reason` is why the last one ended."""
    message = "waiting for a client that pushes video"
    return StatusChanged(stream_id, StreamState.CONNECTING, reason, message)
