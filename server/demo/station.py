"""A demo camera that stays: it pushes a clip, or the rendered scene, until it is stopped.

`gvvad demo-camera STREAM URL` registers a LISTEN stream at the server if there is
none of that id, then pushes to URL for ever. It waits for a server that is not
there yet and comes back whenever it was hung up on.
"""

from __future__ import annotations

import logging
import math
import signal
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

from server.demo.camera import Target, Turn, push
from server.demo.scene import render_scene
from server.ingest.video import open_file, video_stream
from server.rpc.client import Client, ClientError
from server.streams import Mode, SourceUrl, StreamConfig

SCENE_SECONDS = 30.0
_PAUSE_SECONDS = 1.0
_CONNECT_SECONDS = 5.0
# What passes by itself: the server is not up yet, or full, or starting again.
_PASSING = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"})

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Station:
    """Where a demo camera stands.

    Attributes:
        server: HOST:PORT of its gRPC port.
        stream_id: the stream to push to, made where it is missing.
        url: rtsp://HOST:PORT/PATH to push to; on the server's side the same port and path.
        listen_host: address that the server listens on for it.
    """

    server: str
    stream_id: str
    url: SourceUrl
    listen_host: str

    @property
    def stream(self) -> StreamConfig:
        """What is registered at the server.

        Raises:
            ValueError: the id or the URL is none.
        """
        source = SourceUrl(f"rtsp://{self.listen_host}:{self.url.port}{self.url.path}")
        return StreamConfig(self.stream_id, source, Mode.LISTEN)


def run(station: Station, clip: Path | None) -> int:
    """Push until SIGTERM or SIGINT.

    Args:
        station: where to.
        clip: any video; None renders the demo's scene.

    Returns:
        The exit code, 0.

    Raises:
        ClientError: the server refuses the stream for good.
        SourceError: the clip cannot be read as video.
    """
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: _stop(stopped))
    try:
        with tempfile.TemporaryDirectory(prefix="gvvad-camera-") as scratch:
            if clip is None:
                clip = Path(scratch) / "scene.mp4"
                render_scene(clip, SCENE_SECONDS)
            with open_file(clip) as source:
                video_stream(source, str(clip))
            _register(station, stopped)
            _push_for_ever(clip, station, stopped)
    except _Stopped:
        pass
    return 0


class _Stopped(BaseException):
    """Raised by a signal, wherever the program is; no error of its own."""


def _stop(stopped: threading.Event) -> None:
    if not stopped.is_set():  # a second signal must not cut the first one's end short
        stopped.set()
        raise _Stopped


def _register(station: Station, stopped: threading.Event) -> None:
    while True:
        try:
            with Client(station.server) as client:
                client.create(station.stream)
            return
        except ClientError as error:
            if error.code == "ALREADY_EXISTS":
                return
            if error.code not in _PASSING:
                raise
            _logger.info("waiting for the server: %s", error.sentence)
        stopped.wait(_PAUSE_SECONDS)


def _push_for_ever(clip: Path, station: Station, stopped: threading.Event) -> None:
    target = Target(station.url.reveal(), _CONNECT_SECONDS)
    while True:
        try:
            push(clip, target, math.inf, _say)
        except OSError as error:
            _logger.info("%s does not take the stream: %s", station.url, error.strerror)
        stopped.wait(_PAUSE_SECONDS)


def _say(turn: Turn) -> None:
    if turn.turn == 0:
        _logger.info("pushing at %g frames a second", turn.fps)
