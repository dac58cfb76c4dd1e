"""A video file, or one that comes through a pipe, as the frames that ScoreVideo takes."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import av.container
import av.error
from av.bitstream import BitStreamFilterContext
from av.video.reformatter import ColorRange

from server.ingest.video import open_file, strerror, video_stream
from server.pushed import Codec, PushedFrame, PushFormat
from server.streams import Reason, SourceError

STDIN = "-"

_ANNEX_B = {
    "h264": (Codec.H264, "h264_mp4toannexb"),
    "hevc": (Codec.H265, "hevc_mp4toannexb"),
}


class VideoSource:
    """A video to push.

    H.264 and H.265 are sent as they are; every other codec is decoded here and sent
    as raw pictures.

    Attributes:
        push: what `frames` gives.

    Raises:
        SourceError: it cannot be read, or holds no video.
    """

    def __init__(self, name: str, *, live: bool = False) -> None:
        """Open it.

        Args:
            name: path of the file; `-` for standard input.
            live: play it in real time, and let the server drop what it has no time for.
        """
        self._name = "standard input" if name == STDIN else name
        self._container = _open_pipe() if name == STDIN else open_file(Path(name))
        self._stream = video_stream(self._container, self._name)
        self._live = live
        codec, self._filter = _ANNEX_B.get(self._stream.codec_context.name, (Codec.I420, ""))
        size = (0, 0) if self._filter else (self._stream.width, self._stream.height)
        self.push = PushFormat(codec, *size, lossless=not live)

    def frames(self) -> Iterator[PushedFrame]:
        """Its frames, once; the first one's time is now. Closes the source at the end.

        Raises:
            SourceError: it breaks off, or its frames have no times.
        """
        with self._container:
            yield from self._paced()

    def _paced(self) -> Iterator[PushedFrame]:
        timed = self._access_units() if self._filter else self._pictures()
        start_seconds, began = time.time(), time.monotonic()
        first: float | None = None
        try:
            for data, at_seconds in timed:
                first = at_seconds if first is None else first
                passed_seconds = at_seconds - first
                if self._live:
                    time.sleep(max(0.0, began + passed_seconds - time.monotonic()))
                microseconds = round((start_seconds + passed_seconds) * 1e6)
                yield PushedFrame(data, microseconds, time.monotonic())
        except av.error.FFmpegError as error:
            raise SourceError(
                Reason.CODEC_UNSUPPORTED, f"{self._name} broke off ({strerror(error)})"
            ) from None

    def _access_units(self) -> Iterator[tuple[bytes, float]]:
        to_annex_b = BitStreamFilterContext(self._filter, self._stream)
        for packet in self._container.demux(self._stream):
            for unit in to_annex_b.filter(packet if packet.size else None):
                if unit.pts is None or unit.time_base is None:
                    raise self._without_times()
                yield bytes(unit), float(unit.pts * unit.time_base)

    def _pictures(self) -> Iterator[tuple[bytes, float]]:
        for frame in self._container.decode(self._stream):
            if frame.time is None:
                raise self._without_times()
            picture = frame.reformat(
                self.push.width,
                self.push.height,
                Codec.I420.value,
                dst_color_range=ColorRange.MPEG,
            )
            yield _packed(picture), frame.time

    def _without_times(self) -> SourceError:
        return SourceError(
            Reason.CODEC_UNSUPPORTED,
            f"{self._name} has no times for its frames; put it into a container such as MP4 or "
            "MPEG-TS",
        )


def _open_pipe() -> av.container.InputContainer:
    try:
        return av.open(_Pipe(), "r")
    except (av.error.FFmpegError, OSError) as error:
        raise SourceError(
            Reason.CODEC_UNSUPPORTED,
            f"standard input is not a video that FFmpeg can read ({strerror(error)}); pipe one "
            "in that needs no seeking, such as MPEG-TS or Matroska",
        ) from None


class _Pipe:
    """Standard input for PyAV, without the `seek` that a pipe has but cannot do."""

    def read(self, size: int) -> bytes:
        return os.read(sys.stdin.fileno(), size)


def _packed(picture: Any) -> bytes:
    """A planar 4:2:0 picture's bytes without the padding of its rows."""
    planes = []
    for plane in picture.planes:
        rows = memoryview(plane)
        planes += [
            bytes(rows[row * plane.line_size : row * plane.line_size + plane.width])
            for row in range(plane.height)
        ]
    return b"".join(planes)
