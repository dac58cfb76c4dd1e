"""Whatever a client sends gets a precise answer, and the server stays well.

Against a real server in a process of its own, with its store and a decode worker.
Requests come from the protos' descriptors: a new method or field is tried as soon
as it stands in a proto.
"""

from __future__ import annotations

import base64
from pathlib import Path

import grpc
import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from gvvad.v1 import stream_pb2
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from server.rpc.server import SERVICES
from tests.support.any_message import SECRET, any_message, any_push
from tests.support.caller import CALL_SECONDS, changed, refused

PROTOS = Path(__file__).parents[3] / "protos"
POOL = descriptor_pool.Default()
METHODS = [method for name in SERVICES for method in POOL.FindServiceByName(name).methods]
PUSHES = [method for method in METHODS if method.client_streaming]
WATCHES = [method for method in METHODS if method.server_streaming and method not in PUSHES]
CALLS = [method for method in METHODS if method not in (*WATCHES, *PUSHES)]

# UNAVAILABLE is documented too, for a server that stops or cannot write; this one is well.
REFUSALS = {
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "OUT_OF_RANGE",
}
LARGEST_REQUEST = 64 * 1024

few = settings(max_examples=150, deadline=None, derandomize=True)
many = settings(max_examples=400, deadline=None, derandomize=True)


def name(method: MethodDescriptor) -> str:
    return str(method.name)


# Any message


def test_every_method_of_every_proto_is_tried() -> None:
    files = [POOL.FindFileByName(f"gvvad/v1/{path.name}") for path in PROTOS.rglob("*.proto")]
    declared = {service.full_name for file in files for service in file.services_by_name.values()}
    assert declared == set(SERVICES)


def assert_precise(caller, method: MethodDescriptor, data: st.DataObject) -> None:
    one = any_message(method.input_type).map(lambda request: [request])
    requests = data.draw(any_push(method.input_type) if method in PUSHES else one)
    assume(max(request.ByteSize() for request in requests) <= LARGEST_REQUEST)
    answer = caller.send(method, *requests)
    event(answer.code)
    # A watch that stands ends by its deadline.
    if answer.code != ("DEADLINE_EXCEEDED" if method in WATCHES else "OK"):
        assert answer.code in REFUSALS, answer
        assert answer.sentence, answer
        assert SECRET not in answer.sentence
    caller.assert_well_and_tidy_up()


@pytest.mark.parametrize("method", CALLS, ids=name)
@few
@given(data=st.data())
def test_any_request_gets_a_precise_answer(caller, method, data) -> None:
    assert_precise(caller, method, data)


@pytest.mark.parametrize("method", WATCHES, ids=name)
@settings(few, max_examples=40)
@given(data=st.data())
def test_any_watch_stands_or_gets_a_precise_answer(caller, method, data) -> None:
    assert_precise(caller, method, data)


@pytest.mark.parametrize("method", PUSHES, ids=name)
@few
@given(data=st.data())
def test_any_push_gets_a_precise_answer(caller, method, data) -> None:
    assert_precise(caller, method, data)


@pytest.mark.long
@pytest.mark.parametrize("method", [*CALLS, *PUSHES], ids=name)
@many
@given(data=st.data())
def test_very_many_requests_get_precise_answers(caller, method, data) -> None:
    assert_precise(caller, method, data)


# Bytes


@pytest.mark.parametrize("method", METHODS, ids=name)
@pytest.mark.parametrize(
    "raw", [b"\xff\xff\xff", b"\x0a\xff\xff\xff\xff\x0f", b"\x0b"], ids=["noise", "length", "group"]
)
def test_bytes_that_are_no_message_are_refused(caller, method, raw: bytes) -> None:
    answer = caller.send(method, raw)
    assert answer.code == "INVALID_ARGUMENT"
    assert "the request cannot be read" in (answer.sentence or "")
    assert method.input_type.full_name in answer.details
    caller.assert_well_and_tidy_up()


def test_text_that_is_no_utf8_is_refused(caller) -> None:
    get = POOL.FindMethodByName("gvvad.v1.StreamService.GetStream")
    answer = caller.send(get, b"\x0a\x02\xff\xfe")
    assert (answer.code, answer.sentence) == ("INVALID_ARGUMENT", answer.details)


@settings(few, max_examples=300)
@given(method=st.sampled_from(CALLS), raw=st.binary(max_size=40))
def test_any_bytes_get_a_precise_answer(caller, method, raw: bytes) -> None:
    answer = caller.send(method, raw)
    assert answer.code in {"OK"} | REFUSALS
    assert answer.sentence or answer.code == "OK"


@pytest.mark.parametrize(
    "path", ["/gvvad.v1.StreamService/Nope", "/gvvad.v9.StreamService/GetStream", "/", "/x/y/z"]
)
def test_a_method_that_is_none_is_unimplemented(caller, path: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        caller.channel.unary_unary(path)(b"", timeout=CALL_SECONDS)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    caller.assert_well_and_tidy_up()


# Single fields


LONG = ["x" * 30_000, "\U0001f600" * 12_000]


@pytest.mark.parametrize("long", LONG, ids=["ascii", "emoji"])
@pytest.mark.parametrize(
    ("method", "field"),
    [
        ("CreateStream", "stream_id"),
        ("CreateStream", "stream.url"),
        ("GetStream", "name"),
        ("ListStreams", "page_token"),
        ("UpdateStream", "stream.name"),
        ("DeleteStream", "name"),
        ("WatchScores", "stream"),
        ("WatchAlerts", "stream"),
        ("ListDeliveries", "sink"),
        ("ListDeliveries", "page_token"),
        ("ReplayDeliveries", "sink"),
        ("WatchAlerts", "cursor"),
        ("ListAlerts", "stream"),
        ("ListAlerts", "page_token"),
        ("GetAlert", "alert_id"),
        ("AcknowledgeAlert", "alert_id"),
        ("ScoreVideo", "start.stream"),
        ("ScoreVideo", "start.temporary_stream_id"),
    ],
)
def test_text_of_any_length_is_refused_by_the_fields_name(
    caller, method: str, field: str, long: str
) -> None:
    found = next(found for found in METHODS if found.name == method)
    request = GetMessageClass(found.input_type)()
    *parts, last = field.split(".")
    setattr(getattr(request, parts[0]) if parts else request, last, long)
    answer = caller.send(found, request)
    assert answer.code == "INVALID_ARGUMENT"
    assert answer.sentence
    assert answer.sentence.startswith(field)
    assert "must" in answer.sentence


@pytest.mark.parametrize("long", LONG, ids=["ascii", "emoji"])
def test_a_mask_path_of_any_length_is_refused(streams, long: str) -> None:
    answer = refused(streams.UpdateStream, changed([long], mode=1))
    assert (answer.code, answer.sentence) == ("INVALID_ARGUMENT", answer.details)
    assert "name any of url, mode" in answer.details


def test_a_file_that_is_denied_is_so_whatever_its_name(streams) -> None:
    for path in ("\U0001f600" * 2_000, "etc/" + "x" * 2_000):
        request = stream_pb2.CreateStreamRequest(stream=stream_pb2.Stream(url=f"file:///{path}"))
        answer = refused(streams.CreateStream, request)
        assert (answer.code, answer.sentence) == ("PERMISSION_DENIED", answer.details)
        assert answer.details.endswith("that the settings allow files from")


@pytest.mark.parametrize("url", ["file:///nonexistent/clips/%00", "rtsp://127.0.0.1:1/%00"])
def test_a_zero_in_a_url_is_refused(streams, url: str) -> None:
    request = stream_pb2.CreateStreamRequest(stream=stream_pb2.Stream(url=url))
    answer = refused(streams.CreateStream, request)
    assert answer.code == "INVALID_ARGUMENT"
    assert (answer.sentence or "").startswith("stream.url: ")


@pytest.mark.parametrize("field", ["mode", "transport"])
@pytest.mark.parametrize("number", [99, -1])
def test_an_update_to_an_enum_that_is_none_is_refused(streams, field: str, number: int) -> None:
    answer = refused(streams.UpdateStream, changed([field], **{field: number}))
    assert answer.code == "INVALID_ARGUMENT"
    assert f"stream.{field} ({number}) must be" in answer.details


def test_url_and_mode_of_an_update_are_judged_together(streams) -> None:
    tls = {"name": "streams/yard", "url": "rtsps://127.0.0.1:1/a"}
    answer = refused(streams.UpdateStream, changed(["url"], **tls))
    assert answer.code == "INVALID_ARGUMENT"
    assert "LISTEN mode takes an rtsp:// URL" in answer.details
    updated = streams.UpdateStream(changed(["url", "mode"], **tls, mode=1), timeout=10)
    assert (updated.mode, updated.url) == (stream_pb2.MODE_PULL, tls["url"])


def test_a_url_with_its_query_password_redacted_is_not_taken_for_the_password(streams) -> None:
    secret = f"rtsp://127.0.0.1:1/a?password={SECRET}&channel=1"
    shown = streams.UpdateStream(changed(["url"], url=secret), timeout=10).url
    assert shown == "rtsp://127.0.0.1:1/a?password=***&channel=1"
    assert streams.UpdateStream(changed(["url"], url=shown), timeout=10).url == shown
    answer = refused(streams.UpdateStream, changed(["url"], url=shown.replace("=1", "=2")))
    assert answer.code == "INVALID_ARGUMENT"
    assert "give the real ones" in answer.details


@pytest.mark.parametrize("name", [b"streams/", b"streams/Door", b"\xff\xfe", b"cameras/door"])
def test_a_forged_page_token_is_refused(streams, name: bytes) -> None:
    token = base64.urlsafe_b64encode(name).decode()
    answer = refused(streams.ListStreams, stream_pb2.ListStreamsRequest(page_token=token))
    assert answer.code == "INVALID_ARGUMENT"
    assert "next_page_token of the page before" in answer.details


def test_a_page_token_with_something_between_is_refused(streams) -> None:
    token = base64.urlsafe_b64encode(b"streams/door").decode()
    request = stream_pb2.ListStreamsRequest(page_token=f"{token[:4]} !{token[4:]}")
    assert refused(streams.ListStreams, request).code == "INVALID_ARGUMENT"


def test_a_page_may_follow_a_stream_that_is_gone(streams) -> None:
    token = base64.urlsafe_b64encode(b"streams/i").decode()
    page = streams.ListStreams(stream_pb2.ListStreamsRequest(page_token=token), timeout=10)
    assert [stream.name for stream in page.streams] == ["streams/yard"]
