"""A training step of LAP at UCF-Crime's size, against the released code's way.

    python -m tests.bench.mil_step [--steps 4] [--each 32] [--crops 10] [--json]

Both fit the same network to the same shapes: 1,610 videos' segments lie in a
file, a step takes 32 normal and 32 anomalous ones, T = 64, D = 768, with
captions. The two take turns, so that a noisy machine disturbs both alike.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from tests.bench.released_step import KEPT, WIDTH, WINDOWS, ReleasedDetector
from training.bags import Bag
from training.draw import Batch, Drawer, Segmented
from training.head import Head, lap
from training.learner import Learner, LearnerSpec
from training.manifest import Row
from training.mil_data import suspicion_of
from training.objective import LAP

PROMPTS = 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--each", type=int, default=32)
    parser.add_argument("--crops", type=int, default=10)
    parser.add_argument("--videos", type=int, default=1610)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), options)
    if options.json:
        print(json.dumps(found))
        return
    print(
        f"{options.videos} videos, {2 * options.each} a step in {options.crops} crops, "
        f"{torch.get_num_threads()} threads: ours {found['ours_seconds']:.2f} s a step, "
        f"released {found['released_seconds']:.2f} s, {found['ratio']:.2f} times as fast; "
        f"loading {100 * found['loading_share']:.1f} % of our step"
    )


def measure(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Medians over turns."""
    torch.manual_seed(0)
    bags = some_bags(folder, options.videos, options.crops)
    drawer = Drawer(bags, 0, Segmented(bags, WINDOWS, folder / "segments.npy"))
    prompts = torch.randn(PROMPTS, WIDTH)
    ours = Learner(Head(lap(WIDTH)), LearnerSpec(1000, objective=LAP), suspicion_of(prompts))
    theirs = ReleasedDetector()
    adam = torch.optim.Adam(theirs.parameters(), 1e-3, weight_decay=5e-3)

    def released(batch: Batch) -> None:
        assert batch.text is not None
        adam.zero_grad()
        theirs(batch.visual, batch.text, prompts).backward()
        adam.step()

    times: dict[str, list[float]] = {"loading": [], "ours": [], "released": []}
    for step in range(options.steps + 1):
        batch, loading = timed(lambda step=step: drawer.draw(step, options.each))
        _, mine = timed(lambda step=step, batch=batch: ours.step(step, batch))
        _, other = timed(lambda batch=batch: released(batch))
        if step:  # the first warms up
            for name, seconds in zip(times, (loading, mine, other), strict=True):
                times[name].append(seconds)
    loading, mine, other = (statistics.median(values) for values in times.values())
    return {
        "ours_seconds": mine + loading,
        "released_seconds": other + loading,
        "ratio": statistics.median(
            b / a for a, b in zip(times["ours"], times["released"], strict=True)
        ),
        "loading_share": loading / (mine + loading),
    }


def some_bags(folder: Path, videos: int, crops: int) -> list[Bag]:
    """Videos whose segments are there already; only their size matters."""
    shape = (videos, WINDOWS, crops, WIDTH)
    made = np.lib.format.open_memmap(
        folder / "segments.npy", mode="w+", dtype=np.float32, shape=shape
    )
    random = np.random.default_rng(0)
    for video in range(videos):
        made[video] = random.standard_normal(shape[1:], np.float32)
    made.flush()
    labels = ["normal", "anomalous"]
    return [
        Bag(
            Row(id=str(n), label=labels[n % 2], group=str(n)),
            made[n],
            made[n, :, 0],
        )
        for n in range(videos)
    ]


def timed(do: Callable[[], object]) -> tuple[object, float]:
    begun = time.perf_counter()
    found = do()
    return found, time.perf_counter() - begun


if __name__ == "__main__":
    assert LAP.k == KEPT
    main()
