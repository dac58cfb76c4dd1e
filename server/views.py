"""What the server shows of itself to its clients, and why it may refuse them.

The gRPC service and the supervisor meet here; neither imports the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from server.calibration import Calibration
from server.streams import StreamConfig, StreamStatus

Change = Callable[[StreamConfig], StreamConfig]
"""What an update makes of a stream's configuration; must keep the id."""


class UnknownStreamError(LookupError):
    """There is no stream of that id; the message is the sentence for the client."""


class UnknownAlertError(LookupError):
    """There is no alert of that id; the message is the sentence for the client."""


class NoEvidenceError(LookupError):
    """An alert has no such evidence; the message is the sentence for the client."""


class EvidencePendingError(RuntimeError):
    """Evidence is not ready yet; the message is the sentence for the client."""


class ExpiredCursorError(LookupError):
    """What comes after a cursor is gone; the message is the sentence for the client."""


class StreamExistsError(ValueError):
    """The id is taken; the message is the sentence for the client."""


class CapacityError(RuntimeError):
    """The server has no room for another one; the message is the sentence for the client."""


class InvalidVideoError(ValueError):
    """Pushed video is not what it should be; the message is the sentence for the client."""


class LimitError(RuntimeError):
    """A client goes beyond a limit; the message is the sentence for the client."""


class NotPushableError(RuntimeError):
    """A stream takes no pushed video now; the message is the sentence for the client."""


class IdleError(RuntimeError):
    """A client stayed silent for too long; the message is the sentence for the client."""


class LostError(RuntimeError):
    """The server lost what a call needs; the message is the sentence for the client."""


class StoppingError(RuntimeError):
    """The server stops and takes no more calls."""

    def __init__(self) -> None:
        super().__init__("the server is stopping; try again once it is back")


@dataclass(frozen=True, slots=True)
class StreamView:
    """A stream as a client sees it.

    Attributes:
        config: what was asked for.
        status: what it is doing now.
        next_sequence: number that its next window gets.
        last_score: newest score in [0, 1]; None before the first.
        created_seconds: UTC time of its creation.
        calibration: the newest one; None where there is none.
        thinned: `sampling_when_full` of its configuration holds.
    """

    config: StreamConfig
    status: StreamStatus
    next_sequence: int
    last_score: float | None
    created_seconds: float
    calibration: Calibration | None = None
    thinned: bool = False


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The bundle that is served and what really runs it.

    Attributes:
        bundle_id: 64 hex digits.
        bundle_name: the bundle's name for itself.
        encoder: architecture of the encoder.
        engine: "onnxruntime" or "tensorrt", the one that runs.
        precision: of the encoder graph, such as "fp32".
        device: "cpu" or "cuda", where it runs.
        threshold: the bundle's open threshold, in (0, 1].
        window_seconds: length of a window; None where windows take native frames.
        fps: rate that streams are resampled to; None for native frames.
        sampled_frames: S, frames of a window that the encoder sees.
        height: of the encoder's images, in pixels.
        width: of the encoder's images, in pixels.
        feature_dim: D.
    """

    bundle_id: str
    bundle_name: str
    encoder: str
    engine: str
    precision: str
    device: str
    threshold: float
    window_seconds: float | None
    fps: float | None
    sampled_frames: int
    height: int
    width: int
    feature_dim: int
