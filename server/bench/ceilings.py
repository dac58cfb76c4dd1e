"""What one machine could hold at best: decoding alone, encoding alone, and their sum.

A ceiling counts only what cannot be left out: to decode every frame, to render those that
windows sample, to encode every window and to step the head. It is measured with all cores busy,
in processes that do nothing else, so that no server can reach it and a good one comes near.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from server.bench.crew import BenchError, Share, usable_cores, work_together
from server.bench.decoding import DecodeWork
from server.bench.encoding import EncodeWork
from server.bundle import BundleError, load_bundle
from server.contract import WINDOW_FRAMES, WindowSpec
from server.engine.flags import EngineName

BATCHES = (1, 4, 8, 16)
"""Windows at a time that are tried, one after the other."""

# A session holds its weights, their packed form and what it computes.
_COPIES_OF_WEIGHTS = 3


@dataclass(frozen=True, slots=True)
class DecodeCost:
    """What decoding takes, rendering included.

    Attributes:
        core_seconds_per_frame: of every frame that comes, whether it is rendered or not.
        frames: decoded by all processes.
        seconds: by the clock.
    """

    core_seconds_per_frame: float
    frames: int
    seconds: float

    @property
    def frames_per_second(self) -> float:
        """Of all processes together, by the clock."""
        return self.frames / self.seconds


@dataclass(frozen=True, slots=True)
class EncodeCost:
    """What encoder and head take.

    Attributes:
        core_seconds_per_window: processor time.
        batch: windows at a time.
        threads: of each process; there are as many processes as keep all cores busy.
        windows: encoded by all processes.
        seconds: by the clock.
    """

    core_seconds_per_window: float
    batch: int
    threads: int
    windows: int
    seconds: float

    @property
    def windows_per_second(self) -> float:
        """Of all processes together, by the clock."""
        return self.windows / self.seconds


def windows_per_second(window: WindowSpec, fps: float) -> float:
    """Windows that a camera makes in a second.

    Args:
        window: the bundle's.
        fps: of the camera, in Hz; it counts only where windows take native frames.

    >>> windows_per_second(WindowSpec(16, 10.0), 25.0), windows_per_second(WindowSpec(1, None), 25)
    (0.625, 1.5625)
    """
    return (window.fps or fps) / WINDOW_FRAMES


def ceiling_cameras(
    cores: int, fps: float, windows_per_second: float, decode: DecodeCost, encode: EncodeCost
) -> float:
    """Cameras that the cores could hold if they did nothing else.

    cores / (fps * decode core-seconds a frame + windows a second * encode core-seconds a window)

    Args:
        cores: of the machine that both costs were measured on.
        fps: of a camera, in Hz; the clip that `decode` was measured with had the same.
        windows_per_second: that a camera makes.
        decode: with all cores busy.
        encode: the cheapest way, with all cores busy.
    """
    decoding = fps * decode.core_seconds_per_frame
    encoding = windows_per_second * encode.core_seconds_per_window
    return cores / (decoding + encoding)


def ceiling_windows_per_second(
    cores: int, fps: float, windows_per_second: float, decode: DecodeCost, encode: EncodeCost
) -> float:
    """Windows a second of recorded clips that the cores could score if they did nothing else.

    cores / (fps / windows a second * decode core-seconds a frame + encode core-seconds a window),
    which is `ceiling_cameras` times the windows that one camera makes in a second.

    Args:
        cores: as in `ceiling_cameras`.
        fps: of the clips, in Hz.
        windows_per_second: in a second of a clip.
        decode: as in `ceiling_cameras`.
        encode: the same.
    """
    frames_per_window = fps / windows_per_second
    decoding = frames_per_window * decode.core_seconds_per_frame
    return cores / (decoding + encode.core_seconds_per_window)


def measure_decode(clip: Path, bundle: Path, seconds: float, processes: int) -> DecodeCost:
    """Decode a clip over and over, render what the bundle's windows sample, and nothing else.

    Args:
        clip: a video file of a camera's size, codec and rate.
        bundle: directory.
        seconds: by the clock, after all processes are warm.
        processes: at a time, one decoder each; as many as there are cores keep all busy.

    Raises:
        BenchError: clip or bundle cannot be used.
    """
    work = DecodeWork(clip.absolute(), bundle.absolute())
    shares = work_together(work, processes, seconds)
    return DecodeCost(_cpu_seconds_per_unit(shares), _units(shares), _longest_seconds(shares))


def measure_encode(
    bundle: Path, seconds: float, batch: int, threads: int, engine: EngineName = "onnxruntime"
) -> EncodeCost:
    """Encode windows of noise and step the head, and nothing else, with all cores busy.

    Args:
        bundle: directory.
        seconds: by the clock, after all processes are warm; one batch at least is encoded.
        batch: windows at a time, 1 to 256.
        threads: of each process; there are as many processes as the cores have room for.
        engine: that runs the bundle; the server's default.

    Raises:
        BenchError: the bundle cannot be used, the engine cannot be had, or a number makes no sense.
    """
    if not 1 <= batch <= 256:
        raise BenchError(f"batch ({batch}) must be 1 to 256 windows")
    if not 1 <= threads <= 1024:
        raise BenchError(f"threads ({threads}) must be 1 to 1024")
    work = EncodeWork(bundle.absolute(), batch, threads, engine)
    shares = work_together(work, max(1, usable_cores() // threads), seconds)
    cost, seconds = _cpu_seconds_per_unit(shares), _longest_seconds(shares)
    return EncodeCost(cost, batch, threads, _units(shares), seconds)


def best_encode(bundle: Path, seconds: float, engine: EngineName = "onnxruntime") -> EncodeCost:
    """The cheapest way to encode: the one that takes the least processor time a window.

    It tries every batch of `BATCHES` with one thread in as many processes as there are cores,
    and with all cores' threads in one process. Batches that an encoder would not get done in the
    time, and processes whose encoders would not fit into half of the memory, are left out.

    Args:
        bundle: directory.
        seconds: each way.
        engine: see `measure_encode`.

    Raises:
        BenchError: see `measure_encode`.
    """
    try:
        weights_bytes = load_bundle(bundle).encoder_path.stat().st_size
    except BundleError as error:
        raise BenchError(str(error)) from None
    tried: list[EncodeCost] = []
    for threads in _arrangements(usable_cores(), weights_bytes):
        tried += _by_batch(EncodeWork(bundle, 1, threads, engine), seconds)
    return min(tried, key=lambda cost: cost.core_seconds_per_window)


def _by_batch(work: EncodeWork, seconds: float) -> Iterator[EncodeCost]:
    processes = max(1, usable_cores() // work.threads)
    window_seconds = 0.0
    for batch in BATCHES:
        if batch * window_seconds > seconds:
            return
        cost = measure_encode(work.bundle, seconds, batch, work.threads, work.engine)
        window_seconds = processes * cost.seconds / cost.windows
        yield cost


def _arrangements(cores: int, weights_bytes: int) -> Iterator[int]:
    """Threads of each process: one where so many encoders fit, and all."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if cores * _COPIES_OF_WEIGHTS * weights_bytes <= memory_bytes / 2 and cores > 1:
        yield 1
    yield cores


def _cpu_seconds_per_unit(shares: list[Share]) -> float:
    return sum(share.cpu_seconds for share in shares) / _units(shares)


def _units(shares: list[Share]) -> int:
    return sum(share.units for share in shares)


def _longest_seconds(shares: list[Share]) -> float:
    return max(share.seconds for share in shares)
