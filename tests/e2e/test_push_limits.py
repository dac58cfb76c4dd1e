"""What a client that pushes may not do: one test beyond each limit, each with its status."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest
from gvvad.v1 import score_pb2, score_pb2_grpc

from server.contract import WindowSpec
from server.pushed import Codec, PushedFrame, PushFormat
from server.rpc.client import Client, ClientError
from tests.support.cameras import render_clip
from tests.support.faults import Tell, decode_workers
from tests.support.pushing import (
    ENCODERS,
    TINY,
    answers_of,
    at,
    endless,
    grey_frames,
    messages_of,
    narrow_channel,
    raw,
    refusal,
    tiny_frames,
    units_to_push,
)
from tests.support.serving import ServerProcess
from tests.support.tiny_bundle import make_tiny_bundle

IDLE_SECONDS = 1.0
MAX_PIXELS = 1280 * 720
Request = score_pb2.ScoreVideoRequest


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    directory = tmp_path_factory.mktemp("bundles") / "tiny"
    bundle = make_tiny_bundle(directory, window=WindowSpec(4, 25.0)).directory
    limits = {
        "push__max_message_mb": 2,
        "push__max_calls_per_client": 4,
        "push__max_frames_per_second": 100,
        "push__idle_seconds": IDLE_SECONDS,
        "ingest__max_pixels": MAX_PIXELS,
    }
    with ServerProcess(bundle=bundle, **limits) as process:
        yield process


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Client]:
    with server.client() as client:
        yield client
        assert answers_of(client.push(grey_frames([50] * 16), raw()))[-1].score is None
        until_no_stream(client)


@pytest.fixture
def channel(server: ServerProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address) as channel:
        yield channel


def refused(
    client: Client, frames: Iterator[PushedFrame] | list[PushedFrame], push: PushFormat
) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        answers_of(client.push(frames, push))
    return caught.value.code, caught.value.sentence


def test_a_message_over_the_limit_is_refused(client: Client) -> None:
    wide = PushFormat(Codec.RGB24, 1024, 720)
    code, said = refused(client, [at(0, bytes(wide.frame_bytes))], wide)
    assert code == "RESOURCE_EXHAUSTED"
    assert "push.max_message_mb" in said


def test_other_messages_have_a_smaller_limit(client: Client, server: ServerProcess) -> None:
    with grpc.insecure_channel(server.address) as channel:
        call = channel.unary_unary("/gvvad.v1.StreamService/GetStream")
        with pytest.raises(grpc.RpcError) as caught:
            call(bytes(1024 * 1024))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "at most 65536" in caught.value.details()


def test_a_picture_bomb_is_refused_before_it_is_decoded(
    server: ServerProcess, client: Client, tell: Tell
) -> None:
    bomb = bytearray(ENCODERS[Codec.JPEG](np.zeros((48, 64, 3), np.uint8)))
    frame_header = bomb.index(b"\xff\xc0")
    bomb[frame_header + 5 : frame_header + 9] = struct.pack(">HH", 65500, 65500)
    with peak_memory(server) as peak:
        code, said = refused(client, [at(n, bytes(bomb)) for n in range(50)], raw(Codec.JPEG))
    assert code == "RESOURCE_EXHAUSTED"
    assert "65500x65500 pixels is over the limit" in said
    tell(f"a JPEG of {len(bomb)} bytes that says 65500x65500: workers grew by {peak()} MB")
    assert peak() < 50


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_access_units_with_too_many_pixels_are_refused(
    codec: str, tmp_path: Path, client: Client
) -> None:
    clip = render_clip(tmp_path / "large.mp4", seconds=0.4, size=(1920, 1080), codec=codec)
    units = units_to_push(clip)
    push = PushFormat(Codec.H264 if codec == "libx264" else Codec.H265)
    code, said = refused(client, units, push)
    assert code == "RESOURCE_EXHAUSTED"
    assert "1920x1080 pixels is over the limit" in said


def test_raw_frames_with_too_many_pixels_are_refused(client: Client) -> None:
    code, said = refused(client, [], PushFormat(Codec.GRAY8, 1281, 720))
    assert code == "RESOURCE_EXHAUSTED"
    assert "1281x720 pixels is over the limit" in said


@pytest.mark.parametrize("step_microseconds", [9_900, 1, 0])
def test_too_many_frames_a_second_are_refused(step_microseconds: int, client: Client) -> None:
    picture = next(grey_frames([50])).data
    fast = [PushedFrame(picture, 10**15 + n * step_microseconds, 0.0) for n in range(400)]
    code, said = refused(client, fast, raw())
    assert code == "RESOURCE_EXHAUSTED"
    assert "over 100 frames within one second" in said


def test_as_many_frames_a_second_as_allowed_go(client: Client) -> None:
    picture = next(grey_frames([50])).data
    frames = [PushedFrame(picture, 10**15 + n * 10_000, 0.0) for n in range(400)]
    assert answers_of(client.push(frames, raw()))[-1].counts.received == 400


def test_a_silent_client_is_let_go(client: Client) -> None:
    def frames() -> Iterator[PushedFrame]:
        yield from grey_frames([50] * 20)
        time.sleep(3 * IDLE_SECONDS)

    started = time.monotonic()
    code, said = refused(client, frames(), raw())
    assert (code, "no frame came for 1 s" in said) == ("DEADLINE_EXCEEDED", True)
    assert IDLE_SECONDS <= time.monotonic() - started < 3 * IDLE_SECONDS


def test_a_client_without_a_first_message_is_let_go(channel: grpc.Channel) -> None:
    def nothing() -> Iterator[Request]:
        time.sleep(3 * IDLE_SECONDS)
        yield from ()

    assert refusal(channel, nothing())[0] == "DEADLINE_EXCEEDED"


def test_a_client_that_reads_nothing_is_let_go(server: ServerProcess, client: Client) -> None:
    with narrow_channel(server.address) as channel:
        stub = score_pb2_grpc.ScoreServiceStub(channel)
        call = stub.ScoreVideo(messages_of(tiny_frames(10**6), TINY))
        call.initial_metadata()
        until_no_stream(client, 60)  # first the client's own buffers fill with scores
        with pytest.raises(grpc.RpcError) as caught:
            for _ in call:
                pass
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "no score was read for 1 s" in caught.value.details()


def until_no_stream(client: Client, seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while client.list():
        assert time.monotonic() < deadline, client.list()
        time.sleep(0.02)


def test_one_client_has_so_many_calls(client: Client) -> None:
    frames = list(grey_frames([50] * 16))
    pushes = [client.push(endless(frames, 0.01), raw()) for _ in range(4)]
    for push in pushes:
        next(push)
    code, said = refused(client, [], raw())
    assert code == "RESOURCE_EXHAUSTED"
    assert "4 open calls that push video" in said
    for push in pushes:
        push.cancel()
    until_no_stream(client)


def test_a_deadline_of_the_client_ends_the_call(client: Client, channel: grpc.Channel) -> None:
    messages = messages_of(endless(list(grey_frames([50] * 16)), 0.01), raw())
    started = time.monotonic()
    assert refusal(channel, messages, timeout=1.5)[0] == "DEADLINE_EXCEEDED"
    assert time.monotonic() - started < 5


def frame_message(**fields: object) -> Request:
    return Request(frame=score_pb2.VideoFrame(**fields))


def with_time(data: bytes, seconds: int = 1) -> Request:
    message = frame_message(data=data)
    message.frame.time.FromSeconds(1)
    message.frame.time.seconds = seconds
    return message


def start(push: PushFormat) -> Request:
    return next(messages_of([], push))


START = start(raw())
GREY = next(grey_frames([50])).data


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([], "the first message must be a start"),
        ([Request()], "the first message must be a start"),
        ([with_time(GREY)], "the first message must be a start"),
        ([START, START], "after the first must be a frame"),
        ([Request(start=score_pb2.VideoStart())], "start.codec (0) must be one of"),
        ([Request(start=score_pb2.VideoStart(codec=99))], "start.codec (99) must be one of"),
        (
            [Request(start=score_pb2.VideoStart(codec=1, delivery=7))],
            "start.delivery (7) must be",
        ),
        (
            [Request(start=score_pb2.VideoStart(codec=1, width=64, height=48))],
            "must be left out for H264",
        ),
        ([Request(start=score_pb2.VideoStart(codec=4, width=64))], "must be 1 or more for RGB24"),
        (
            [Request(start=score_pb2.VideoStart(codec=4, width=-1, height=-1))],
            "must be 1 or more for RGB24",
        ),
        (
            [Request(start=score_pb2.VideoStart(codec=1, stream="door"))],
            "start.stream ('door') must be streams/{id}",
        ),
        (
            [Request(start=score_pb2.VideoStart(codec=1, temporary_stream_id="A B"))],
            "start.temporary_stream_id ('A B')",
        ),
        (
            [
                Request(
                    start=score_pb2.VideoStart(codec=1, stream="streams/a", temporary_stream_id="b")
                )
            ],
            "must be empty where start.stream names a stream",
        ),
        ([START, frame_message(data=GREY)], "frame.time is required"),
        ([START, with_time(b"")], "frame.data is required"),
        ([START, with_time(GREY, 10**12)], "must lie between the years"),
        ([START, with_time(GREY[1:])], "a RGB24 frame of 64x48 pixels has 9216"),
        ([start(PushFormat(Codec.H264)), with_time(b"\0\0\0\x05abcde")], "Annex B"),
        ([start(PushFormat(Codec.JPEG)), with_time(b"\x89PNG...")], "not a JPEG file"),
        (
            [start(PushFormat(Codec.H265)), with_time(b"\0\0\1" + bytes(50))],
            "no frame gave a picture",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_call_that_makes_no_sense_is_refused(
    messages: list[Request], said: str, channel: grpc.Channel
) -> None:
    code, sentence = refusal(channel, messages)
    assert code == "INVALID_ARGUMENT", sentence
    assert said in sentence


def test_an_endless_push_without_a_picture_is_refused(client: Client) -> None:
    nothing = endless([at(n, b"\0\0\1\x41" + bytes(50)) for n in range(16)])
    code, said = refused(client, nothing, PushFormat(Codec.H264))
    assert (code, "300 frames in a row gave no picture" in said) == ("INVALID_ARGUMENT", True)


class peak_memory:  # noqa: N801  reads as a verb
    """How far the decode workers' memory rose in the block, in MB."""

    def __init__(self, server: ServerProcess) -> None:
        self._workers = decode_workers(server)

    def __enter__(self) -> Callable[[], int]:
        self._before = [_high_water(worker) for worker in self._workers]
        return lambda: max(
            _high_water(worker) - before
            for worker, before in zip(self._workers, self._before, strict=True)
        )

    def __exit__(self, *_: object) -> None:
        pass


def _high_water(process: psutil.Process) -> int:
    """Most memory that a process ever held, in MB."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) // 1024
    raise AssertionError(f"no VmHWM of {process.pid}")
