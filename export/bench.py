"""How fast a bundle's encoder is, beside others in the same minutes, and how much of the machine.

Machines are shared and their clocks change: rounds take turns, and every figure stands beside
the rate of a matrix product that was measured in the same round.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime as ort
import torch

from server.bundle import Bundle
from server.contract import FEATURE, IMAGES, Image
from server.engine.choice import choice_of, load_engine
from server.engine.flags import Device, EngineFlags, EngineName, telling_of_builds
from training.encoders import ClipEncoder

BUNDLE, PLAIN = "bundle", "plain ONNX Runtime"
EAGER, COMPILED = "torch", "torch, compiled"

_PRODUCT = 2048
_PRODUCTS = 3

Encode = Callable[[Image], object]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured.

    Attributes:
        batches: windows at a time, each 1 or more.
        rounds: that take turns.
        seconds: that each turn lasts at least.
        threads: of every contestant on the CPU.
        engine: that runs the bundle; the same in a server.
        device: where it runs the encoder; None for the engine's own.
    """

    batches: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    rounds: int = 3
    seconds: float = 1.0
    threads: int = 1
    engine: EngineName = "onnxruntime"
    device: Device | None = None


@dataclass(frozen=True, slots=True)
class Figure:
    """One contestant at one batch.

    Attributes:
        name: of the contestant.
        batch: windows at a time.
        images_per_second: median over rounds.
        latency_seconds: of a batch, median over rounds.
        peak_share: of the CPU's rate of matrix products, median over rounds; None on a GPU.
        ratio: of its rate to plain ONNX Runtime's, median over rounds; above one is faster.
            None where that one cannot run.
    """

    name: str
    batch: int
    images_per_second: float
    latency_seconds: float
    peak_share: float | None
    ratio: float | None


@dataclass(frozen=True, slots=True)
class Contestant:
    """Something that encodes.

    Attributes:
        name: as it is told.
        encode: images (B, S, H, W, 3) to features.
        bytes: of the machine's own memory that it took to load and to run once; about.
        device: where it computes.
    """

    name: str
    encode: Encode
    bytes: int
    device: str = "cpu"


def contestants(
    bundle: Bundle, model: tuple[str, str] | None, plan: Plan
) -> tuple[list[Contestant], dict[str, str]]:
    """Everybody who can run here, loaded one after another.

    Args:
        bundle: to be measured.
        model: open_clip's name and weights of the same tower, or None to leave torch out.
        plan: threads, and the engine that runs the bundle.

    Returns:
        Contestants; why others cannot run, by name.

    Raises:
        EngineError: the engine asked for cannot run the bundle.
    """
    torch.set_num_threads(plan.threads)
    loads: dict[str, Callable[[], Encode]] = {
        PLAIN: lambda: _plain(bundle.encoder_path, plan.threads)
    }
    if model is not None:
        sampled = bundle.manifest.window.sampled_frames
        loads[EAGER] = lambda: ClipEncoder(*model, sampled).encode
        loads[COMPILED] = lambda: _compiled(ClipEncoder(*model, sampled))
    found, lacking = [_served(bundle, plan)], {}
    one = images(bundle, 1)
    for name, load in loads.items():
        before = _resident_bytes()
        try:
            encode = load()
            encode(one)
        except (RuntimeError, ImportError, OSError) as error:
            lacking[name] = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            continue
        found.append(Contestant(name, encode, max(0, _resident_bytes() - before)))
    torch.set_num_threads(plan.threads)  # an encoder of ours sets one
    return found, lacking


def _served(bundle: Bundle, plan: Plan) -> Contestant:
    """The bundle as a server would run it."""
    before = _resident_bytes()
    flags = EngineFlags(plan.engine, plan.device, plan.threads)
    with telling_of_builds():
        engine = load_engine(bundle, choice_of(flags, max(plan.batches)))
        engine.warm_up(1)
    taken = max(0, _resident_bytes() - before)
    return Contestant(BUNDLE, engine.encode, taken, engine.device)


def _plain(path: Path, threads: int) -> Encode:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda part: session.run([FEATURE], {IMAGES: part})


def _compiled(encoder: ClipEncoder) -> Encode:
    tower = torch.compile(encoder.tower)

    @torch.inference_mode()
    def encode(part: Image) -> object:
        return tower(torch.from_numpy(part))

    return encode


def images(bundle: Bundle, batch: int) -> Image:
    """(B, S, H, W, 3) noise; an encoder's time does not depend on what it sees."""
    size, sampled = bundle.manifest.preprocess, bundle.manifest.window.sampled_frames
    shape = (batch, sampled, size.height, size.width, 3)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def measure(
    who: Sequence[Contestant], bundle: Bundle, flops: float, plan: Plan, tick: Callable[[], None]
) -> list[Figure]:
    """Let everybody take turns.

    Args:
        who: among them plain ONNX Runtime, where it can run.
        bundle: for the shape of its images.
        flops: of one window.
        plan: how long.
        tick: called as each turn is done.
    """
    found = []
    for batch in plan.batches:
        part = images(bundle, batch)
        turns = [_round(who, part, plan.seconds, tick) for _ in range(plan.rounds)]
        found += [_figure(one, part, turns, flops) for one in who]
    return found


@dataclass(frozen=True, slots=True)
class _Turns:
    """Seconds a batch of every contestant, and the rate of matrix products, in one round."""

    seconds: Mapping[str, float]
    peak: float


def _round(
    who: Sequence[Contestant], part: Image, least_seconds: float, tick: Callable[[], None]
) -> _Turns:
    seconds = {}
    for one in who:
        one.encode(part)
        began, times = time.perf_counter(), 0
        while times == 0 or time.perf_counter() - began < least_seconds:
            one.encode(part)
            times += 1
        seconds[one.name] = (time.perf_counter() - began) / times
        tick()
    return _Turns(seconds, peak_flops())


def peak_flops() -> float:
    """Operations a second of a product of two square matrices in fp32, the best of three."""
    left, right = (torch.rand(_PRODUCT, _PRODUCT) for _ in range(2))
    best = float("inf")
    for _ in range(_PRODUCTS):
        began = time.perf_counter()
        torch.mm(left, right)
        best = min(best, time.perf_counter() - began)
    return 2.0 * _PRODUCT**3 / best


def _figure(who: Contestant, part: Image, turns: Sequence[_Turns], flops: float) -> Figure:
    batch, sampled = part.shape[:2]
    taken = [turn.seconds[who.name] for turn in turns]
    seconds = median(taken)
    share = median(flops * batch / one / turn.peak for one, turn in zip(taken, turns, strict=True))
    ratios = [
        turn.seconds[PLAIN] / one
        for one, turn in zip(taken, turns, strict=True)
        if PLAIN in turn.seconds
    ]
    return Figure(
        name=who.name,
        batch=batch,
        images_per_second=batch * sampled / seconds,
        latency_seconds=seconds,
        peak_share=share if who.device == "cpu" else None,
        ratio=median(ratios) if ratios else None,
    )


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096
