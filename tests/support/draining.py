"""Readers of RTSP cameras that decode nothing: raw sockets, RFC 2326 by hand."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Sequence
from typing import Self
from urllib.parse import urlsplit


def play(url: str) -> socket.socket:
    """Ask for a camera's packets inside the connection; its last answer may be cut short."""
    place = urlsplit(url)
    assert place.hostname is not None
    connection = socket.create_connection((place.hostname, place.port or 554), timeout=20)
    track = f"{url}/track"
    ask(connection, f"SETUP {track} RTSP/1.0", "Transport: RTP/AVP/TCP;unicast;interleaved=0-1")
    session = "Session: " + _session(connection)
    ask(connection, f"PLAY {url} RTSP/1.0", session)
    return connection


def ask(connection: socket.socket, line: str, *headers: str) -> None:
    """Send a request, answered or not."""
    connection.sendall("\r\n".join([line, "CSeq: 1", *headers, "", ""]).encode())


def read_reply(connection: socket.socket) -> str:
    """The next answer's head, where nothing but answers comes."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        assert byte, f"hung up after {head!r}"
        head += byte
    return head.decode()


def _session(connection: socket.socket) -> str:
    head = read_reply(connection)
    assert " 200 OK" in head, head
    return head.split("Session: ")[1].split(";")[0]


class Drain:
    """Plays cameras and throws away what they send, on one thread."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = urls
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._selector = selectors.DefaultSelector()
        for url in self._urls:
            self._selector.register(play(url), selectors.EVENT_READ)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join(10)
        for key in list(self._selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._selector.close()

    def _run(self) -> None:
        while not self._stopped.is_set():
            for key, _ in self._selector.select(0.2):
                assert isinstance(key.fileobj, socket.socket)
                key.fileobj.recv(1 << 20)
