"""What evidence costs the decode workers: processor time and memory, on against off.

    python -m tests.bench.evidence [--cameras 8] [--seconds 10] [--rounds 6] [--json]

A real RTSP server plays moving pictures of 768x432 at 25 fps. The same streams are
switched between keeping nothing, keeping recent packets, and recording an alert each,
turn by turn and without leaving the cameras, so that what else the machine does falls
on all three alike. Every turn begins once the one before has settled.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import psutil

from server.ingest.events import FrameStats
from server.masks import MaskPainter, Place
from server.streams import StreamConfig
from server.tuning import EvidenceMode, Mask
from tests.support.cameras import RtspServer, render_clip
from tests.support.evidence import Rig, event_of, rig
from tests.support.pools import HASTY, PREPROCESS, camera

SIZE = (768, 432)
FPS = 25
SETTLE_SECONDS = 12.0
OFF, ON, RECORDING = "off", "on", "recording"


@dataclass(frozen=True, slots=True)
class Cost:
    """What was measured.

    Attributes:
        cameras: streams at a time, in two workers.
        off_cores: processor time of the workers that keep nothing, in cores; medians of rounds.
        on_cores: of those that keep packets and frames.
        recording_cores: of those that also write a clip of every stream.
        off_bytes: memory of the workers, shared pages divided.
        on_bytes: of those that keep packets and frames.
        bytes_a_second: one camera's packets.
        mask_seconds: painting the masks out of one model image.
    """

    cameras: int
    off_cores: float
    on_cores: float
    recording_cores: float
    off_bytes: int
    on_bytes: int
    bytes_a_second: float
    mask_seconds: float


def measure(cameras: int, seconds: float, rounds: int) -> Cost:
    """Run the turns."""
    with tempfile.TemporaryDirectory() as folder:
        clip = render_clip(Path(folder) / "a.mp4", seconds=10.0, size=SIZE)
        names = [f"cam{number}" for number in range(cameras)]
        settings = replace(HASTY, workers=2, read_timeout_seconds=5.0)
        with (
            RtspServer({f"/{name}": clip for name in names}) as server,
            rig(Path(folder) / "kept", settings, pre_roll_seconds=5.0) as one,
        ):
            configs = [camera(name, server.url(f"/{name}")) for name in names]
            for config in configs:
                one.pool.add(config)
            for config in configs:
                one.events.wait_windows(config.stream_id, 3, after=0.0)
            turns: dict[str, list[tuple[float, int]]] = {OFF: [], ON: [], RECORDING: []}
            for number in range(rounds):
                for turn, taken in turns.items():
                    taken.append(_take_turn(one, configs, turn, seconds, number))
        return Cost(
            cameras,
            *(statistics.median(cores for cores, _ in turns[turn]) for turn in turns),
            # Before they ever kept anything: what is freed again stays with the process.
            off_bytes=turns[OFF][0][1],
            on_bytes=round(statistics.median(held for _, held in turns[ON])),
            bytes_a_second=clip.stat().st_size / 10.0,
            mask_seconds=_mask_seconds(),
        )


def _take_turn(
    one: Rig, configs: Sequence[StreamConfig], turn: str, seconds: float, number: int
) -> tuple[float, int]:
    """Cores and bytes of the workers in one turn."""
    mode = EvidenceMode.NONE if turn == OFF else EvidenceMode.KEEP
    tuned = [replace(config, evidence_mode=mode) for config in configs]
    for config in tuned:
        one.pool.update(config)
    time.sleep(SETTLE_SECONDS)
    alerts = []
    if turn == RECORDING:
        for config in tuned:
            window = one.events.wait_windows(config.stream_id, 1)[-1]
            alerts.append(event_of(config.stream_id, [window], window, number))
            one.open(config, alerts[-1])
    workers = [psutil.Process(pid) for pid in one.pool.worker_pids()]
    frames, began = _frames(one, configs), time.monotonic()
    used = sum(sum(worker.cpu_times()[:2]) for worker in workers)
    time.sleep(seconds)
    used = sum(sum(worker.cpu_times()[:2]) for worker in workers) - used
    passed = time.monotonic() - began
    came = _frames(one, configs) - frames
    if came < 0.8 * FPS * passed * len(configs):
        print(f"{turn}: only {came} frames came: the machine is too busy", file=sys.stderr)
    held = sum(worker.memory_full_info().pss for worker in workers)
    for config, alert in zip(tuned, alerts, strict=False):
        one.close(config, alert)
    return used / passed, held


def _frames(one: Rig, configs: Sequence[StreamConfig]) -> int:
    return sum(
        stats.frames for config in configs for stats in one.events.of(config.stream_id, FrameStats)
    )


def _mask_seconds() -> float:
    image = np.full((PREPROCESS.height, PREPROCESS.width, 3), 200, np.uint8)
    place = Place(0, 0, PREPROCESS.height, PREPROCESS.width)
    painter = MaskPainter([Mask(((0.1, 0.1), (0.6, 0.2), (0.4, 0.8)))] * 4)
    painter.paint(image, place)  # draws them, once
    began = time.perf_counter()
    for _ in range(1000):
        painter.paint(image, place)
    return (time.perf_counter() - began) / 1000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cameras", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each turn")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    cost = measure(options.cameras, options.seconds, options.rounds)
    if options.json:
        print(json.dumps(asdict(cost)))
        return
    print(f"{cost.cameras} cameras of {cost.bytes_a_second * 8 / 1e6:.2f} Mbit/s")
    print(f"off        {cost.off_cores:6.3f} cores  {cost.off_bytes / 1e6:6.1f} MB")
    print(f"on         {cost.on_cores:6.3f} cores  {cost.on_bytes / 1e6:6.1f} MB")
    print(f"recording  {cost.recording_cores:6.3f} cores")
    print(f"masks      {cost.mask_seconds * 1e6:6.1f} us a picture")


if __name__ == "__main__":
    main()
