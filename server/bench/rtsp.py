"""RTSP as a camera speaks it: bytes to requests, and replies to bytes; pure.

Source: RFC 2326.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

MAX_REQUEST_BYTES = 16_384
_END_OF_HEAD = b"\r\n\r\n"
_FRAMING_BYTES = 4
_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    454: "Session Not Found",
    455: "Method Not Valid in This State",
    461: "Unsupported Transport",
    501: "Not Implemented",
}


class MalformedError(ValueError):
    """Bytes that are no RTSP."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a reader asks.

    Attributes:
        method: in capitals.
        url: as it was given.
        path: of the URL, without slashes around it.
        headers: by name in small letters.
    """

    method: str
    url: str
    path: str
    headers: Mapping[str, str]


class RequestParser:
    """Requests out of one connection's bytes, however these were cut.

    What the reader sends of RTCP between them is passed over.
    """

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[Request]:
        """Take bytes; give every request that is whole by now.

        Raises:
            MalformedError: they are no RTSP, or a request has no end.
        """
        self._rest += data
        while self._rest:
            if self._rest[:1] == b"$":
                size = _FRAMING_BYTES + int.from_bytes(self._rest[2:4], "big")
                if len(self._rest) < max(size, _FRAMING_BYTES):
                    return
                del self._rest[:size]
                continue
            request = self._take_request()
            if request is None:
                return
            yield request

    def _take_request(self) -> Request | None:
        end = self._rest.find(_END_OF_HEAD)
        if end < 0 and len(self._rest) <= MAX_REQUEST_BYTES:
            return None
        request = _parse_head(bytes(self._rest[: max(end, 0)]))
        length = request.headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or int(length) > MAX_REQUEST_BYTES:
            raise MalformedError(f"a body of {length!r} bytes")
        whole = end + len(_END_OF_HEAD) + int(length)
        if len(self._rest) < whole:
            return None
        del self._rest[:whole]
        return request


def _parse_head(head: bytes) -> Request:
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split()
    if len(words) != 3 or not words[2].startswith("RTSP/1."):
        raise MalformedError(f"no request line: {first[:80]!r}")
    try:
        path = urlsplit(words[1]).path.strip("/")
    except ValueError as error:
        raise MalformedError(f"no URL: {words[1][:80]!r} ({error})") from None
    pairs = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    return Request(words[0].upper(), words[1], path, headers)


def reply(
    request: Request | None,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    body: str = "",
) -> bytes:
    """An answer with the request's number; None where there was no request."""
    lines = [
        f"RTSP/1.0 {status} {_REASONS[status]}",
        f"CSeq: {request.headers.get('cseq', '0') if request else '0'}",
        *(f"{name}: {value}" for name, value in (headers or {}).items()),
    ]
    if body:
        lines.append(f"Content-Length: {len(body.encode())}")
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()
