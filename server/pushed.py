"""What a client sends that pushes its own video: format, frames, counts; pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Codec(Enum):
    """What the bytes of a frame are; the value is FFmpeg's name of the codec or pixel format."""

    H264 = "h264"  # an access unit in Annex B form
    H265 = "hevc"  # an access unit in Annex B form
    JPEG = "mjpeg"
    RGB24 = "rgb24"
    BGR24 = "bgr24"
    I420 = "yuv420p"
    NV12 = "nv12"
    GRAY8 = "gray"

    @property
    def is_raw(self) -> bool:
        """Whether frames are bare pixels, whose size must be told."""
        return self not in (Codec.H264, Codec.H265, Codec.JPEG)

    @property
    def is_intra(self) -> bool:
        """Whether every frame can be decoded without another one."""
        return self not in (Codec.H264, Codec.H265)


@dataclass(frozen=True, slots=True)
class PushFormat:
    """What a client sends in one call.

    Attributes:
        codec: of every frame.
        width: of raw frames, pixels; 0 for the others, which say it themselves.
        height: of raw frames, pixels; 0 for the others.
        lossless: keep every frame and slow the sender; else the newest win.
    """

    codec: Codec
    width: int = 0
    height: int = 0
    lossless: bool = True

    def __post_init__(self) -> None:
        name = self.codec.name
        if self.codec.is_raw and (self.width < 1 or self.height < 1):
            raise ValueError(
                f"width and height ({self.width}x{self.height}) must be 1 or more for {name}: "
                "raw frames do not say their size"
            )
        if not self.codec.is_raw and (self.width or self.height):
            raise ValueError(
                f"width and height ({self.width}x{self.height}) must be left out for {name}: "
                "its frames say their own size"
            )

    @property
    def frame_bytes(self) -> int:
        """Length of a raw frame, its rows and planes without padding."""
        pixels = self.width * self.height
        if self.codec in (Codec.I420, Codec.NV12):
            return pixels + 2 * ((self.width + 1) // 2) * ((self.height + 1) // 2)
        return pixels if self.codec is Codec.GRAY8 else 3 * pixels


@dataclass(frozen=True, slots=True)
class PushedFrame:
    """One frame as a client sent it.

    Attributes:
        data: an access unit, a JPEG file or bare pixels.
        time_microseconds: capture time, UTC since 1970; access units come in the
            order of decoding, so their times may go back a little.
        arrival_seconds: monotonic clock when the message had come in.
    """

    data: bytes
    time_microseconds: int
    arrival_seconds: float


@dataclass(frozen=True, slots=True)
class PushCounts:
    """What became of a call's frames so far.

    Attributes:
        received: from the client.
        dropped: of them, without being decoded: there was no room. Live calls only.
        damaged: of them, that the decoder could not read.
    """

    received: int = 0
    dropped: int = 0
    damaged: int = 0
