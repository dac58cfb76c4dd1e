"""Video that a client sends itself, decoded: access units, JPEG or raw frames to pictures."""

from __future__ import annotations

from collections import OrderedDict
from fractions import Fraction
from typing import Any

import av
import av.error
import av.video
from av.video.reformatter import ColorRange

from server.ingest.bitstream import jpeg_size
from server.pushed import Codec, PushedFrame, PushFormat
from server.streams import Reason, SourceError
from server.windows import SourceFrame

UNDECODED_FRAMES = 300
"""So many frames in a row without a picture end a push: x264 sets key frames 250 apart at most."""

_ARRIVALS_KEPT = 64
_BLOCK_PIXELS = 64 * 64
_MICROSECOND = Fraction(1, 1_000_000)


class PushDecoder:
    """Frames of one call to pictures, in the order of their times.

    Attributes:
        was_damaged: whether the newest frame could not be read.

    Args:
        push: what the client sends.
        max_pixels: larger pictures are refused before they are decoded.
    """

    def __init__(self, push: PushFormat, max_pixels: int) -> None:
        self._push = push
        self._max_pixels = max_pixels
        codec = "rawvideo" if push.codec.is_raw else push.codec.value
        context = av.CodecContext.create(codec, "r")
        assert isinstance(context, av.VideoCodecContext)
        self._context = context
        self._context.thread_count = 1
        # Decoders count pictures padded to whole blocks; `_placed` is exact.
        self._context.options = {"max_pixels": str(max_pixels * 5 // 4 + _BLOCK_PIXELS)}
        if push.codec.is_raw:
            self._require_small(push.width, push.height)
            self._context.width, self._context.height = push.width, push.height
            self._context.pix_fmt = push.codec.value
        self._first_microseconds: int | None = None
        self._arrivals: OrderedDict[int, float] = OrderedDict()
        self._newest_arrival_seconds = 0.0
        self._index = 0
        self._fruitless = 0
        self.was_damaged = False

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the newest picture, in pixels."""
        return self._context.width, self._context.height

    def decode(self, frame: PushedFrame) -> list[SourceFrame[av.VideoFrame]]:
        """The pictures that a frame completes: none for a damaged one, and none while later
        frames are needed to know the order.

        Raises:
            SourceError: PICTURE_TOO_LARGE; or CODEC_UNSUPPORTED, too many frames in a row
                gave no picture.
        """
        if self._first_microseconds is None:
            self._first_microseconds = frame.time_microseconds
        packet = av.Packet(frame.data)
        packet.pts = frame.time_microseconds - self._first_microseconds
        packet.time_base = _MICROSECOND
        self._arrivals[packet.pts] = self._newest_arrival_seconds = frame.arrival_seconds
        while len(self._arrivals) > _ARRIVALS_KEPT:
            self._arrivals.popitem(last=False)
        if self._push.codec is Codec.JPEG:
            self._require_small(*jpeg_size(frame.data))
        pictures = self._pictures(packet)
        self._fruitless = 0 if pictures else self._fruitless + 1
        if self._fruitless >= UNDECODED_FRAMES:
            raise self._undecodable(f"{UNDECODED_FRAMES} frames in a row gave no picture")
        return pictures

    def flush(self) -> list[SourceFrame[av.VideoFrame]]:
        """The pictures that are still held back, since no frame follows.

        Raises:
            SourceError: CODEC_UNSUPPORTED, no frame of the whole call gave a picture.
        """
        pictures = self._pictures(None)
        if self._first_microseconds is not None and not self._index:
            raise self._undecodable("no frame gave a picture")
        return pictures

    def _pictures(self, packet: av.Packet[Any] | None) -> list[SourceFrame[av.VideoFrame]]:
        self.was_damaged = False
        try:
            pictures = self._context.decode(packet)
        except (av.error.FFmpegError, MemoryError):
            self.was_damaged = True
            # What FFmpeg says of a picture over `max_pixels` differs by decoder: look for oneself.
            self._require_small(self._context.width, self._context.height)
            return []
        return [self._placed(picture) for picture in pictures if picture.pts is not None]

    def _placed(self, picture: av.VideoFrame) -> SourceFrame[av.VideoFrame]:
        assert self._first_microseconds is not None
        assert picture.pts is not None
        self._require_small(picture.width, picture.height)
        if self._push.codec is Codec.GRAY8:
            picture.color_range = ColorRange.JPEG  # bare grey pixels use all 256 values
        arrival_seconds = self._arrivals.pop(picture.pts, self._newest_arrival_seconds)
        captured_microseconds = self._first_microseconds + picture.pts
        frame = SourceFrame(
            picture, self._index, picture.pts / 1e6, arrival_seconds, captured_microseconds / 1e6
        )
        self._index += 1
        return frame

    def _require_small(self, width: int, height: int) -> None:
        if width * height > self._max_pixels:
            raise SourceError(
                Reason.PICTURE_TOO_LARGE,
                f"a frame of {width}x{height} pixels is over the limit of {self._max_pixels}; "
                "send smaller ones or raise ingest.max_pixels",
            )

    def _undecodable(self, what: str) -> SourceError:
        return SourceError(Reason.CODEC_UNSUPPORTED, f"{what}; {_EXPECTED[self._push.codec]}")


_ANNEX_B = "send whole access units with start codes (Annex B), from a key frame on"
_EXPECTED = dict.fromkeys(Codec, "send frames of the size that the call began with") | {
    Codec.H264: _ANNEX_B,
    Codec.H265: _ANNEX_B,
    Codec.JPEG: "send whole JPEG files",
}
