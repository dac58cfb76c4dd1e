"""StreamService through a real server on port 0, by the project's client and by bare stubs."""

from __future__ import annotations

from dataclasses import replace

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from gvvad.v1 import stream_pb2, stream_pb2_grpc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.rpc.client import Client, ClientError, StreamChange
from server.streams import (
    Mode,
    Reason,
    SourceUrl,
    StreamConfig,
    StreamState,
    StreamStatus,
    Transport,
)
from tests.support.served import Served

SECRET = "rtsp://joe:s3cret@cam.local:8554/live"
DOOR = StreamConfig("door", SourceUrl("rtsp://cam.local/live"))


@pytest.fixture
def stub(served: Served):
    with grpc.insecure_channel(served.address) as channel:
        yield stream_pb2_grpc.StreamServiceStub(channel)


def refused(call, request) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=10)
    return caught.value.code().name, caught.value.details()


def test_a_created_stream_comes_back_as_it_was_asked_for(client: Client) -> None:
    config = StreamConfig(
        "door-2", SourceUrl("rtsp://cam.local/live"), Mode.LISTEN, Transport.UDP, 0.75
    )
    created = client.create(config)
    assert created.config == config
    assert created.created_seconds == 1_700_000_000.5
    assert client.get("door-2") == created
    assert client.list() == [created]


def test_the_status_of_a_stream_comes_back_whole(client: Client, served: Served) -> None:
    client.create(DOOR)
    status = StreamStatus(
        StreamState.BACKING_OFF, Reason.STALE, "no frame for 5 s", 1234, 7, 1_700_000_123.25
    )
    view = replace(served.backend.views["door"], status=status, next_sequence=42, last_score=0.0)
    served.backend.views["door"] = view
    assert client.get("door") == view


@pytest.mark.parametrize("state", StreamState)
def test_every_state_has_its_message(client: Client, served: Served, state: StreamState) -> None:
    client.create(DOOR)
    served.backend.views["door"] = replace(served.backend.views["door"], status=StreamStatus(state))
    assert client.get("door").status.state is state


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_its_message(client: Client, served: Served, reason: Reason) -> None:
    client.create(DOOR)
    status = StreamStatus(StreamState.PARKED, reason, "why")
    served.backend.views["door"] = replace(served.backend.views["door"], status=status)
    assert client.get("door").status.reason is reason


def test_credentials_go_in_and_never_come_out(client: Client, served: Served) -> None:
    created = client.create(StreamConfig("door", SourceUrl(SECRET)))
    assert served.backend.views["door"].config.url.reveal() == SECRET
    leaky = StreamStatus(StreamState.PARKED, Reason.AUTH_FAILED, f"{SECRET} refused s3cret")
    served.backend.views["door"] = replace(served.backend.views["door"], status=leaky)
    shown = [created, client.get("door"), *client.list(), client.update("door", StreamChange())]
    for view in shown:
        assert view.config.url.reveal() == "rtsp://***@cam.local:8554/live"
        assert "s3cret" not in view.status.message


def test_a_stream_without_an_id_gets_one_of_the_server(stub) -> None:
    request = stream_pb2.CreateStreamRequest(stream=stream_pb2.Stream(url="rtsp://cam/a"))
    names = {stub.CreateStream(request, timeout=10).name for _ in range(2)}
    assert len(names) == 2
    assert all(
        stub.GetStream(stream_pb2.GetStreamRequest(name=name)).name == name for name in names
    )


@pytest.mark.parametrize(
    ("stream_id", "stream", "sentence"),
    [
        ("Door", {"url": "rtsp://cam/a"}, "stream_id ('Door') must be 1 to 63 of"),
        ("a" * 64, {"url": "rtsp://cam/a"}, "must be 1 to 63 of"),
        ("door", {}, "stream.url is required"),
        ("door", {"url": "exec:rm -rf /"}, "stream.url: "),
        ("door", {"url": "rtsp://" + "a" * 3000}, "stream.url has 3007 characters"),
        ("door", {"url": "rtsp://***@cam/a"}, "give the real ones"),
        ("door", {"url": "rtsp://cam/a", "mode": 9}, "stream.mode (9) must be"),
        ("door", {"url": "rtsp://cam/a", "transport": 9}, "stream.transport (9) must be"),
        ("door", {"url": "rtsp://cam/a", "open_threshold": 0.0}, "open_threshold (0.0) must be"),
        ("door", {"url": "rtsp://cam/a", "open_threshold": float("nan")}, "open_threshold (nan)"),
        ("door", {"url": "rtsps://cam/a", "mode": 2}, "LISTEN"),
    ],
)
def test_a_malformed_stream_is_refused_by_name(stub, stream_id, stream, sentence) -> None:
    request = stream_pb2.CreateStreamRequest(
        stream_id=stream_id, stream=stream_pb2.Stream(**stream)
    )
    code, details = refused(stub.CreateStream, request)
    assert code == "INVALID_ARGUMENT"
    assert sentence in details


def test_a_refused_url_does_not_show_its_password(stub) -> None:
    stream = stream_pb2.Stream(url="http://joe:s3cret@cam/a")
    request = stream_pb2.CreateStreamRequest(stream_id="door", stream=stream)
    code, details = refused(stub.CreateStream, request)
    assert code == "INVALID_ARGUMENT"
    assert "s3cret" not in details


@pytest.mark.parametrize("name", ["", "door", "streams/", "streams/Door", "cameras/door"])
def test_a_malformed_name_is_refused_everywhere(stub, name: str) -> None:
    update = stream_pb2.UpdateStreamRequest(stream=stream_pb2.Stream(name=name))
    for call, request in (
        (stub.GetStream, stream_pb2.GetStreamRequest(name=name)),
        (stub.DeleteStream, stream_pb2.DeleteStreamRequest(name=name)),
        (stub.UpdateStream, update),
    ):
        code, details = refused(call, request)
        assert code == "INVALID_ARGUMENT"
        assert repr(name) in details


def test_each_refusal_of_the_backend_has_its_code(client: Client, served: Served) -> None:
    client.create(DOOR)
    served.backend.max_streams = 1
    codes = {}
    for name, config in {
        "again": DOOR,
        "file": StreamConfig("f", SourceUrl("file:///etc/passwd")),
        "full": StreamConfig("second", DOOR.url),
    }.items():
        with pytest.raises(ClientError) as caught:
            client.create(config)
        codes[name] = caught.value.code
    assert codes == {
        "again": "ALREADY_EXISTS",
        "file": "PERMISSION_DENIED",
        "full": "RESOURCE_EXHAUSTED",
    }


def test_an_unknown_stream_is_not_found_everywhere(client: Client) -> None:
    for call in (
        lambda: client.get("ghost"),
        lambda: client.delete("ghost"),
        lambda: client.update("ghost", StreamChange(open_threshold=0.5)),
    ):
        with pytest.raises(ClientError, match="there is no stream ghost") as caught:
            call()
        assert caught.value.code == "NOT_FOUND"


def test_an_unforeseen_error_is_internal_and_tells_nothing(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ClientError) as caught:
        client.create(StreamConfig("fault", DOOR.url))
    assert caught.value.code == "INTERNAL"
    assert caught.value.sentence == "internal error; the server's log says more"
    assert "/gvvad.v1.StreamService/CreateStream failed" in caplog.text


def test_a_deleted_stream_is_gone(client: Client) -> None:
    client.create(DOOR)
    client.delete("door")
    assert client.list() == []


# Updates


def updated(stub, mask: list[str] | None, **fields) -> stream_pb2.Stream:
    return stub.UpdateStream(
        stream_pb2.UpdateStreamRequest(
            stream=stream_pb2.Stream(name="streams/door", **fields),
            update_mask=None if mask is None else FieldMask(paths=mask),
        ),
        timeout=10,
    )


@pytest.fixture
def door(client: Client, served: Served) -> StreamConfig:
    config = StreamConfig("door", SourceUrl(SECRET), Mode.PULL, Transport.UDP, 0.5)
    client.create(config)
    return config


def test_only_masked_fields_change(stub, served: Served, door: StreamConfig) -> None:
    updated(stub, ["open_threshold"], url="rtsp://other/", open_threshold=0.25)
    assert served.backend.views["door"].config == replace(door, open_threshold=0.25)


def test_a_masked_field_that_is_unset_goes_back_to_its_default(stub, served, door) -> None:
    updated(stub, ["open_threshold", "transport"])
    expected = replace(door, open_threshold=None, transport=Transport.TCP)
    assert served.backend.views["door"].config == expected


def test_without_a_mask_the_fields_that_are_set_change(stub, served, door) -> None:
    updated(stub, None, url="rtsp://other/a")
    assert served.backend.views["door"].config == replace(door, url=SourceUrl("rtsp://other/a"))


def test_a_star_replaces_all_but_an_absent_url(stub, served, door) -> None:
    updated(stub, ["*"])
    assert served.backend.views["door"].config == StreamConfig("door", SourceUrl(SECRET))


def test_the_url_as_the_api_showed_it_keeps_its_credentials(stub, served, door) -> None:
    shown = stub.GetStream(stream_pb2.GetStreamRequest(name="streams/door")).url
    updated(stub, ["url"], url=shown)
    assert served.backend.views["door"].config.url.reveal() == SECRET


@pytest.mark.parametrize(
    ("mask", "fields", "sentence"),
    [
        (["name"], {}, "update_mask path 'name' cannot be changed"),
        (["status.state"], {}, "update_mask path 'status.state' cannot be changed"),
        (["url"], {}, "stream.url"),
        (["url"], {"url": "rtsp://***@elsewhere/a"}, "give the real ones"),
        (["open_threshold"], {"open_threshold": 1.5}, "open_threshold (1.5)"),
    ],
)
def test_an_update_that_makes_no_sense_is_refused(stub, served, door, mask, fields, sentence):
    with pytest.raises(grpc.RpcError) as caught:
        updated(stub, mask, **fields)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert sentence in caught.value.details()
    assert served.backend.views["door"].config == door


def test_the_client_changes_what_it_names(client: Client, served: Served, door) -> None:
    change = StreamChange(SourceUrl("rtsp://new/a"), Mode.LISTEN, Transport.TCP, 0.9)
    client.update("door", change)
    expected = StreamConfig("door", SourceUrl("rtsp://new/a"), Mode.LISTEN, Transport.TCP, 0.9)
    assert served.backend.views["door"].config == expected
    client.update("door", StreamChange(bundle_threshold=True))
    assert served.backend.views["door"].config == replace(expected, open_threshold=None)


# Pages


def listed(stub, size: int) -> list[list[str]]:
    pages, token = [], ""
    while not pages or token:
        answer = stub.ListStreams(
            stream_pb2.ListStreamsRequest(page_size=size, page_token=token), timeout=10
        )
        pages.append([stream.name for stream in answer.streams])
        token = answer.next_page_token
    return pages


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    ids=st.sets(st.from_regex(r"[a-z0-9-]{1,8}", fullmatch=True), max_size=12),
    size=st.integers(1, 13),
)
def test_pages_hold_every_stream_once_in_order(stub, served, ids, size) -> None:
    served.backend.views.clear()
    for stream_id in ids:
        served.run(served.backend.create(replace(DOOR, stream_id=stream_id)))
    pages = listed(stub, size)
    listed_names = [name for page in pages for name in page]
    assert listed_names == [f"streams/{stream_id}" for stream_id in sorted(ids)]
    assert all(len(page) == size for page in pages[:-1])


def test_page_sizes_have_a_default_and_a_cap(stub, client, served) -> None:
    for number in range(205):
        served.run(served.backend.create(replace(DOOR, stream_id=f"s{number:03d}")))
    assert [len(page) for page in listed(stub, 0)] == [50, 50, 50, 50, 5]
    assert [len(page) for page in listed(stub, 1000)] == [200, 5]
    assert len(client.list()) == 205


@pytest.mark.parametrize("token", ["x", "!!", "c3RyZWFtcy9E", "caf\u00e9"])
def test_a_token_of_nobody_is_refused(stub, token: str) -> None:
    request = stream_pb2.ListStreamsRequest(page_token=token)
    code, details = refused(stub.ListStreams, request)
    assert code == "INVALID_ARGUMENT"
    assert "next_page_token of the page before" in details


def test_a_negative_page_size_is_refused(stub) -> None:
    request = stream_pb2.ListStreamsRequest(page_size=-1)
    assert refused(stub.ListStreams, request)[0] == "INVALID_ARGUMENT"
