"""A farm of cameras for measuring: real RTSP, in real time, from one process of its own."""

from __future__ import annotations

import json
import math
import os
import select
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import server

_START_SECONDS = 60.0
_ANSWER_SECONDS = 10.0
_END_SECONDS = 5.0


class FarmError(RuntimeError):
    """The cameras cannot be shown, or are not there any more; the message says why."""


@dataclass(frozen=True, slots=True)
class CameraSpec:
    """One camera.

    Attributes:
        path: of its URL; slashes around it do not count.
        clip: H.264 without B-frames, looped for ever.
        fps: frames a second that are sent, whatever the clip says.
    """

    path: str
    clip: Path
    fps: float

    def __post_init__(self) -> None:
        if not self.path.strip("/"):
            raise ValueError(f"path ({self.path!r}) must have a name in it, such as cam-1")
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise ValueError(f"fps ({self.fps}) must be over 0")


@dataclass(frozen=True, slots=True)
class FarmStats:
    """What the cameras have done so far.

    Attributes:
        cpu_seconds: processor time of the farm since its start.
        frames_sent: over all readers: two readers of one frame count twice.
        frames_refused: frames that a reader did not get because it did not read: those
            that its socket would not take, and those after them up to a key frame.
        lateness_p99_seconds: 99th percentile of how much after its time a frame was sent,
            since the figures were last asked for.
        readers: who watch a camera now.
    """

    cpu_seconds: float
    frames_sent: int
    frames_refused: int
    lateness_p99_seconds: float
    readers: int


class CameraFarm:
    """Cameras in a process of their own, which ends with this one however that ends.

    A new reader gets a camera's stream from its next key frame on. A reader that is too
    slow loses whole frames; the cameras never wait and the other readers notice nothing.

    Args:
        cameras: all of them; no path twice.
        seed: fixes where in its clip each camera is, and its numbers.

    Raises:
        ValueError: a path is given twice.
        FarmError: on entering: a clip cannot be shown.
    """

    def __init__(self, cameras: Sequence[CameraSpec], *, seed: int = 0) -> None:
        paths = [camera.path.strip("/") for camera in cameras]
        twice = sorted({path for path in paths if paths.count(path) > 1})
        if twice:
            raise ValueError(f"path {twice[0]} is given twice; give every camera its own")
        clips = sorted({str(camera.clip.resolve()) for camera in cameras})
        number = {clip: at for at, clip in enumerate(clips)}
        shown = [number[str(camera.clip.resolve())] for camera in cameras]
        rates = [camera.fps for camera in cameras]
        self._plan = {
            "seed": seed,
            "clips": clips,
            "cameras": list(zip(paths, shown, rates, strict=True)),
        }
        self._port = 0

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "server.bench.cameras"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # the terminal's Ctrl-C is for the parent alone
            env=_environment(),
        )
        try:
            answer = self._ask(json.dumps(self._plan), _START_SECONDS)
            if "error" in answer:
                raise FarmError(answer["error"])
        except BaseException:
            self._end()
            raise
        self._port = answer["port"]
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def url(self, path: str) -> str:
        """Where a camera can be read."""
        return f"rtsp://127.0.0.1:{self._port}/{path.strip('/')}"

    def stats(self) -> FarmStats:
        """The figures up to now.

        Raises:
            FarmError: the process has ended or does not answer.
        """
        return FarmStats(**self._ask("stats", _ANSWER_SECONDS))

    def _ask(self, line: str, timeout_seconds: float) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except (OSError, ValueError):  # it went by itself, or was let go of
            raise FarmError(f"the cameras' process (pid {self.pid}) has ended") from None
        if not select.select([self._process.stdout], [], [], timeout_seconds)[0]:
            raise FarmError(
                f"the cameras' process (pid {self.pid}) did not answer in {timeout_seconds:g} s"
            )
        answer = self._process.stdout.readline()
        if not answer:
            raise FarmError(f"the cameras' process (pid {self.pid}) has ended")
        content: dict[str, Any] = json.loads(answer)
        return content

    def _end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):  # it went first, and what was written never reached it
            self._process.stdin.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def _environment() -> dict[str, str]:
    """The parent's, with the project importable from wherever it stands."""
    package_root = str(Path(server.__file__).resolve().parent.parent)
    paths = [package_root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
