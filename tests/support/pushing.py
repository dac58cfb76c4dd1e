"""Video for tests to push: pictures, raw frames and the access units of clips."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import cv2
import grpc
import numpy as np
import numpy.typing as npt
from gvvad.v1 import score_pb2, score_pb2_grpc

from server.pushed import Codec, PushedFrame, PushFormat
from server.rpc.client import PushAnswer, Watch
from server.rpc.mapping import push_start, pushed_frame
from server.sender import VideoSource

Picture = npt.NDArray[np.uint8]

FPS = 25
FRAME_MICROSECONDS = 1_000_000 // FPS
START_MICROSECONDS = 1_700_000_000_000_000

WIDTH, HEIGHT = 64, 48
TINY = PushFormat(Codec.GRAY8, 16, 16)
"""Frames that cost next to nothing, for tests that need many."""

ENCODERS: dict[Codec, Callable[[Picture], bytes]] = {
    Codec.RGB24: lambda rgb: rgb.tobytes(),
    Codec.BGR24: lambda rgb: rgb[:, :, ::-1].tobytes(),
    Codec.GRAY8: lambda rgb: rgb[:, :, 1].tobytes(),
    Codec.I420: lambda rgb: cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420).tobytes(),
    Codec.NV12: lambda rgb: _nv12(cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420)),
    Codec.JPEG: lambda rgb: cv2.imencode(".jpg", rgb[:, :, ::-1])[1].tobytes(),
}


def _nv12(i420: Picture) -> bytes:
    luma, chroma = i420.reshape(-1)[: WIDTH * HEIGHT], i420.reshape(-1)[WIDTH * HEIGHT :]
    return luma.tobytes() + chroma.reshape(2, -1).T.tobytes()


def raw(codec: Codec = Codec.RGB24, *, lossless: bool = True) -> PushFormat:
    """Format of the pictures that `grey_frames` makes."""
    size = (WIDTH, HEIGHT) if codec.is_raw else (0, 0)
    return PushFormat(codec, *size, lossless=lossless)


def grey_frames(levels: Iterable[int], codec: Codec = Codec.RGB24) -> Iterator[PushedFrame]:
    """A grey picture for each level of 0 to 255, 25 a second."""
    for index, level in enumerate(levels):
        yield at(index, ENCODERS[codec](np.full((HEIGHT, WIDTH, 3), level, np.uint8)))


def tiny_frames(count: int) -> Iterator[PushedFrame]:
    """Frames of format `TINY`."""
    return (at(index, bytes(TINY.frame_bytes)) for index in range(count))


def at(index: int, data: bytes) -> PushedFrame:
    """A frame at its place, 25 a second."""
    return PushedFrame(data, START_MICROSECONDS + index * FRAME_MICROSECONDS, 0.0)


def units_to_push(clip: Path) -> list[PushedFrame]:
    """A clip's frames as `gvvad push` would send them."""
    return list(VideoSource(str(clip)).frames())


def endless(frames: list[PushedFrame], pause_seconds: float = 0.0) -> Iterator[PushedFrame]:
    """The frames over and over, their times going on."""
    length = (frames[-1].time_microseconds - frames[0].time_microseconds) + FRAME_MICROSECONDS
    for turn in range(10**6):
        for frame in frames:
            time.sleep(pause_seconds)
            yield PushedFrame(frame.data, frame.time_microseconds + turn * length, 0.0)


def answers_of(push: Watch[PushAnswer]) -> list[PushAnswer]:
    """All answers of a push, up to its end; none was lost on the way."""
    answers = []
    for missed, answer in push:
        assert missed == 0
        answers.append(answer)
    return answers


@contextmanager
def narrow_channel(address: str) -> Iterator[grpc.Channel]:
    """A channel that takes in little of what is not read: gRPC's own grows to megabytes."""
    options = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1024))
    with grpc.insecure_channel(address, options=options) as channel:
        yield channel


def messages_of(
    frames: Iterable[PushedFrame], push: PushFormat
) -> Iterator[score_pb2.ScoreVideoRequest]:
    """A whole call's messages, for a temporary stream."""
    return chain([push_start(None, "", push)], map(pushed_frame, frames))


def refusal(
    channel: grpc.Channel, messages: Iterable[score_pb2.ScoreVideoRequest], **call: object
) -> tuple[str, str]:
    """The code and sentence that a call with these messages ends with."""
    try:
        for _ in score_pb2_grpc.ScoreServiceStub(channel).ScoreVideo(iter(messages), **call):
            pass
    except grpc.RpcError as error:
        return error.code().name, error.details() or ""
    return "OK", ""
