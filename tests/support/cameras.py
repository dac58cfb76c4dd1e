"""Cameras for tests: clips that move, a real RTSP server, a camera that pushes.

Each camera is a process of its own, so that it can be killed, frozen and
started again as real ones are.
"""

from __future__ import annotations

import json
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Self

import av
import numpy as np
from av.bitstream import BitStreamFilterContext

from tests.support.networks import CameraNetwork
from tests.support.programs import Part

SYSTEM_PYTHON = "/usr/bin/python3"
START_SECONDS = 20

_GST_SERVER = Path(__file__).with_name("gst_server.py")


def render_clip(
    path: Path,
    *,
    seconds: float = 2.0,
    fps: int = 25,
    size: tuple[int, int] = (160, 96),
    codec: str = "libx264",
) -> Path:
    """Encode a block that moves over noise, as a camera would: no B-frames, a key frame a second.

    `size` is (width, height) in pixels, both even.
    """
    width, height = size
    background = np.random.default_rng(0).integers(0, 60, (height, width, 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, fps)
        stream.codec_context.gop_size = fps
        if codec == "libx264":
            stream.options = {"preset": "veryfast", "tune": "zerolatency"}
        for index in range(round(seconds * fps)):
            image = background.copy()
            left = index * 7 % (width - width // 8)
            image[height // 4 : height // 2, left : left + width // 8] = 220
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_units(clip: Path, units: Path) -> Path:
    """Write a clip's H.264 access units, each after its length in four bytes."""
    with av.open(str(clip)) as container, units.open("wb") as file:
        stream = container.streams.video[0]
        to_annex_b = BitStreamFilterContext("h264_mp4toannexb", stream)
        for packet in container.demux(stream):
            for unit in to_annex_b.filter(packet if packet.size else None):
                file.write(struct.pack(">I", unit.size) + bytes(unit))
    return units


def units_of(clip: Path) -> Path:
    """A clip's access units, in a file beside it."""
    return write_units(clip, clip.with_suffix(".units"))


def join_units(parts: list[Path], units: Path) -> Path:
    """One file of access units after the other: a camera that changes in mid-stream."""
    units.write_bytes(b"".join(part.read_bytes() for part in parts))
    return units


def spoil_units(units: Path, spoiled: Path, *, seed: int) -> Path:
    """Overwrite half of the bytes of every third access unit; lengths stay."""
    data, at, number = bytearray(units.read_bytes()), 0, 0
    dice = np.random.default_rng(seed)
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        if number % 3 == 2:
            # The start code and type stay: the packets are formed well, what they say is not.
            places = at + 4 + 6 + np.flatnonzero(dice.random(max(0, length - 6)) < 0.5)
            for place in places:
                data[place] = int(dice.integers(256))
        at, number = at + 4 + length, number + 1
    spoiled.write_bytes(data)
    return spoiled


def free_port() -> int:
    """A TCP port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def mute_server(reply: bytes = b"") -> Iterator[int]:
    """A port that takes every connection, answers it once with `reply` and then says nothing."""
    listener = socket.create_server(("127.0.0.1", 0))
    taken: list[socket.socket] = []

    def take() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            taken.append(connection)
            if reply and connection.recv(4096):
                connection.sendall(reply)

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)
        for connection in taken:
            connection.close()


class RtspServer:
    """Debian's gst-rtsp-server, playing clips of H.264 for ever in real time.

    Args:
        mounts: clip, or file of access units, by path; it is played to all readers of
            its path alike.
        fps: frames a second that are sent.
        declared_fps: frames a second that the camera says it sends.
        user: with a password, readers must log in (digest).
        password: see `user`.
        launches: other paths, with what GStreamer shall play there.
        programs: other paths, with what is played there part by part.
        network: where it stands; here, on loopback, where none is given.
    """

    def __init__(
        self,
        mounts: dict[str, Path],
        *,
        user: str = "",
        password: str = "",
        launches: dict[str, str] | None = None,
        programs: dict[str, list[Part]] | None = None,
        network: CameraNetwork | None = None,
        fps: int = 25,
        declared_fps: int = 25,
    ) -> None:
        self._network = network
        self._host = network.address if network else "127.0.0.1"
        self._plan = {"fps": fps, "user": user, "password": password, "port": 0}
        self._plan["declared_fps"] = declared_fps
        self._plan["address"] = self._host
        self._plan["launches"] = launches or {}
        self._plan["programs"] = {
            path: [part.plan() for part in parts] for path, parts in (programs or {}).items()
        }
        self._plan["mounts"] = {
            path: str(clip if clip.suffix == ".units" else units_of(clip))
            for path, clip in mounts.items()
        }
        self.start()

    def start(self) -> None:
        """Start it, again on the port it had before."""
        self._process = subprocess.Popen(
            [*(self._network.prefix if self._network else []), SYSTEM_PYTHON, str(_GST_SERVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(self._plan) + "\n")
        self._process.stdin.flush()
        if not select.select([self._process.stdout], [], [], START_SECONDS)[0]:
            self.kill()
            raise AssertionError("gst-rtsp-server did not start")
        self._plan["port"] = int(self._process.stdout.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def port(self) -> int:
        return int(self._plan["port"])

    def url(self, path: str, user: str = "", password: str = "") -> str:
        """URL of a mount; the login is put in as given, so percent-encode it."""
        login = f"{user}:{password}@" if user else ""
        return f"rtsp://{login}{self._host}:{self.port}{path}"

    def kill(self) -> None:
        """End it without a word to its readers."""
        self._process.kill()
        self._process.wait(10)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def freeze(self) -> None:
        """Stop it in its tracks; its connections stay open."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)


class PushCamera:
    """A camera that pushes a clip to a LISTEN stream in real time, over and over."""

    def __init__(self, clip: Path, url: str, *, seconds: float = 60.0) -> None:
        command = [sys.executable, "-m", "server.demo.camera", "--clip", str(clip), "--url", url]
        self._process = subprocess.Popen(
            [*command, "--seconds", str(seconds)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        """Go without a word, as a camera that loses its power."""
        self._process.kill()
        self._process.wait(10)
