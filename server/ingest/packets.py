"""The newest packets of a stream, as they came from the camera.

Kept are the packets that FFmpeg made anyway, no copies. They are let go of in
whole groups, from one key frame to the next, since decoding can begin nowhere
else.
"""

from __future__ import annotations

import io
from collections import deque
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import av
import av.container
import av.error
import av.video

from server.ingest.bitstream import parameter_sets
from server.pushed import Codec
from server.streams import Reason, SourceError

SCORING_SECONDS = 4.0
"""Packets stay so much longer than the pre-roll: a window, and the way of its score."""

RING_BYTES = 32_000_000
"""Most that one stream's ring may hold, whatever it is asked to hold."""

JUMP_SECONDS = 60.0
"""Times that jump ahead by as much, or back, are another recording's."""

_BACK_SECONDS = 2.0
_HEAD_BYTES = 4096
"""Parameter sets stand before the picture; no camera has as many bytes of them."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One encoded picture.

    Attributes:
        data: a packet of FFmpeg's, or an access unit that a client pushed.
        size: bytes.
        is_key: whether decoding can begin here.
        pts: presentation time in units of the format's time base.
        dts: decoding time in the same; None where the source has none.
        capture_seconds: UTC.
    """

    data: av.Packet[Any] | bytes
    size: int
    is_key: bool
    pts: int
    dts: int | None
    capture_seconds: float


@dataclass(frozen=True, slots=True)
class ClipFormat:
    """What a clip's header needs to know of the packets; outlives the source.

    Attributes:
        template: a stream with the packets' parameters, of a container that is never written.
        codec: FFmpeg's name.
        extradata: parameter sets; None where the packets bring their own or need none.
        time_base: seconds of one unit of time.
        size: (width, height) in pixels.
        reorder: pictures by which decoding may be ahead of presentation.
    """

    template: av.video.VideoStream
    codec: str
    extradata: bytes | None
    time_base: Fraction
    size: tuple[int, int]
    reorder: int

    @property
    def in_band(self) -> bool:
        """Whether packets have start codes (Annex B) and may bring parameter sets along."""
        if self.codec not in (Codec.H264.value, Codec.H265.value):
            return False
        return not self.extradata or self.extradata.startswith(b"\0\0")

    @classmethod
    def of(cls, stream: av.video.VideoStream, time_base: Fraction | None = None) -> ClipFormat:
        """The format of an open source's packets.

        Raises:
            SourceError: CODEC_UNSUPPORTED, MP4 files cannot hold this codec.
        """
        context = stream.codec_context
        # The source closes, and its stream with it; this container is written by nobody.
        holder = av.open(io.BytesIO(), "w", format="mp4")
        try:
            template = holder.add_stream_from_template(stream, opaque=True)
        except ValueError:
            raise SourceError(
                Reason.CODEC_UNSUPPORTED, f"MP4 files hold no video of codec {context.name}"
            ) from None
        assert isinstance(template, av.video.VideoStream)
        return cls(
            template,
            context.name,
            context.extradata,
            time_base or stream.time_base or Fraction(1, 90_000),
            (context.width, context.height),
            context.reorder_depth,
        )

    @classmethod
    def of_push(cls, codec: Codec, key_unit: bytes, time_base: Fraction) -> ClipFormat:
        """The format of access units that a client pushes, by their first key frame.

        Raises:
            SourceError: CODEC_UNSUPPORTED, it has no parameter sets.
        """
        try:
            with av.open(io.BytesIO(key_unit), format=codec.value) as container:
                return cls.of(container.streams.video[0], time_base)
        except (av.error.FFmpegError, IndexError):
            raise SourceError(
                Reason.CODEC_UNSUPPORTED, "the key frame does not say what it is"
            ) from None

    def seen_in(self, unit: Unit, size: tuple[int, int]) -> ClipFormat:
        """The same, or another where this key frame begins something else."""
        extradata = self.extradata
        if self.in_band:
            head = bytes(memoryview(unit.data)[:_HEAD_BYTES])
            extradata = parameter_sets(Codec(self.codec), head) or extradata
        if (extradata, size) == (self.extradata, self.size):
            return self
        return replace(self, extradata=extradata, size=size)


class PacketRing:
    """The newest packets of one format, from a key frame on.

    Args:
        format: of every packet.
        keep_seconds: that the oldest is older than the newest, about: whole groups stay.
    """

    def __init__(self, format: ClipFormat, keep_seconds: float) -> None:
        self.format = format
        self._tick_seconds = float(format.time_base)
        self._keep_seconds = keep_seconds
        self._groups: deque[list[Unit]] = deque()
        self._size_bytes = 0
        self._last: Unit | None = None

    @property
    def size_bytes(self) -> int:
        """Of the packets' payloads."""
        return self._size_bytes

    def follows(self, unit: Unit) -> bool:
        """Whether a packet's time can belong to the same recording."""
        if self._last is None:
            return True
        step_seconds = (unit.pts - self._last.pts) * self._tick_seconds
        return -_BACK_SECONDS <= step_seconds <= JUMP_SECONDS

    def add(self, unit: Unit, held_from_seconds: float | None) -> None:
        """Add the newest packet and let go of the oldest.

        Args:
            unit: the packet; what comes before the first key frame is of no use.
            held_from_seconds: UTC capture time from which on nothing may go, but for want of room.
        """
        if unit.is_key:
            self._groups.append([])
        if not self._groups:
            return
        self._groups[-1].append(unit)
        self._size_bytes += unit.size
        self._last = unit
        limit_seconds = unit.capture_seconds - self._keep_seconds
        if held_from_seconds is not None:
            limit_seconds = min(limit_seconds, held_from_seconds)
        while len(self._groups) > 1 and self._groups[1][0].capture_seconds <= limit_seconds:
            self._let_go()
        while self._groups and self._size_bytes > RING_BYTES:
            self._let_go()

    def since(self, from_seconds: float) -> list[Unit]:
        """Packets from the last key frame at or before a UTC capture time, or from the oldest."""
        groups = list(self._groups)
        while len(groups) > 1 and groups[1][0].capture_seconds <= from_seconds:
            groups.pop(0)
        return [unit for group in groups for unit in group]

    def _let_go(self) -> None:
        self._size_bytes -= sum(unit.size for unit in self._groups.popleft())
