"""Requests out of bytes, however a connection cuts them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.bench.rtsp import MAX_REQUEST_BYTES, MalformedError, Request, RequestParser, reply

NAMES = st.text("abcdefgh-", min_size=1, max_size=8)
REQUESTS = st.builds(
    lambda method, name, headers: Request(method, f"rtsp://h:554/{name}/", name, headers),
    st.sampled_from(["OPTIONS", "DESCRIBE", "SETUP", "PLAY", "TEARDOWN"]),
    NAMES,
    st.dictionaries(NAMES, NAMES, max_size=3),
)
REPORTS = st.binary(max_size=40).map(lambda data: b"$\1" + len(data).to_bytes(2, "big") + data)


def written(request: Request) -> bytes:
    lines = [f"{request.method} {request.url} RTSP/1.0"]
    lines += [f"{name}: {text}" for name, text in request.headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


@given(st.lists(st.one_of(REQUESTS, REPORTS)), st.integers(1, 50))
def test_requests_come_whole_between_reports_however_they_are_cut(
    items: list[Request | bytes], piece_bytes: int
) -> None:
    data = b"".join(item if isinstance(item, bytes) else written(item) for item in items)
    parser = RequestParser()
    pieces = [data[at : at + piece_bytes] for at in range(0, len(data), piece_bytes)]
    found = [request for piece in pieces for request in parser.feed(piece)]
    assert found == [item for item in items if isinstance(item, Request)]


def test_a_body_is_passed_over() -> None:
    data = b"GET_PARAMETER * RTSP/1.0\r\nContent-Length: 5\r\n\r\nhelloOPTIONS * RTSP/1.0\r\n\r\n"
    assert [request.method for request in RequestParser().feed(data)] == [
        "GET_PARAMETER",
        "OPTIONS",
    ]


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\r\n\r\n",
        b"PLAY rtsp://[/cam RTSP/1.0\r\n\r\n",
        b"PLAY * RTSP/1.0\r\nContent-Length: -1\r\n\r\n",
        b"PLAY * RTSP/1.0\r\nContent-Length: 99999999\r\n\r\n",
        b"x" * (MAX_REQUEST_BYTES + 1),
    ],
)
def test_what_is_no_rtsp_is_refused_and_never_kept(data: bytes) -> None:
    with pytest.raises(MalformedError):
        list(RequestParser().feed(data))


def test_a_reply_has_the_number_of_its_request() -> None:
    asked = Request("DESCRIBE", "rtsp://x/y", "y", {"cseq": "42"})
    assert reply(asked, body="v=0\r\n") == (
        b"RTSP/1.0 200 OK\r\nCSeq: 42\r\nContent-Length: 5\r\n\r\nv=0\r\n"
    )
    assert reply(asked, 461).startswith(b"RTSP/1.0 461 Unsupported Transport\r\nCSeq: 42\r\n")
