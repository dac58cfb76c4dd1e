"""What ONNX Runtime's settings are worth on this machine, for a bundle's encoder on the CPU.

    python -m tests.bench.onnx_settings --rounds 5

Each setting has a process of its own, since memory is one of the questions, and they take
turns in a random order, since machines are shared: only ratios to the first one say something.
"""

from __future__ import annotations

import argparse
import multiprocessing as mp
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import onnxruntime as ort

from server.bundle import DEFAULT_BUNDLE, Bundle, load_bundle
from server.contract import FEATURE, IMAGES

BATCHES = (1, 4, 8)
PAUSE_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Setting:
    """How a session is made and run; the defaults are those of the engine."""

    threads: int = 0
    arena: bool = True
    pattern: bool = True
    bound: bool = False
    entries: dict[str, str] = field(default_factory=dict)
    run_entries: dict[str, str] = field(default_factory=dict)


SETTINGS = {
    "as the engine": Setting(),
    "the same again": Setting(),
    "bound outputs": Setting(bound=True),
    "no arena": Setting(arena=False),
    "arena shrinks": Setting(run_entries={"memory.enable_memory_arena_shrinkage": "cpu:0"}),
    "no pattern": Setting(pattern=False),
    "neither": Setting(arena=False, pattern=False),
    "one thread": Setting(threads=1),
    "spinning": Setting(entries={"session.intra_op.allow_spinning": "1"}),
    "denormals zero": Setting(entries={"session.set_denormal_as_zero": "1"}),
}


def session(bundle: Bundle, setting: Setting) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = setting.threads
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = setting.arena
    options.enable_mem_pattern = setting.pattern
    for name, value in ({"session.intra_op.allow_spinning": "0"} | setting.entries).items():
        options.add_session_config_entry(name, value)
    path = str(bundle.encoder_path)
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def runner(
    made: ort.InferenceSession, bundle: Bundle, setting: Setting, batch: int
) -> Callable[[], object]:
    manifest = bundle.manifest
    size, sampled = manifest.preprocess, manifest.window.sampled_frames
    shape = (batch, sampled, size.height, size.width, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    run = ort.RunOptions()
    for name, value in setting.run_entries.items():
        run.add_run_config_entry(name, value)
    if not setting.bound:
        return lambda: made.run([FEATURE], {IMAGES: images}, run)
    features = np.empty((batch, manifest.encoder.feature_dim), np.float32)
    held = np.empty_like(images)
    binding = made.io_binding()
    binding.bind_input(IMAGES, "cpu", 0, np.uint8, shape, held.ctypes.data)
    binding.bind_output(FEATURE, "cpu", 0, np.float32, features.shape, features.ctypes.data)

    def bound() -> object:
        held[:] = images
        made.run_with_iobinding(binding, run)
        return features.copy()

    return bound


def worker(pipe: Connection, place: Path, setting: Setting, seconds: float) -> None:
    bundle = load_bundle(place)
    made = session(bundle, setting)
    runs = {batch: runner(made, bundle, setting, batch) for batch in BATCHES}
    while (batch := pipe.recv()) is not None:
        began, busy, times = time.perf_counter(), time.process_time(), 0
        while times == 0 or time.perf_counter() - began < seconds:
            runs[batch]()
            times += 1
        windows = batch * times
        rate = windows / (time.perf_counter() - began)
        pipe.send((rate, windows / (time.process_time() - busy)))
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    pipe.send(pages * 4096 / 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, default=DEFAULT_BUNDLE)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=0.08, help="of a turn")
    options = parser.parse_args()
    context = mp.get_context("spawn")
    pipes: dict[str, Connection] = {}
    for name, setting in SETTINGS.items():
        pipes[name], theirs = context.Pipe()
        given = (theirs, options.bundle, setting, options.seconds)
        context.Process(target=worker, args=given, daemon=True).start()
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    turns = [(name, batch) for name in SETTINGS for batch in BATCHES]
    order = random.Random(0)
    for number in range(-1, options.rounds):  # the first one warms up
        # Nobody always follows the same one, nor comes while that one's threads still spin.
        for name, batch in order.sample(turns, len(turns)):
            time.sleep(PAUSE_SECONDS)
            pipes[name].send(batch)
            rates = pipes[name].recv()
            if number >= 0:
                found.setdefault((name, batch), []).append(rates)
    print("windows a second; times those of the first; the same of a second of processor time")
    print(f"{'':16}" + "".join(f"{f'batch {batch}':>26}" for batch in BATCHES) + "    MB")
    for name, pipe in pipes.items():
        pipe.send(None)
        told = "".join(compared(found, name, batch) for batch in BATCHES)
        print(f"{name:16}{told} {pipe.recv():5.0f}")


def compared(found: dict[tuple[str, int], list[tuple[float, float]]], name: str, batch: int) -> str:
    """Median rate, and medians of the ratios to the first setting in the same round."""
    mine, first = np.array(found[name, batch]), np.array(found[next(iter(SETTINGS)), batch])
    wall, processor = np.median(mine / first, axis=0)
    return f"{np.median(mine[:, 0]):10.1f} {wall:7.3f} {processor:7.3f}"


if __name__ == "__main__":
    main()
