"""Video containers to frames: demux and decode one video stream with PyAV.

Files and cameras share this loop. Every frame carries the monotonic time at
which its packet was demuxed, so that latency counts from there.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import av
import av.container
import av.error
import av.video

from server.contract import WindowSpec
from server.preprocess import Preprocessor, PreprocessSpec
from server.streams import Reason, SourceError
from server.windows import SourceFrame, Window, WindowAssembler

# Packets in flight inside a decoder: H.264 allows 16 reference frames.
_ARRIVALS_KEPT = 64


def open_file(path: Path) -> av.container.InputContainer:
    """Open a recorded clip.

    Raises:
        SourceError: the file is missing, is no video, or has no video stream.
    """
    if not path.is_file():
        raise SourceError(Reason.NOT_FOUND, f"{path} is not a file; give a video file")
    try:
        container = av.open(str(path))
    except (av.error.FFmpegError, OSError) as error:
        raise SourceError(
            Reason.CODEC_UNSUPPORTED,
            f"{path} is not a video that FFmpeg can read ({_strerror(error)}); give a video file",
        ) from None
    try:
        video_stream(container, str(path))
    except SourceError:
        container.close()
        raise
    return container


def video_stream(container: av.container.InputContainer, name: str) -> av.video.VideoStream:
    """The first video stream, set to decode on one thread.

    Frame threading would add a frame of latency a thread, and several streams
    share a worker.

    Raises:
        SourceError: there is none, or no decoder for it.
    """
    if not container.streams.video:
        raise SourceError(Reason.NO_VIDEO, f"{name} has no video stream")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise SourceError(Reason.CODEC_UNSUPPORTED, f"{name} uses a codec without a decoder here")
    stream.thread_count = 1
    return stream


def decode(
    container: av.container.InputContainer, stream: av.video.VideoStream
) -> Iterator[SourceFrame[av.VideoFrame]]:
    """Frames of `stream` in presentation order, until the source ends.

    A frame without a time (the first of a live RTSP session has none) takes no
    place in any window and is passed over.

    Raises:
        av.error.FFmpegError: the source failed; a corrupt packet alone is skipped.
    """
    arrivals: OrderedDict[int | None, float] = OrderedDict()
    clock_offset_seconds = time.time() - time.monotonic()
    index = 0
    for packet in container.demux(stream):
        arrival_seconds = time.monotonic()
        arrivals[packet.pts] = arrival_seconds
        while len(arrivals) > _ARRIVALS_KEPT:
            arrivals.popitem(last=False)
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            continue
        for frame in frames:
            if frame.pts is None or frame.time is None:
                continue
            arrived = arrivals.pop(frame.pts, arrival_seconds)
            yield SourceFrame(frame, index, frame.time, arrived, arrived + clock_offset_seconds)
            index += 1


def file_windows(path: Path, window: WindowSpec, preprocess: PreprocessSpec) -> Iterator[Window]:
    """Windows of a recorded clip, lossless, in order.

    Raises:
        SourceError: the file cannot be read as video.
    """
    assembler: WindowAssembler[av.VideoFrame] = WindowAssembler(window, Preprocessor(preprocess))
    with open_file(path) as container:
        try:
            for frame in decode(container, video_stream(container, str(path))):
                yield from assembler.push(frame)
        except av.error.FFmpegError as error:
            raise SourceError(
                Reason.CODEC_UNSUPPORTED, f"{path} broke off while decoding ({_strerror(error)})"
            ) from None
    yield from assembler.finish()


def _strerror(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error)
