"""Cameras against the server: latency, drops and memory of the whole process tree.

    python -m tests.bench.four_cameras [--cameras 4] [--seconds 60] [--json]

A real RTSP server (Debian's gst-rtsp-server) in its own process plays moving
pictures of 768x432 at 25 fps; the server pulls them over TCP. Latency is what
the server publishes with every window: from its last frame's arrival to its
score. The cameras and this program run on the same cores and are not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from server.scoring import WindowScore
from server.streams import SourceUrl, StreamConfig
from tests.support.cameras import RtspServer, render_clip
from tests.support.serving import ServerProcess

SIZE = (768, 432)
FPS = 25
SETTLE_SECONDS = 5.0

P95_LATENCY_SECONDS = 0.3
PSS_BYTES = 700_000_000


@dataclass(frozen=True, slots=True)
class Load:
    """What was measured.

    Attributes:
        cameras: streams at a time.
        seconds: measured, after the streams had settled.
        windows: scored in that time.
        dropped: windows without a score.
        p50_seconds: median latency of the scored windows.
        p95_seconds: 95th percentile of it.
        p99_seconds: 99th percentile of it.
        pss_bytes: memory of the server and its workers, shared pages divided, at the end.
        cores: processor time of the server and its workers, in cores.
    """

    cameras: int
    seconds: float
    windows: int
    dropped: int
    p50_seconds: float
    p95_seconds: float
    p99_seconds: float
    pss_bytes: int
    cores: float

    @property
    def holds(self) -> bool:
        """Whether the promise of README for four cameras is kept."""
        return (
            self.dropped == 0
            and self.p95_seconds < P95_LATENCY_SECONDS
            and self.pss_bytes < PSS_BYTES
        )


def measure(cameras: int, seconds: float) -> Load:
    """Run the cameras against a server with the embedded default."""
    with tempfile.TemporaryDirectory() as scratch:
        clip = render_clip(Path(scratch) / "camera.mp4", seconds=8, fps=FPS, size=SIZE)
        mounts = {f"/cam{n}": clip for n in range(cameras)}
        with RtspServer(mounts) as rtsp, ServerProcess() as server:
            client = server.client()
            for path in mounts:
                client.create(StreamConfig(path[1:], SourceUrl(rtsp.url(path))))
            with client.watch_scores() as watch:
                _collect(watch, SETTLE_SECONDS)
                cpu_before, started = _cpu_seconds(server), time.monotonic()
                scores = _collect(watch, seconds)
                elapsed = time.monotonic() - started
            cores = (_cpu_seconds(server) - cpu_before) / elapsed
            return _load(cameras, elapsed, scores, server.pss_bytes(), cores)


def _collect(watch: Iterable[tuple[int, WindowScore]], seconds: float) -> list[WindowScore]:
    end = time.monotonic() + seconds
    scores: list[WindowScore] = []
    for missed, score in watch:
        assert missed == 0, "this program was too slow to watch"
        scores.append(score)
        if time.monotonic() >= end:
            break
    return scores


def _load(
    cameras: int, seconds: float, scores: list[WindowScore], pss_bytes: int, cores: float
) -> Load:
    latencies = [s.latency_seconds for s in scores if s.score is not None]
    p50, p95, p99 = np.percentile(latencies, [50, 95, 99]).tolist()
    dropped = len(scores) - len(latencies)
    return Load(cameras, seconds, len(latencies), dropped, p50, p95, p99, pss_bytes, cores)


def _cpu_seconds(server: ServerProcess) -> float:
    times = [process.cpu_times() for process in server.processes()]
    return sum(one.user + one.system for one in times)


def main() -> int:
    """Measure, print, and return 1 where the promise is not kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cameras", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    load = measure(options.cameras, options.seconds)
    if options.json:
        print(json.dumps(asdict(load) | {"holds": load.holds}))
    else:
        print(describe(load))
    return 0 if load.holds else 1


def describe(load: Load) -> str:
    """One line for people and for RESULTS.md."""
    return (
        f"{load.cameras} cameras of {SIZE[0]}x{SIZE[1]} at {FPS} fps on {os.cpu_count()} cores, "
        f"{load.seconds:.0f} s: {load.windows} windows, {load.dropped} dropped, latency "
        f"p50 {load.p50_seconds * 1000:.0f} ms, p95 {load.p95_seconds * 1000:.0f} ms, "
        f"p99 {load.p99_seconds * 1000:.0f} ms, PSS {load.pss_bytes / 1e6:.0f} MB, "
        f"{load.cores:.2f} cores"
    )


if __name__ == "__main__":
    sys.exit(main())
