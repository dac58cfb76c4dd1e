"""Packets to an MP4 file, copied and not encoded again.

The file's index stands before the pictures, so that a browser plays it at once.
All reading and writing goes through Python's files, which let other threads run
meanwhile: a slow disk holds up no decoding.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import av
import av.container
import av.error

from server.evidence.files import new_file, scratch_of
from server.ingest.packets import ClipFormat, Unit
from server.pushed import Codec

_BUFFER_BYTES = 256 * 1024


class ClipError(OSError):
    """A clip cannot be written; the message says why."""


@dataclass(frozen=True, slots=True)
class Clip:
    """A whole clip.

    Attributes:
        size_bytes: of the file.
        start_seconds: UTC capture time of its first picture.
        end_seconds: the same of its last one.
    """

    size_bytes: int
    start_seconds: float
    end_seconds: float


class ClipWriter:
    """Writes one clip; absent until `finish` has returned. One thread at a time.

    Args:
        path: of the file.
        format: of every packet.
        max_bytes: it ends before the packet that would make it larger.
    """

    def __init__(self, path: Path, format: ClipFormat, max_bytes: int) -> None:
        self._path = path
        self._format = format
        self._max_bytes = max_bytes
        self._times = Times(format.reorder)
        self._stack = ExitStack()
        self._container: av.container.OutputContainer | None = None
        self._stream: Any = None
        self._written_bytes = 0
        self._full = False
        self._first: Unit | None = None
        self._last_seconds = 0.0
        self._failure: ClipError | None = None

    def add(self, units: Iterable[Unit]) -> None:
        """Write packets, the first of all a key frame; what fails is told by `finish`."""
        try:
            for unit in units:
                self._full = self._full or self._written_bytes + unit.size > self._max_bytes
                if self._failure is None and not self._full:
                    self._write(unit)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            self._fail(error)

    def finish(self) -> Clip:
        """Bring the file to the disk and give it its name.

        Raises:
            ClipError: it could not be written; then there is none.
        """
        if self._failure is None and self._container is not None:
            try:
                self._container.close()
                self._stack.close()
                self._container = self._stream = None
            except (av.error.FFmpegError, OSError, ValueError) as error:
                self._fail(error)
        if self._failure is not None:
            raise self._failure
        if self._first is None:
            raise ClipError("no key frame came")
        size_bytes = self._path.stat().st_size
        return Clip(size_bytes, self._first.capture_seconds, self._last_seconds)

    def abandon(self) -> None:
        """Leave nothing behind."""
        if self._failure is None:
            self._fail(ClipError("abandoned"))

    def _write(self, unit: Unit) -> None:
        if self._first is None:
            self._open()
            self._first = unit
        pts = unit.pts - self._first.pts
        if pts < 0:
            return  # shown before the first key frame, and refers to what is not there
        # A packet of its own around the same bytes: writing changes a packet's times.
        packet = av.Packet(cast("bytes", unit.data))
        packet.pts, packet.dts = self._times.place(
            pts, None if unit.dts is None else unit.dts - self._first.pts
        )
        packet.time_base = self._format.time_base
        packet.is_keyframe = unit.is_key
        packet.stream = self._stream
        assert self._container is not None
        self._container.mux(packet)
        self._written_bytes += unit.size
        self._last_seconds = max(self._last_seconds, unit.capture_seconds)

    def _open(self) -> None:
        file = self._stack.enter_context(new_file(self._path))
        self._container = av.open(
            file,
            "w",
            format="mp4",
            options={"movflags": "+faststart"},
            buffer_size=_BUFFER_BYTES,
            # The muxer reads its own file again to make room for the index.
            io_open=lambda *_: self._reread(file),
        )
        stream: Any = self._container.add_stream_from_template(self._format.template, opaque=True)
        stream.time_base = self._format.time_base
        context = stream.codec_context
        context.width, context.height = self._format.size
        if self._format.extradata is not None:
            context.extradata = self._format.extradata
        if self._format.codec == Codec.H265.value:
            context.codec_tag = "hvc1"  # what Safari plays
        self._stream = stream

    def _reread(self, file: BinaryIO) -> BinaryIO:
        file.flush()
        return scratch_of(self._path).open("rb")

    def _fail(self, error: Exception) -> None:
        self._failure = ClipError(str(getattr(error, "strerror", None) or error))
        # Closed by way of the error, the file takes its scratch name along; what it still
        # had to write may fail once more.
        with suppress(OSError):
            self._stack.__exit__(type(error), error, error.__traceback__)
        self._container = self._stream = None


class Times:
    """Decoding times that rise and never lie after presentation."""

    def __init__(self, reorder: int) -> None:
        self._waiting: list[int] = []
        self._reorder = reorder
        self._last: int | None = None

    def place(self, pts: int, dts: int | None) -> tuple[int, int]:
        """Presentation and decoding time of the next packet."""
        if dts is None:
            dts = self._guess(pts)
        if self._last is not None:
            dts = max(dts, self._last + 1)
        self._last = dts
        return max(pts, dts), dts

    def _guess(self, pts: int) -> int:
        """The time that is `reorder` places before, in the order of presentation."""
        self._waiting = sorted([*self._waiting, pts])
        if len(self._waiting) > self._reorder:
            return self._waiting.pop(0)
        return self._waiting[0] - 1 - self._reorder + len(self._waiting)
