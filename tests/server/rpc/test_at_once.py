"""Clients that want the same at once, or hang up midway: nothing is lost, doubled or half done."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import grpc
from google.protobuf.message import Message
from gvvad.v1 import stream_pb2

from server.rpc.client import ClientError, StreamChange
from server.streams import SourceUrl, StreamConfig
from tests.support.caller import changed


def create(stream_id: str) -> stream_pb2.CreateStreamRequest:
    stream = stream_pb2.Stream(url="rtsp://127.0.0.1:1/a")
    return stream_pb2.CreateStreamRequest(stream_id=stream_id, stream=stream)


def test_of_many_who_create_one_id_exactly_one_succeeds(streams) -> None:
    calls = [streams.CreateStream.future(create("cam"), timeout=10) for _ in range(12)]
    codes = sorted(call.code().name for call in calls)
    assert codes == ["ALREADY_EXISTS"] * 11 + ["OK"]


def test_of_many_who_delete_one_stream_exactly_one_succeeds(streams) -> None:
    request = stream_pb2.DeleteStreamRequest(name="streams/door")
    calls = [streams.DeleteStream.future(request, timeout=10) for _ in range(12)]
    assert sorted(call.code().name for call in calls) == ["NOT_FOUND"] * 11 + ["OK"]


def test_of_many_who_update_one_field_one_wins_and_all_are_answered(streams) -> None:
    wanted = [number / 10 for number in range(1, 10)]
    calls = [
        streams.UpdateStream.future(changed(["open_threshold"], open_threshold=value), timeout=10)
        for value in wanted
    ]
    assert [call.result().open_threshold for call in calls] == wanted
    shown = streams.GetStream(stream_pb2.GetStreamRequest(name="streams/door"), timeout=10)
    assert shown.open_threshold in wanted


def test_two_who_update_different_fields_undo_nothing_of_each_other(streams) -> None:
    for round_number in range(1, 11):
        url, threshold = f"rtsp://127.0.0.1:1/{round_number}", round_number / 10
        calls = [
            streams.UpdateStream.future(changed(["url"], url=url), timeout=10),
            streams.UpdateStream.future(
                changed(["open_threshold"], open_threshold=threshold), timeout=10
            ),
        ]
        assert [call.code().name for call in calls] == ["OK", "OK"]
        shown = streams.GetStream(stream_pb2.GetStreamRequest(name="streams/door"), timeout=10)
        assert (shown.url, shown.open_threshold) == (url, threshold)


def test_a_client_that_hangs_up_leaves_no_stream_half_done(streams, whole_server) -> None:
    config = StreamConfig("cam", SourceUrl("rtsp://127.0.0.1:1/a"))
    gone = stream_pb2.DeleteStreamRequest(name="streams/cam")
    with whole_server.client() as client:
        for number in range(40):
            seconds = 0.0005 + 0.0001 * number
            hang_up(streams.CreateStream, create("cam"), seconds)
            assert code(lambda: client.create(config)) in {"OK", "ALREADY_EXISTS"}
            hang_up(streams.DeleteStream, gone, seconds)
            change = StreamChange(open_threshold=0.5)
            assert code(lambda change=change: client.update("cam", change)) in {"OK", "NOT_FOUND"}
            assert code(lambda: client.delete("cam")) in {"OK", "NOT_FOUND"}


def hang_up(call: grpc.UnaryUnaryMultiCallable, request: Message, seconds: float) -> None:
    with contextlib.suppress(grpc.RpcError):
        call(request, timeout=seconds)


def code(call: Callable[[], object]) -> str:
    try:
        call()
    except ClientError as error:
        return error.code
    return "OK"
