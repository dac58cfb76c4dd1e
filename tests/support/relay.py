"""A TCP relay before a camera that keeps what is asked of the camera."""

from __future__ import annotations

import socket
import threading
from typing import Self


class Relay:
    """Hands bytes on in both directions, whole sessions long.

    Attributes:
        asked: all that came from the server, RTSP requests in plain text.
    """

    def __init__(self, camera_port: int) -> None:
        self._camera_port = camera_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self.port = int(self._listener.getsockname()[1])
        self.asked = bytearray()
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for one in (self._listener, *self._sockets):
            _shut(one)
        for thread in self._threads:
            thread.join(5)
        for one in (self._listener, *self._sockets):
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                server, _ = self._listener.accept()
                camera = socket.create_connection(("127.0.0.1", self._camera_port), 5)
            except OSError:
                return
            camera.settimeout(None)
            self._sockets += [server, camera]
            for source, sink, kept in ((server, camera, self.asked), (camera, server, None)):
                thread = threading.Thread(target=_pass_on, args=[source, sink, kept], daemon=True)
                self._threads.append(thread)
                thread.start()


def _pass_on(source: socket.socket, sink: socket.socket, kept: bytearray | None) -> None:
    try:
        while piece := source.recv(65536):
            if kept is not None:
                kept += piece
            sink.sendall(piece)
    except OSError:
        pass  # one of the two broke off
    _shut(sink)


def _shut(one: socket.socket) -> None:
    try:
        one.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it was closed already
