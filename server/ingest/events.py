"""What the decode workers tell their parent about the streams.

Windows of a live stream that the parent took too late are dropped, the newest
wins, and those that its sampling leaves out never go their way; the span of each is
still told, with the reason, so that sequence numbers stay free of gaps and the head
can be stepped over it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from server.ingest.orders import EvidenceLost, EvidenceReport
from server.scoring import DropReason
from server.streams import Reason, StreamState
from server.windows import Window, WindowSpan


class WorkerLoss(Enum):
    """Why a decode worker was replaced; also a metric label."""

    ENDED = "ended"
    HUNG = "hung"
    MEMORY = "memory"  # it held more than its bound


@dataclass(frozen=True, slots=True)
class WindowReady:
    """A window to score."""

    stream_id: str
    window: Window


@dataclass(frozen=True, slots=True)
class SkippedWindow:
    """A window that will not be scored, and why."""

    span: WindowSpan
    reason: DropReason


@dataclass(frozen=True, slots=True)
class WindowsSkipped:
    """Windows that will not be scored, older than every window that follows.

    Attributes:
        stream_id: the stream.
        count: how many, at least 1.
        windows: the newest of them, oldest first; all of them unless the
            parent read nothing for many minutes.
    """

    stream_id: str
    count: int
    windows: tuple[SkippedWindow, ...]


@dataclass(frozen=True, slots=True)
class StatusChanged:
    """A stream entered a state.

    Attributes:
        stream_id: the stream.
        state: the state it is in now.
        reason: why it is not running; None while it runs or first connects.
        message: one sentence for people, without credentials.
    """

    stream_id: str
    state: StreamState
    reason: Reason | None
    message: str


@dataclass(frozen=True, slots=True)
class FrameStats:
    """What a stream did since its last `FrameStats`, about once a second.

    Attributes:
        stream_id: the stream.
        frames: decoded.
        windows: closed that were rendered, whether they were delivered or dropped.
        last_frame_seconds: UTC of the newest frame's arrival.
        decode_seconds: spent in the decoder.
        preprocess_seconds: spent in scaling, colour conversion and looking for motion.
        cpu_seconds: processor time of the stream's thread, all its work.
    """

    stream_id: str
    frames: int
    windows: int
    last_frame_seconds: float
    decode_seconds: float
    preprocess_seconds: float
    cpu_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Reconnected:
    """Frames flow again after an interruption.

    Attributes:
        stream_id: the stream.
        reason: why it had been interrupted.
    """

    stream_id: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class FrameTaken:
    """A pushed frame was decoded; there is room for another.

    Attributes:
        stream_id: the stream.
        damaged: whether the decoder could not read it.
    """

    stream_id: str
    damaged: bool


StreamEvent = WindowReady | WindowsSkipped | StatusChanged | FrameStats | Reconnected | FrameTaken
IngestEvent = StreamEvent | EvidenceReport | EvidenceLost
