"""What one would write on a Sunday: cameras to scores with OpenCV, Pillow and torch.

    python -m tests.bench.naive SOURCE... [--cameras N] [--seconds N] [--threads N]

A thread a camera reads frames, keeps those of the detector's rate by counting, has Pillow make
them small, and runs the network in torch, eager, one window at a time. There is no lock around
it: modules in eval mode need none. It prints every score and, in the last line, what it was
worth, in JSON. Encoder and head have the very weights of the bundle that the server runs.

OpenCV reads ahead and tells nobody. So there are two latencies: from `read` to the score, which
such a program would print, and from when the frame was due by the camera's own clock, which is
what an operator waits. Files come as fast as they are read, so only the first is told of them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from server.bundle import DEFAULT_BUNDLE, Bundle, BundleError, load_bundle
from server.contract import WINDOW_FRAMES
from tests.bench.naive_model import torch_encoder, torch_head

LATE_SECONDS = 1.0
"""A window that is scored so long after it was due is late."""

_BEGIN_SECONDS = 60.0
_STOP_SECONDS = 5.0
_USUAL_FPS = 25.0
_PSS = re.compile(r"^Pss:\s+(\d+) kB$", re.MULTILINE)

Scorer = Callable[[list[np.ndarray]], float]


@dataclass(frozen=True, slots=True)
class Scored:
    """When a window was read, scored, and shown in the camera's own clock; in seconds."""

    read_seconds: float
    scored_seconds: float
    shown_seconds: float


@dataclass(slots=True)
class Camera:
    """What one thread did.

    Attributes:
        source: URL or file.
        windows: that it scored.
        head_start_seconds: the least by which a frame came after the time it shows.
        failure: why it ended by itself.
    """

    source: str
    windows: list[Scored] = field(default_factory=list)
    head_start_seconds: float = math.inf
    failure: str | None = None

    @property
    def is_live(self) -> bool:
        """Whether frames come in real time."""
        return "://" in self.source and not self.source.startswith("file:")

    def behind_seconds(self, window: Scored) -> float:
        """From when the window's last frame was due until its score.

        A frame was due when it would have come as early as the earliest did: a program that has
        been behind from its first frame on is told better than it is.
        """
        return window.scored_seconds - window.shown_seconds - self.head_start_seconds


class Program:
    """The model that all threads share."""

    def __init__(self, bundle: Bundle) -> None:
        self.encoder, self.head = torch_encoder(bundle), torch_head(bundle)
        window, size = bundle.manifest.window, bundle.manifest.preprocess
        self.fps, self.size = window.fps, (size.width, size.height)
        self.stopping = False

    def scorer(self) -> Scorer:
        """Scores one camera's windows, the first from a state of zeros."""
        state = [torch.zeros(1, *shape) for shape in self.head.spec.states.values()]

        @torch.inference_mode()
        def score(images: list[np.ndarray]) -> float:
            window = torch.from_numpy(np.stack(images)[None])
            found, *state[:] = self.head(self.encoder(window), *state)
            return float(found)

        return score

    def watch(self, camera: Camera) -> None:
        """Read, resize, score, print, until the program stops."""
        capture = cv2.VideoCapture(camera.source)
        if not capture.isOpened():
            camera.failure = "OpenCV cannot open it"
            return
        fps = _sensible(capture.get(cv2.CAP_PROP_FPS))
        rate, score, images = self.fps or fps, self.scorer(), []
        counted = taken = 0
        while not self.stopping:
            there, frame = capture.read()
            read_seconds = time.monotonic()
            if not there:
                if camera.is_live or not counted:
                    camera.failure = "no frame came"
                    return
                capture.set(cv2.CAP_PROP_POS_FRAMES, 0)  # a file begins again
                continue
            shown_seconds = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            ahead_seconds = read_seconds - shown_seconds
            camera.head_start_seconds = min(camera.head_start_seconds, ahead_seconds)
            if counted * rate >= taken * fps:
                taken += 1
                picture = Image.fromarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
                images.append(np.asarray(picture.resize(self.size)))
            counted += 1
            if len(images) == WINDOW_FRAMES:
                print(f"{camera.source}: {score(images):.3f}")
                camera.windows.append(Scored(read_seconds, time.monotonic(), shown_seconds))
                images = []


def _sensible(fps: float) -> float:
    """What OpenCV says of a live stream's rate may be anything."""
    return fps if 1 <= fps <= 120 else _USUAL_FPS


def run(program: Program, sources: Sequence[str], seconds: float) -> dict[str, float | None]:
    """Watch all cameras for so long, once each has had a window.

    Raises:
        RuntimeError: a camera gave nothing.
    """
    program.scorer()([np.zeros((*program.size[::-1], 3), np.uint8)] * WINDOW_FRAMES)
    before_bytes = _pss_bytes()
    cameras = [Camera(source) for source in sources]
    threads = [
        threading.Thread(target=program.watch, args=(camera,), daemon=True) for camera in cameras
    ]
    for thread in threads:
        thread.start()
    _wait_for_all(cameras)
    began_seconds, began_cpu_seconds = time.monotonic(), time.process_time()
    time.sleep(seconds)
    ended_seconds, cpu_seconds = time.monotonic(), time.process_time() - began_cpu_seconds
    added_bytes = _pss_bytes() - before_bytes
    program.stopping = True
    for thread in threads:
        thread.join(_STOP_SECONDS)  # so that no score is printed after the last line
    for camera in cameras:
        camera.windows = [
            one for one in camera.windows if began_seconds < one.scored_seconds <= ended_seconds
        ]
    return {
        **_figures(cameras, ended_seconds - began_seconds, program.fps or _USUAL_FPS),
        "pss_bytes_per_camera": added_bytes / len(cameras),
        "cores": cpu_seconds / (ended_seconds - began_seconds),
    }


def _figures(cameras: list[Camera], seconds: float, fps: float) -> dict[str, float | None]:
    """Of the windows that were scored in a stretch of so many seconds."""
    latencies = [w.scored_seconds - w.read_seconds for one in cameras for w in one.windows]
    return {
        "cameras": len(cameras),
        "seconds": seconds,
        "windows": len(latencies),
        "windows_per_second": len(latencies) / seconds,
        **_quantiles("latency", latencies),
        **_punctuality(cameras, due=math.floor(seconds * fps / WINDOW_FRAMES)),
    }


def _punctuality(cameras: list[Camera], due: int) -> dict[str, float | None]:
    """How far behind the cameras it was, of which so many windows are due each; None of files."""
    live = all(camera.is_live for camera in cameras)
    behind = [one.behind_seconds(w) for one in cameras for w in one.windows] if live else []
    missing = sum(max(0, due - len(camera.windows)) for camera in cameras)
    return {
        **_quantiles("behind", behind),
        "late_windows": sum(one > LATE_SECONDS for one in behind) if live else None,
        "missing_windows": missing if live else None,
    }


def _quantiles(name: str, seconds: list[float]) -> dict[str, float | None]:
    return {
        f"{name}_p{percent}_seconds": float(np.percentile(seconds, percent)) if seconds else None
        for percent in (50, 95, 99)
    }


def _wait_for_all(cameras: list[Camera]) -> None:
    end_seconds = time.monotonic() + _BEGIN_SECONDS
    while not all(camera.windows for camera in cameras):
        for camera in cameras:
            if camera.failure is not None:
                raise RuntimeError(f"{camera.source}: {camera.failure}; give another camera")
        if time.monotonic() > end_seconds:
            raise RuntimeError(
                f"not every camera had a window within {_BEGIN_SECONDS:g} s; give fewer"
            )
        time.sleep(0.02)


def _pss_bytes() -> int:
    found = _PSS.search(Path("/proc/self/smaps_rollup").read_text())
    assert found is not None
    return 1024 * int(found[1])


def main() -> int:
    """Watch, print, and tell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="RTSP URLs or video files")
    parser.add_argument("--cameras", type=int, help="as many, sources over again (default: each)")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--threads", type=int, help="of torch (default: torch chooses)")
    parser.add_argument("--bundle", type=Path, default=DEFAULT_BUNDLE)
    options = parser.parse_args()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    count = len(options.sources) if options.cameras is None else options.cameras
    sources = list(itertools.islice(itertools.cycle(options.sources), count))
    try:
        told = run(Program(load_bundle(options.bundle)), sources, options.seconds)
    except (BundleError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(told), flush=True)
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # a thread may hang in OpenCV
