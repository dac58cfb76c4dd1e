"""What travels between the pool and one of its workers; nothing else does.

A generation numbers one life of a stream in one worker. What an older life
still says is recognised by it and thrown away.
"""

from __future__ import annotations

from dataclasses import dataclass

from server.contract import WindowSpec
from server.ingest.events import StreamEvent
from server.ingest.orders import EvidenceOrder, EvidenceReport
from server.ingest.settings import IngestSettings
from server.preprocess import PreprocessSpec
from server.pushed import PushedFrame, PushFormat
from server.streams import Reason, StreamConfig


@dataclass(frozen=True, slots=True)
class WorkerSetup:
    """The first message to a worker."""

    settings: IngestSettings
    window: WindowSpec
    preprocess: PreprocessSpec


@dataclass(frozen=True, slots=True)
class StartStream:
    """Begin a stream's life.

    Attributes:
        generation: of this life; unique in the pool.
        config: the stream, credentials included: this message never leaves the socket pair.
        interrupted_by: why an earlier life was cut off; None for a first one.
        push: what a client sends in this life; None where the worker opens the source.
    """

    generation: int
    config: StreamConfig
    interrupted_by: Reason | None
    push: PushFormat | None = None


@dataclass(frozen=True, slots=True)
class FeedStream:
    """A frame that a client pushed; None after its last one."""

    generation: int
    frame: PushedFrame | None


@dataclass(frozen=True, slots=True)
class StopStream:
    """End a stream's life."""

    generation: int


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """One window of a lossless stream is done with; another may be sent."""

    generation: int


@dataclass(frozen=True, slots=True)
class TuneStream:
    """Follow what changed of a stream but its source."""

    generation: int
    config: StreamConfig


@dataclass(frozen=True, slots=True)
class DirectEvidence:
    """What to do about one alert's evidence."""

    generation: int
    order: EvidenceOrder


@dataclass(frozen=True, slots=True)
class Shutdown:
    """Close every source and exit."""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The worker is well: its sender runs and no stream thread is stuck."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """An event and the life that it belongs to."""

    generation: int
    event: StreamEvent


Command = (
    StartStream | FeedStream | StopStream | Acknowledge | TuneStream | DirectEvidence | Shutdown
)
Report = Heartbeat | Envelope | EvidenceReport
