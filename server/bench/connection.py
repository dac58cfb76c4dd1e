"""One reader's connection to the cameras: RTSP, and a camera's packets inside it."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from server.bench.pacer import Camera, Pacer
from server.bench.rtsp import MalformedError, Request, RequestParser, reply

SEND_BUFFER_BYTES = 212_992
"""Asked of the kernel for each reader, which doubles it: more than any key frame has."""

SESSION_SECONDS = 60
_TRACK = "/track"
_METHODS = "OPTIONS, DESCRIBE, SETUP, PLAY, GET_PARAMETER, TEARDOWN"


@dataclass(slots=True)
class Counts:
    """What became of frames, over all readers.

    Attributes:
        sent: given to a reader whole.
        refused: not given to a reader that was watching: its socket was full, or it waited
            for the next key frame after that.
    """

    sent: int = 0
    refused: int = 0


@dataclass(frozen=True, slots=True)
class Site:
    """All that readers can watch.

    Attributes:
        cameras: by path, without slashes around it.
        pacer: shows them.
        counts: of all readers.
        connections: that are open.
    """

    cameras: Mapping[str, Camera]
    pacer: Pacer
    counts: Counts
    connections: set[Connection]

    @property
    def readers(self) -> int:
        """Who watches now."""
        return sum(len(camera.readers) for camera in self.cameras.values())


class Connection(asyncio.Protocol):
    """A reader, as `Pacer` sees it, and its RTSP session.

    The camera never waits: while the kernel has not taken a frame whole, those after
    it are left out, whole, and so is what refers to them, up to the next key frame. So
    the reader gets intact packets, sees by their numbers that some are missing, and
    decodes no smeared pictures; cameras over TCP do the same.

    Args:
        site: what it can watch.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._parser = RequestParser()
        self._session = secrets.token_hex(4)
        self._set_up: Camera | None = None
        self._watched: Camera | None = None
        self._has_begun = self._in_step = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; bound what it holds back."""
        self._transport = cast(asyncio.Transport, transport)
        connected: socket.socket = transport.get_extra_info("socket")
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self._site.connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        """The reader has gone."""
        self._leave()
        self._site.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        """Answer every whole request."""
        try:
            for request in self._parser.feed(data):
                self._transport.write(self._answer(request))
                if request.method == "TEARDOWN":
                    self._transport.close()
                    return
        except MalformedError:
            self._transport.write(reply(None, 400))
            self._transport.close()

    def offer(self, frame: bytes | bytearray, *, is_key: bool) -> None:
        """Send a frame, unless the last one is still on its way or a key frame is missing."""
        if self._transport.get_write_buffer_size():
            self._in_step = False
        elif is_key:
            self._has_begun = self._in_step = True
        if self._in_step:
            self._transport.write(frame)
            self._site.counts.sent += 1
        elif self._has_begun:
            self._site.counts.refused += 1

    def _answer(self, request: Request) -> bytes:
        match request.method:
            case "OPTIONS":
                return reply(request, headers={"Public": _METHODS})
            case "DESCRIBE":
                return self._describe(request)
            case "SETUP":
                return self._set_up_transport(request)
            case "PLAY" | "GET_PARAMETER" | "TEARDOWN":
                return self._answer_in_session(request)
        return reply(request, 501)

    def _describe(self, request: Request) -> bytes:
        camera = self._camera(request)
        if camera is None:
            return reply(request, 404)
        address = self._transport.get_extra_info("sockname")[0]
        headers = {"Content-Type": "application/sdp", "Content-Base": f"{request.url}/"}
        return reply(request, headers=headers, body=camera.stream.description(address))

    def _set_up_transport(self, request: Request) -> bytes:
        camera = self._camera(request)
        if camera is None:
            return reply(request, 404)
        if "RTP/AVP/TCP" not in request.headers.get("transport", ""):
            return reply(request, 461)
        if self._watched is not None:
            return reply(request, 455)
        self._set_up = camera
        transport = f"RTP/AVP/TCP;unicast;interleaved=0-1;ssrc={camera.stream.ssrc:08X}"
        session = f"{self._session};timeout={SESSION_SECONDS}"
        return reply(request, headers={"Transport": transport, "Session": session})

    def _answer_in_session(self, request: Request) -> bytes:
        given = request.headers.get("session")
        if request.method == "GET_PARAMETER" and given is None:
            return reply(request)  # it asks whether anybody is there
        if self._set_up is None or given is None or given.split(";")[0] != self._session:
            return reply(request, 454)
        headers = {"Session": self._session}
        if request.method == "PLAY" and self._watched is None:
            headers |= self._play(self._set_up, request)
        return reply(request, headers=headers)

    def _play(self, camera: Camera, request: Request) -> dict[str, str]:
        self._watched = camera
        first, stream = self._site.pacer.join(camera, self), camera.stream
        track = request.url.rstrip("/") + _TRACK
        numbers = f"seq={stream.sequence(first)};rtptime={stream.timestamp(first)}"
        return {"Range": "npt=now-", "RTP-Info": f"url={track};{numbers}"}

    def _leave(self) -> None:
        if self._watched is not None:
            self._watched.readers.discard(self)

    def _camera(self, request: Request) -> Camera | None:
        return self._site.cameras.get(request.path.removesuffix(_TRACK))
