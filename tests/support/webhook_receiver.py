"""A real HTTP server that takes events, well or badly, as it is told.

    with receiving(unwell, well) as receiver:
        ...  # receiver.url; afterwards receiver.taken

The first behaviour answers the first request, and so on; the last one answers all that
follow. What is answered by 2xx counts as taken.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import random
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

STALE_SECONDS = 300


@dataclass(frozen=True)
class Request:
    """What came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        content = json.loads(self.body)
        assert isinstance(content, dict)
        return content

    @property
    def kind(self) -> str:
        return str(self.event["type"]).rpartition(".")[2]

    @property
    def alert(self) -> str:
        return str(self.event["data"]["alert_id"])

    def is_signed_with(self, secret: bytes) -> bool:
        """Checked as a receiver would, with nothing of the sender's code."""
        if abs(time.time() - int(self.headers["webhook-timestamp"])) > STALE_SECONDS:
            return False
        signed = b".".join(
            [
                self.headers["webhook-id"].encode(),
                self.headers["webhook-timestamp"].encode(),
                self.body,
            ]
        )
        expected = base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
        given = self.headers["webhook-signature"].split(" ")
        return any(hmac.compare_digest(f"v1,{expected}", one) for one in given)


@dataclass(frozen=True)
class Reply:
    """What goes back; a status of 0: nothing ever does. Raw bytes come instead of a reply."""

    status: int = 204
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    drip_seconds: float = 0.0


Behaviour = Callable[[Request], Reply]


def well(_: Request) -> Reply:
    return Reply()


def hangs(_: Request) -> Reply:
    return Reply(status=0)


def garbage(_: Request) -> Reply:
    return Reply(raw=b"\x00\xffthis is no HTTP\r\n\r\n")


def drips(_: Request) -> Reply:
    """A head that never ends, a byte at a time."""
    return Reply(raw=b"HTTP/1.1 200 OK\r\nx: " + b"y" * 1000, drip_seconds=0.05)


def talks_for_ever(_: Request) -> Reply:
    """200, and then a body without end."""
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n"
    return Reply(raw=head + b"x" * 1000, drip_seconds=0.05)


def says(status: int, **headers: str) -> Behaviour:
    shown = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: Reply(status, shown)


def fails_half_the_time(rng: random.Random) -> Behaviour:
    """Refuses or breaks off; half of the time after it has noted the event."""
    return lambda _: Reply() if rng.random() < 0.5 else Reply(rng.choice([500, 503]))


@dataclass
class Receiver:
    """A running receiver and what came to it."""

    behaviours: list[Behaviour]
    requests: list[Request] = field(default_factory=list)
    taken: list[Request] = field(default_factory=list)
    port: int = 0
    secure: bool = False
    changed: threading.Condition = field(default_factory=threading.Condition)
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http{'s' if self.secure else ''}://localhost:{self.port}/hook"

    def take(self, request: Request) -> Reply:
        with self.changed:
            self.requests.append(request)
            behaviour = self.behaviours.pop(0) if len(self.behaviours) > 1 else self.behaviours[0]
            reply = behaviour(request)
            if 200 <= reply.status < 300 and reply.raw is None:
                self.taken.append(request)
            self.changed.notify_all()
        return reply

    def wait_for(self, reached: Callable[[Receiver], bool], seconds: float = 20) -> None:
        """Until what came is enough."""
        with self.changed:
            assert self.changed.wait_for(lambda: reached(self), seconds), (
                f"{len(self.requests)} came, {len(self.taken)} were taken"
            )


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int, receiver: Receiver) -> None:
        super().__init__(("localhost", port), _Handler)
        self.receiver = receiver

    def handle_error(self, *_: object) -> None:
        pass  # clients that hang up are what is tested


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        length = int(self.headers["content-length"])
        body = self.rfile.read(length)
        if len(body) < length:
            return  # the sender was killed
        headers = {name.lower(): value for name, value in self.headers.items()}
        self._answer(self.server.receiver.take(Request(self.path, headers, body)))

    def do_GET(self) -> None:
        self._answer(self.server.receiver.take(Request(self.path, {}, b"")))

    def _answer(self, reply: Reply) -> None:
        if reply.raw is not None:
            self._drip(reply.raw, reply.drip_seconds)
        elif reply.status == 0:
            self.server.receiver.over.wait()
            self.close_connection = True
        else:
            self.send_response(reply.status)
            for name, value in ({"content-length": "0"} | reply.headers).items():
                self.send_header(name, value)
            self.end_headers()

    def _drip(self, raw: bytes, seconds: float) -> None:
        """All of it at once, or its head at once and the rest byte by byte."""
        self.close_connection = True
        head, empty_line, rest = raw.partition(b"\r\n\r\n")
        at_once, slowly = (head + empty_line, rest) if rest else (b"", raw)
        self.wfile.write(at_once if seconds else raw)
        for byte in slowly if seconds else b"":
            if self.server.receiver.over.wait(seconds):
                return
            self.wfile.write(bytes([byte]))

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def receiving(
    *behaviours: Behaviour, certificate: Path | None = None, port: int = 0
) -> Iterator[Receiver]:
    """A receiver on a port of this machine, with TLS where there is a certificate with key."""
    receiver = Receiver(list(behaviours), secure=certificate is not None)
    server = _Server(port, receiver)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    receiver.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield receiver
    finally:
        receiver.over.set()
        server.shutdown()
        thread.join(timeout=5)
        server.server_close()
