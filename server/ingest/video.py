"""Video containers to frames: demux and decode one video stream with PyAV.

Files and cameras share this loop. Every frame carries the monotonic time at
which its packet was demuxed, so that latency counts from there.
"""

from __future__ import annotations

import os
import struct
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import Any, BinaryIO

import av
import av.container
import av.error
import av.video

from server.contract import WindowSpec
from server.preprocess import Preprocessor, PreprocessSpec
from server.streams import Reason
from server.streams import SourceError as SourceError  # offline packages import it from here
from server.tuning import Mask
from server.windows import MIN_GAP_SECONDS, SourceFrame, Window, WindowAssembler

MAX_CLOCK_ERROR_SECONDS = 600.0
"""A camera's clock that is further off is not set (1970, or another time zone)."""

_AT_ONCE = nullcontext()
"""Turns of whoever decodes alone."""

PacketTaker = Callable[["av.Packet[Any]", float, float], None]

# Packets in flight inside a decoder: H.264 allows 16 reference frames.
_ARRIVALS_KEPT = 64
_PRODUCER_REFERENCE_TIME = struct.Struct("=q")


def open_file(path: Path) -> av.container.InputContainer:
    """Open a recorded clip.

    FFmpeg gets the open file and may open nothing else: a playlist would lead it
    out of the directories that the settings allow, and it would read a name like
    `12:30.mp4` or `cam%d.jpg` as something other than a file's name.

    Raises:
        SourceError: the file is missing or empty, is no video, or has no video stream.
    """
    with _readable(path) as file:
        try:
            options = {"fd": str(file.fileno()), "protocol_whitelist": "fd"}
            container = av.open("fd:", options=options)
        except (av.error.FFmpegError, OSError) as error:
            raise SourceError(
                Reason.CODEC_UNSUPPORTED,
                f"{path} is not a video that FFmpeg can read ({strerror(error)}); "
                "give a whole video file",
            ) from None
    try:
        video_stream(container, str(path))
    except SourceError:
        container.close()
        raise
    return container


def _readable(path: Path) -> BinaryIO:
    try:
        file = path.open("rb") if path.is_file() else None  # opening a named pipe would wait
    except OSError as error:
        raise SourceError(
            Reason.NOT_FOUND, f"{path} cannot be read ({strerror(error)}); give a video file"
        ) from None
    if file is None:
        raise SourceError(Reason.NOT_FOUND, f"{path} is not a file; give a video file")
    if not os.fstat(file.fileno()).st_size:
        file.close()
        raise SourceError(
            Reason.CODEC_UNSUPPORTED, f"{path} is empty; give it again once it has been written"
        )
    return file


def video_stream(container: av.container.InputContainer, name: str) -> av.video.VideoStream:
    """The first video stream, set to decode on one thread.

    Frame threading would add a frame of latency a thread, and several streams
    share a worker.

    Raises:
        SourceError: there is none, or no decoder for it.
    """
    if not container.streams.video:
        raise SourceError(Reason.NO_VIDEO, f"{name} has no video stream; give a source with one")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise SourceError(Reason.CODEC_UNSUPPORTED, f"{name} uses a codec without a decoder here")
    stream.thread_count = 1
    return stream


def decode(
    container: av.container.InputContainer,
    stream: av.video.VideoStream,
    on_packet: PacketTaker | None = None,
    turns: AbstractContextManager[None] = _AT_ONCE,
) -> Generator[SourceFrame[av.VideoFrame], None, None]:
    """Frames of `stream` in presentation order, until the source ends.

    A frame without a time (the first of a live RTSP session has none) takes no
    place in any window and is passed over.

    Args:
        container: an open source.
        stream: its video stream.
        on_packet: called with each packet once it was decoded, its UTC capture time and the
            seconds that decoding took; what it raises ends the iteration.
        turns: entered to decode a packet, and left once its frames were taken; close the
            iterator, or read it to its end, lest it stays inside.

    Raises:
        av.error.FFmpegError: the source failed; a corrupt packet alone is skipped.
    """
    times: OrderedDict[int | None, tuple[float, float]] = OrderedDict()
    clock = CaptureClock()
    index = 0
    # By hand: a fraction a packet costs as much as all the rest that Python does for it.
    numerator, denominator = stream.time_base.as_integer_ratio() if stream.time_base else (1, 1)
    for packet in container.demux(stream):
        arrival_seconds = time.monotonic()
        reference = bytes(packet.get_sidedata("prft")) or None
        pts_seconds = None if packet.pts is None else packet.pts * numerator / denominator
        capture_seconds = clock.utc_seconds(pts_seconds, reference, arrival_seconds, time.time())
        times[packet.pts] = (arrival_seconds, capture_seconds)
        while len(times) > _ARRIVALS_KEPT:
            times.popitem(last=False)
        with turns:
            begun_seconds = time.monotonic()
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:
                frames = []
            if on_packet is not None:
                on_packet(packet, capture_seconds, time.monotonic() - begun_seconds)
            for frame in frames:
                if frame.pts is None or frame.time is None:
                    continue
                arrived, captured = times.pop(frame.pts, (arrival_seconds, capture_seconds))
                yield SourceFrame(frame, index, frame.time, arrived, captured)
                index += 1


def decode_file(
    container: av.container.InputContainer,
    name: str,
    on_packet: PacketTaker | None = None,
    turns: AbstractContextManager[None] = _AT_ONCE,
) -> Generator[SourceFrame[av.VideoFrame], None, None]:
    """Frames of a recorded clip, in presentation order.

    Args:
        container: the open clip.
        name: what the sentences call it.
        on_packet: see `decode`.
        turns: see `decode`.

    Raises:
        SourceError: it breaks off, after the frames before the break; or it has
            no frame to place in time.
    """
    stream = video_stream(container, name)
    frames = 0
    broken = None
    try:
        with closing(decode(container, stream, on_packet, turns)) as decoded:
            for frame in decoded:
                frames += 1
                yield frame
    except av.error.FFmpegError as error:
        broken = strerror(error)
    if broken is None and _is_cut_short(container, stream):
        broken = "it is shorter than its index says"
    if broken is not None:
        raise SourceError(
            Reason.CODEC_UNSUPPORTED,
            f"{name} broke off while decoding ({broken}), after {frames} frames; "
            "give the whole file",
        )
    if not frames:
        raise SourceError(
            Reason.CODEC_UNSUPPORTED,
            f"{name} has no frame that decodes and has a time; give a video in a container "
            "such as MP4",
        )


def _is_cut_short(container: av.container.InputContainer, stream: av.video.VideoStream) -> bool:
    """Whether the index places the last frame beyond the end; FFmpeg just stops there."""
    entries = stream.index_entries
    if not len(entries):
        return False
    last = entries[len(entries) - 1]
    return last.pos + last.size > container.size


def capture_utc_seconds(reference: bytes | None, arrived_seconds: float) -> float:
    """UTC at which a frame was taken, in seconds since the epoch.

    RTSP packets carry a reference time as soon as the camera has sent an RTCP
    sender report; before that, without one, and where the camera's clock is not
    set, arrival stands for it.

    Args:
        reference: FFmpeg's AVProducerReferenceTime of the packet; None where it has none.
        arrived_seconds: UTC of the packet's arrival.
    """
    if reference is None:
        return arrived_seconds
    (wallclock_microseconds,) = _PRODUCER_REFERENCE_TIME.unpack_from(reference)
    captured_seconds = float(wallclock_microseconds) / 1e6
    if abs(captured_seconds - arrived_seconds) > MAX_CLOCK_ERROR_SECONDS:
        return arrived_seconds
    return captured_seconds


class CaptureClock:
    """UTC at which a source's frames were taken; pure.

    A camera maps its frames' times to UTC in sender reports, every few seconds. When the times
    jump, or stand still while pictures go on, the mapping is off by as much until the next report;
    arrival stands for it meanwhile.
    """

    def __init__(self) -> None:
        self._last_pts_seconds: float | None = None
        self._last_arrival_seconds = 0.0
        self._broken_mapping_seconds: float | None = None

    def utc_seconds(
        self,
        pts_seconds: float | None,
        reference: bytes | None,
        arrival_seconds: float,
        arrived_utc_seconds: float,
    ) -> float:
        """When the next packet's frame was taken.

        Args:
            pts_seconds: of the packet, in the stream's own clock.
            reference: see `capture_utc_seconds`.
            arrival_seconds: monotonic clock at its arrival.
            arrived_utc_seconds: UTC at its arrival.
        """
        captured_seconds = capture_utc_seconds(reference, arrived_utc_seconds)
        if pts_seconds is None or reference is None:
            return captured_seconds
        mapping_seconds = captured_seconds - pts_seconds
        if self._jumped(pts_seconds, arrival_seconds):
            self._broken_mapping_seconds = mapping_seconds
        if pts_seconds != self._last_pts_seconds:
            self._last_pts_seconds, self._last_arrival_seconds = pts_seconds, arrival_seconds
        broken_seconds = self._broken_mapping_seconds
        if broken_seconds is None:
            return captured_seconds
        if abs(mapping_seconds - broken_seconds) < MIN_GAP_SECONDS / 2:
            return arrived_utc_seconds
        self._broken_mapping_seconds = None
        return captured_seconds

    def _jumped(self, pts_seconds: float, arrival_seconds: float) -> bool:
        if self._last_pts_seconds is None:
            return False
        passed_seconds = arrival_seconds - self._last_arrival_seconds
        step_seconds = pts_seconds - self._last_pts_seconds
        if step_seconds == 0:
            return passed_seconds > MIN_GAP_SECONDS
        return not -MIN_GAP_SECONDS <= step_seconds <= passed_seconds + MIN_GAP_SECONDS


def file_windows(
    path: Path, window: WindowSpec, preprocess: PreprocessSpec, masks: Sequence[Mask] = ()
) -> Iterator[Window]:
    """Windows of a recorded clip, lossless, in order.

    Args:
        path: the clip.
        window: geometry of the windows.
        preprocess: how a frame becomes an image.
        masks: regions that are painted out, as of the stream that it is a recording of.

    Raises:
        SourceError: the file cannot be read as video, or breaks off; the windows
            before the break have been given by then.
    """
    render = Preprocessor(preprocess, masks)
    assembler: WindowAssembler[av.VideoFrame] = WindowAssembler(window, render)
    with open_file(path) as container:
        for frame in decode_file(container, str(path)):
            yield from assembler.push(frame)
    yield from assembler.finish()


def strerror(error: BaseException) -> str:
    """The system's or FFmpeg's words for an error, without the file or URL it concerns."""
    return str(getattr(error, "strerror", None) or error)
