"""Many idle streams at a real server: how soon they run, and what they cost.

    python -m tests.bench.idle_streams [--cameras 1000] [--workers 8] [--seconds 60]
        [--sampling motion:60s] [--moving] [--json]

Each camera shows 160x120 at one frame a second: an empty place with a camera's grain,
or with `--moving` the demo's street, which opens alerts as well. Measured are the seconds until
every CreateStream had returned and until every stream was RUNNING, then memory
and processor time of the server and its workers. The cameras are a process of
their own on the same cores; its share is printed beside. A thousand such streams have
625 windows a second, more than two cores encode: with `--sampling` they are thinned. No
stream is refused, whatever it takes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import av
import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from server.bench.clips import render
from server.bench.farm import CameraFarm, CameraSpec, FarmStats
from server.rpc.client import Client
from server.sampling import EVERY_WINDOW, Sampling, read_sampling, sampling_text
from server.streams import SourceUrl, StreamConfig, StreamState
from tests.support.serving import ServerProcess

SIZE = (160, 120)
FPS = 1
CLIP_SECONDS = 20
KEY_FRAMES = 2
GRAIN = 2.0
REGISTERED_SECONDS = 60.0
GIVE_UP_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Idle:
    """What was measured.

    Attributes:
        cameras: streams at a time.
        workers: decode processes that share them.
        sampling: which of their windows are scored.
        created_seconds: from the first CreateStream until the last had returned.
        running_seconds: from the same until every stream was RUNNING.
        seconds: measured from then on.
        pss_bytes: memory of the server and its workers, shared pages divided, at the end.
        first_pss_bytes: the same before the first stream.
        cores: processor time of the server and its workers, in cores.
        windows_scored_per_second: over all streams.
        windows_dropped_per_second: over all streams: more came than this machine encodes.
        farm_cores: that of the cameras.
        frames_refused: that the server was too slow to take.
        lateness_p99_seconds: how much after its time a camera sent a frame.
        workers_replaced: decode processes that ended, hung or outgrew their memory.
        not_running: streams by state that were not RUNNING at the end.
    """

    cameras: int
    workers: int
    sampling: str
    created_seconds: float
    running_seconds: float
    seconds: float
    pss_bytes: int
    first_pss_bytes: int
    cores: float
    windows_scored_per_second: float
    windows_dropped_per_second: float
    farm_cores: float
    frames_refused: int
    lateness_p99_seconds: float
    workers_replaced: int
    not_running: dict[str, int]

    @property
    def holds(self) -> bool:
        """Whether all were registered within a minute and still run."""
        return self.created_seconds <= REGISTERED_SECONDS and not self.not_running


def still(moving: Path, path: Path) -> Path:
    """The first picture of a clip for as long, with grain."""
    noise = np.random.default_rng(0)
    with av.open(str(moving)) as source, av.open(str(path), "w") as container:
        pictures = [frame.to_ndarray(format="gray") for frame in source.decode(video=0)]
        stream = container.add_stream("libx264", rate=FPS, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.codec_context.gop_size = KEY_FRAMES
        for _ in pictures:
            grain = noise.normal(0, GRAIN, pictures[0].shape)
            grained = np.clip(np.rint(pictures[0] + grain), 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grained, format="gray")))
        container.mux(stream.encode(None))
    return path


def measure(
    cameras: int, workers: int, seconds: float, sampling: Sampling, *, moving: bool = False
) -> Idle:
    """Register the cameras at a server with the embedded default and so many decode workers."""
    with tempfile.TemporaryDirectory() as scratch:
        clip = render(Path(scratch), SIZE, FPS, CLIP_SECONDS)
        if not moving:
            clip = still(clip, Path(scratch) / "still.mp4")
        specs = [CameraSpec(f"cam-{number}", clip, FPS) for number in range(cameras)]
        settings: dict[str, object] = {"max_streams": cameras, "ingest__workers": workers}
        settings["capacity__admission"] = "off"
        store = Path(scratch) / "streams.db"
        with CameraFarm(specs) as farm, ServerProcess(store=store, **settings) as server:
            first_pss_bytes = server.pss_bytes()
            client, started = server.client(), time.monotonic()
            for spec in specs:
                url = SourceUrl(farm.url(spec.path))
                client.create(StreamConfig(spec.path, url, sampling=sampling))
            created_seconds = time.monotonic() - started
            _await_running(client, started + GIVE_UP_SECONDS)
            running_seconds = time.monotonic() - started
            before, began = _look(server, farm), time.monotonic()
            time.sleep(seconds)
            after, elapsed = _look(server, farm), time.monotonic() - began
            return Idle(
                cameras,
                workers,
                sampling_text(sampling),
                created_seconds,
                running_seconds,
                elapsed,
                server.pss_bytes(),
                first_pss_bytes,
                (after.cpu_seconds - before.cpu_seconds) / elapsed,
                (after.windows_scored - before.windows_scored) / elapsed,
                (after.windows_dropped - before.windows_dropped) / elapsed,
                (after.farm.cpu_seconds - before.farm.cpu_seconds) / elapsed,
                after.farm.frames_refused,
                after.farm.lateness_p99_seconds,
                sum("is replaced" in line for line in server.log),
                _not_running(client),
            )


@dataclass(frozen=True, slots=True)
class _Counters:
    cpu_seconds: float
    windows_scored: float
    windows_dropped: float
    farm: FarmStats


def _look(server: ServerProcess, farm: CameraFarm) -> _Counters:
    with urllib.request.urlopen(f"{server.http}/metrics", timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        totals = {
            family.name: sum(s.value for s in family.samples if s.name.endswith("_total"))
            for family in families
        }
    return _Counters(
        server.cpu_seconds(),
        totals.get("gvvad_windows_scored", 0.0),
        totals.get("gvvad_windows_dropped", 0.0),
        farm.stats(),
    )


def _await_running(client: Client, deadline_seconds: float) -> None:
    while (waiting := _not_running(client)) and time.monotonic() < deadline_seconds:
        print(f"waiting for {waiting}", file=sys.stderr)
        time.sleep(1)


def _not_running(client: Client) -> dict[str, int]:
    """Streams by state, and by its reason where there is one."""
    found: Counter[str] = Counter()
    for status in (view.status for view in client.list()):
        if status.state is not StreamState.RUNNING:
            why = f" ({status.reason.value})" if status.reason is not None else ""
            found[status.state.value + why] += 1
    return dict(found)


def main() -> int:
    """Measure, print, and return 1 where the promise is not kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cameras", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--sampling", type=read_sampling, default=EVERY_WINDOW)
    parser.add_argument("--moving", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    idle = measure(
        options.cameras,
        options.workers,
        options.seconds,
        options.sampling,
        moving=options.moving,
    )
    if options.json:
        print(json.dumps(asdict(idle) | {"holds": idle.holds}))
    else:
        print(describe(idle))
    return 0 if idle.holds else 1


def describe(idle: Idle) -> str:
    """One line for people and for RESULTS.md."""
    each_bytes = (idle.pss_bytes - idle.first_pss_bytes) / idle.cameras
    late_ms = 1000 * idle.lateness_p99_seconds
    return (
        f"{idle.cameras} cameras of {SIZE[0]}x{SIZE[1]} at {FPS} fps, {idle.workers} workers, "
        f"{idle.sampling}: "
        f"all registered in {idle.created_seconds:.1f} s, all RUNNING after "
        f"{idle.running_seconds:.1f} s; then for {idle.seconds:.0f} s: PSS "
        f"{idle.pss_bytes / 1e6:.0f} MB ({each_bytes / 1e6:.2f} MB a camera), {idle.cores:.2f} "
        f"cores, {idle.windows_scored_per_second:.0f} windows/s scored and "
        f"{idle.windows_dropped_per_second:.0f} dropped, cameras {idle.farm_cores:.3f} cores, "
        f"{idle.frames_refused} frames refused, p99 {late_ms:.0f} ms late, "
        f"{idle.workers_replaced} workers replaced, not running: {idle.not_running or 'none'}"
    )


if __name__ == "__main__":
    sys.exit(main())
