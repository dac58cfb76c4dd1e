"""What the benchmark's own cameras cost: processor time a frame, by how many there are.

    python -m tests.bench.camera_farm [--seconds 10] [--json]

Each setting is measured three times, in turns, against a reader that throws
everything away; medians are printed. Cameras run on the machine that they
measure, so this is what a benchmark's figures are short of.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from server.bench.clips import render
from server.bench.farm import CameraFarm, CameraSpec
from tests.support.draining import Drain

ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Setting:
    """Cameras of one kind; `size` is (width, height) in pixels."""

    cameras: int
    size: tuple[int, int]
    fps: int


@dataclass(frozen=True, slots=True)
class Cost:
    """What they cost.

    Attributes:
        cores: processor time of the farm in a second.
        microseconds_per_frame: the same for each frame sent.
        frames_per_second: that were sent.
        refused: frames that the reader was too slow for.
        lateness_p99_seconds: how much after its time a frame was sent.
    """

    cores: float
    microseconds_per_frame: float
    frames_per_second: float
    refused: int
    lateness_p99_seconds: float


SETTINGS = (
    Setting(30, (320, 240), 25),
    Setting(30, (768, 432), 25),
    Setting(80, (768, 432), 25),
    Setting(10, (1920, 1080), 25),
    Setting(1000, (160, 120), 1),
)


def measure(setting: Setting, clip: Path, seconds: float) -> Cost:
    """Let a farm run with one reader a camera."""
    specs = [CameraSpec(f"cam-{n}", clip, setting.fps) for n in range(setting.cameras)]
    with CameraFarm(specs) as farm, Drain([farm.url(spec.path) for spec in specs]):
        time.sleep(3)  # every camera has shown a key frame by then
        before, started = farm.stats(), time.monotonic()
        time.sleep(seconds)
        after, elapsed = farm.stats(), time.monotonic() - started
    frames = after.frames_sent - before.frames_sent
    cpu_seconds = after.cpu_seconds - before.cpu_seconds
    return Cost(
        cpu_seconds / elapsed,
        cpu_seconds / frames * 1e6,
        frames / elapsed,
        after.frames_refused,
        after.lateness_p99_seconds,
    )


def middle(costs: list[Cost]) -> Cost:
    """The run with the median processor time."""
    return sorted(costs, key=lambda cost: cost.cores)[len(costs) // 2]


def main() -> None:
    """Measure all settings in turns and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    costs: dict[Setting, list[Cost]] = {setting: [] for setting in SETTINGS}
    with tempfile.TemporaryDirectory() as scratch:
        clips = {s: render(Path(scratch), s.size, s.fps, 10) for s in SETTINGS}
        for _ in range(ROUNDS):
            for setting in SETTINGS:
                costs[setting].append(measure(setting, clips[setting], options.seconds))
    for setting, runs in costs.items():
        if options.json:
            print(json.dumps(asdict(setting) | {"runs": [asdict(run) for run in runs]}))
        else:
            print(describe(setting, runs))


def describe(setting: Setting, runs: list[Cost]) -> str:
    """One line for people and for RESULTS.md."""
    cost, spread = middle(runs), [100 * run.cores for run in runs]
    width, height = setting.size
    return (
        f"{setting.cameras} cameras of {width}x{height} at {setting.fps} fps: "
        f"{statistics.median(spread):.2f} % of a core ({min(spread):.2f} to {max(spread):.2f}), "
        f"{cost.microseconds_per_frame:.0f} us a frame, {cost.frames_per_second:.0f} frames/s, "
        f"{cost.refused} refused, p99 {cost.lateness_p99_seconds * 1000:.1f} ms late"
    )


if __name__ == "__main__":
    main()
