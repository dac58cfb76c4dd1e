"""Many idle streams at a real server: how soon they run, and what they cost.

    python -m tests.bench.idle_streams [--cameras 1000] [--seconds 60] [--json]

Each camera shows 160x120 at one frame a second. Measured are the seconds until
every CreateStream had returned and until every stream was RUNNING, then memory
and processor time of the server and its workers. The cameras are a process of
their own on the same cores; its share is printed beside.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from server.bench.clips import render
from server.bench.farm import CameraFarm, CameraSpec
from server.rpc.client import Client
from server.streams import SourceUrl, StreamConfig, StreamState
from tests.support.serving import ServerProcess

SIZE = (160, 120)
FPS = 1
CLIP_SECONDS = 20
REGISTERED_SECONDS = 60.0
GIVE_UP_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Idle:
    """What was measured.

    Attributes:
        cameras: streams at a time.
        created_seconds: from the first CreateStream until the last had returned.
        running_seconds: from the same until every stream was RUNNING.
        seconds: measured from then on.
        pss_bytes: memory of the server and its workers, shared pages divided, at the end.
        first_pss_bytes: the same before the first stream.
        cores: processor time of the server and its workers, in cores.
        farm_cores: that of the cameras.
        frames_refused: that the server was too slow to take.
        lateness_p99_seconds: how much after its time a camera sent a frame.
        not_running: streams by state that were not RUNNING at the end.
    """

    cameras: int
    created_seconds: float
    running_seconds: float
    seconds: float
    pss_bytes: int
    first_pss_bytes: int
    cores: float
    farm_cores: float
    frames_refused: int
    lateness_p99_seconds: float
    not_running: dict[str, int]

    @property
    def holds(self) -> bool:
        """Whether all were registered within a minute and still run."""
        return self.created_seconds <= REGISTERED_SECONDS and not self.not_running


def measure(cameras: int, seconds: float) -> Idle:
    """Register the cameras at a server with the embedded default."""
    with tempfile.TemporaryDirectory() as scratch:
        clip = render(Path(scratch), SIZE, FPS, CLIP_SECONDS)
        specs = [CameraSpec(f"cam-{number}", clip, FPS) for number in range(cameras)]
        store = Path(scratch) / "streams.db"
        with CameraFarm(specs) as farm, ServerProcess(store=store, max_streams=cameras) as server:
            first_pss_bytes = server.pss_bytes()
            client, started = server.client(), time.monotonic()
            for spec in specs:
                client.create(StreamConfig(spec.path, SourceUrl(farm.url(spec.path))))
            created_seconds = time.monotonic() - started
            _await_running(client, started + GIVE_UP_SECONDS)
            running_seconds = time.monotonic() - started
            before, cpu_before, began = farm.stats(), server.cpu_seconds(), time.monotonic()
            time.sleep(seconds)
            after, elapsed = farm.stats(), time.monotonic() - began
            return Idle(
                cameras,
                created_seconds,
                running_seconds,
                elapsed,
                server.pss_bytes(),
                first_pss_bytes,
                (server.cpu_seconds() - cpu_before) / elapsed,
                (after.cpu_seconds - before.cpu_seconds) / elapsed,
                after.frames_refused,
                after.lateness_p99_seconds,
                _not_running(client),
            )


def _await_running(client: Client, deadline_seconds: float) -> None:
    while (waiting := _not_running(client)) and time.monotonic() < deadline_seconds:
        print(f"waiting for {waiting}", file=sys.stderr)
        time.sleep(1)


def _not_running(client: Client) -> dict[str, int]:
    states = Counter(view.status.state for view in client.list())
    del states[StreamState.RUNNING]
    return {state.value: count for state, count in states.items()}


def main() -> int:
    """Measure, print, and return 1 where the promise is not kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cameras", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    idle = measure(options.cameras, options.seconds)
    if options.json:
        print(json.dumps(asdict(idle) | {"holds": idle.holds}))
    else:
        print(describe(idle))
    return 0 if idle.holds else 1


def describe(idle: Idle) -> str:
    """One line for people and for RESULTS.md."""
    each_bytes = (idle.pss_bytes - idle.first_pss_bytes) / idle.cameras
    return (
        f"{idle.cameras} cameras of {SIZE[0]}x{SIZE[1]} at {FPS} fps: all registered in "
        f"{idle.created_seconds:.1f} s, all RUNNING after {idle.running_seconds:.1f} s; then "
        f"{idle.seconds:.0f} s: PSS {idle.pss_bytes / 1e6:.0f} MB ({each_bytes / 1e6:.2f} MB a "
        f"camera), {idle.cores:.2f} cores, cameras {idle.farm_cores:.3f} cores, "
        f"{idle.frames_refused} frames refused, sent up to {idle.lateness_p99_seconds * 1000:.0f} "
        f"ms late (p99), not running: {idle.not_running or 'none'}"
    )


if __name__ == "__main__":
    sys.exit(main())
