"""Cameras against the server: how long after a window's last frame a watcher hears of its alert.

    python -m tests.bench.alert_delay [--cameras 4] [--seconds 60] [--store URL] [--json]

A real RTSP server (Debian's gst-rtsp-server) plays moving pictures of 768x432 at 25 fps,
which the embedded default scores. Each stream's threshold is set to the median of its
own scores, without hysteresis and minimum duration, so that alerts come and go. The
delay is from the capture time of the last frame of the window that opened an alert to
the moment at which a gRPC client on this machine has the change, committed before.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from server.alert_records import ChangeKind
from server.rpc.client import Client, StreamChange
from server.streams import SourceUrl, StreamConfig
from tests.support.cameras import RtspServer, render_clip
from tests.support.serving import ServerProcess
from tests.support.watching import Scores

SIZE = (768, 432)
FPS = 25
SETTLE_SECONDS = 15.0

P95_DELAY_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Delays:
    """What was measured, of alerts that opened.

    Attributes:
        cameras: streams at a time.
        seconds: measured.
        alerts: that opened in that time.
        p50_seconds: median delay.
        p95_seconds: 95th percentile.
        max_seconds: the longest one.
    """

    cameras: int
    seconds: float
    alerts: int
    p50_seconds: float
    p95_seconds: float
    max_seconds: float

    @property
    def holds(self) -> bool:
        """Whether the promise is kept."""
        return self.alerts > 0 and self.p95_seconds < P95_DELAY_SECONDS


def measure(cameras: int, seconds: float, store: str | None) -> Delays:
    """Run the cameras against a server with the embedded default."""
    with tempfile.TemporaryDirectory() as scratch:
        clip = render_clip(Path(scratch) / "camera.mp4", seconds=8, fps=FPS, size=SIZE)
        mounts = {f"/cam{n}": clip for n in range(cameras)}
        tuning = {
            "alerts__min_duration_seconds": 0,
            "alerts__close_ratio": 1,
            "store__url": store or f"sqlite:///{scratch}/alerts.db",
        }
        with RtspServer(mounts) as rtsp, ServerProcess(**tuning) as server:
            client = server.client()
            for path in mounts:
                client.create(StreamConfig(path[1:], SourceUrl(rtsp.url(path)), open_threshold=1.0))
            _set_thresholds(client, [path[1:] for path in mounts])
            delays = _delays(client, seconds)
    p50, p95, longest = (
        float(value) for value in (np.percentile(delays, (50, 95, 100)) if delays else (0, 0, 0))
    )
    return Delays(cameras, seconds, len(delays), round(p50, 4), round(p95, 4), round(longest, 4))


def _set_thresholds(client: Client, stream_ids: list[str]) -> None:
    scores = Scores(client)
    time.sleep(SETTLE_SECONDS)
    scores.close()
    for stream_id in stream_ids:
        seen = [one.score for one in scores.of(stream_id) if one.score is not None]
        threshold = min(max(statistics.median(seen), 1e-6), 1.0)
        client.update(stream_id, StreamChange(open_threshold=threshold))


def _delays(client: Client, seconds: float) -> list[float]:
    """Of every alert that opens in so long."""
    delays = []
    with client.watch_alerts() as watch:
        threading.Timer(seconds, watch.cancel).start()
        for _, change in watch:
            now_seconds = time.time()
            if change.kind is ChangeKind.OPENED:
                delays.append(now_seconds - change.alert.end_seconds)
    return delays


def main() -> int:
    """Measure, print, and fail where the promise does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cameras", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--store", metavar="URL", help="default: SQLite in a temporary folder")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    delays = measure(options.cameras, options.seconds, options.store)
    print(json.dumps(asdict(delays)) if options.json else delays)
    return 0 if delays.holds else 1


if __name__ == "__main__":
    sys.exit(main())
