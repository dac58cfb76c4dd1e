"""What a window costs the engine here, and the thread count that follows from it.

Measured at the start, in about a second: processor time says what a window costs however
busy the machine is, and the fastest of some runs how long the engine takes over it. The
outcome prices windows for as long as the server runs.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from server.engine.choice import Engine, EngineChoice

LATENCY_SECONDS = 0.05
"""Fewer threads than there are cores must still encode a lone window faster than this."""

DECODE_CORES = 0.03
"""What a camera takes besides encoding until one was measured: 25 frames a second of
768x432, decoded and rendered on one core of the Cascade Lake class."""

ENGINE_ROOM = 0.85
"""Busy for a larger part of the time, the engine would bind before the cores do."""

NEARLY = 1.05
"""A larger run may cost so much more a window than the cheapest: trials err by as much."""

_TRIAL_SECONDS = 0.15
_MOST_RUNS = 8

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WindowCost:
    """What one window of a run takes.

    Attributes:
        core_seconds: processor time, all threads.
        seconds: of the engine, in the fastest run.
    """

    core_seconds: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast an engine is.

    Attributes:
        threads: of a run; None where that is the engine's own affair.
        alone: a window in a run of its own.
        full: a window of the largest run.
        batch: windows of the largest run.
    """

    threads: int | None
    alone: WindowCost
    full: WindowCost
    batch: int

    def run(self, windows: int) -> WindowCost:
        """What a whole run of so many windows takes: so much a run and so much a window."""
        return WindowCost(
            self._at(self.alone.core_seconds, self.full.core_seconds, windows),
            self._at(self.alone.seconds, self.full.seconds, windows),
        )

    def _at(self, alone: float, full: float, windows: int) -> float:
        if self.batch == 1:
            return alone * windows
        each = max(0.0, (self.batch * full - alone) / (self.batch - 1))
        return alone + each * (windows - 1)


@dataclass(frozen=True, slots=True)
class Bench:
    """What a trial runs on.

    Attributes:
        image_shape: (S, H, W, 3) of one window.
        batch: windows of the largest run.
        cores: that the server may use.
        windows_per_second: of one camera.
        halves: the largest run may be made smaller where a window then takes less.
    """

    image_shape: tuple[int, ...]
    batch: int
    cores: float
    windows_per_second: float
    halves: bool = False


def open_at_pace(
    choice: EngineChoice, bench: Bench, load: Callable[[EngineChoice], Engine]
) -> tuple[Engine, Pace]:
    """Load the engine that was asked for, at the thread count that serves best here.

    Only ONNX Runtime on the CPU is tried at several, and only where none was asked for.

    Args:
        choice: what was asked for.
        bench: what to measure with.
        load: loads an engine.

    Returns:
        The engine, warm, and its pace.

    Raises:
        EngineError, BundleError: it cannot be loaded or does not run.
    """
    searches = choice.name == "onnxruntime" and choice.device != "cuda" and choice.threads is None
    most = max(1, round(bench.cores))
    engine, pace = _tried(replace(choice, threads=most) if searches else choice, bench, load)
    tried = [pace]
    # One that is slow on all cores is slower on fewer: it need not be loaded again.
    if searches and pace.alone.seconds < LATENCY_SECONDS:
        for threads in sorted({1, max(1, most // 2)} - {most}):
            other, other_pace = _tried(replace(choice, threads=threads), bench, load)
            tried.append(other_pace)
            if choose(tried, bench) is other_pace:
                engine, other, pace = other, engine, other_pace
            other.close()
    if bench.halves and engine.device == "cpu":
        pace = _halved(engine, pace, bench)
    _tell(pace, tried)
    return engine, pace


def choose(tried: list[Pace], bench: Bench) -> Pace:
    """The pace that holds the most cameras.

    The one that takes the least processor time for a window of a full run, of those that
    encode a lone window in time and leave the engine room when the cores are full; where
    none does, the one that is fastest with a lone window.

    Args:
        tried: at least one.
        bench: what they were measured with.
    """
    fit = [
        pace for pace in tried if pace.alone.seconds < LATENCY_SECONDS and _has_room(pace, bench)
    ]
    if fit:
        return min(fit, key=lambda pace: pace.full.core_seconds)
    return min(tried, key=lambda pace: pace.alone.seconds)


def _has_room(pace: Pace, bench: Bench) -> bool:
    camera_cores = DECODE_CORES + bench.windows_per_second * pace.full.core_seconds
    cameras = bench.cores / camera_cores
    return cameras * bench.windows_per_second * pace.full.seconds <= ENGINE_ROOM


def _halved(engine: Engine, pace: Pace, bench: Bench) -> Pace:
    """The same with the largest run at which a window costs least, or nearly.

    What a large run works on outgrows a CPU's caches: then more windows at a time only
    make each of them dearer.
    """
    if pace.full is pace.alone:
        return pace
    found = [pace]
    while found[-1].batch > 1:
        batch = found[-1].batch // 2
        cost = _measured(engine, bench, batch) if batch > 1 else pace.alone
        found.append(replace(pace, full=cost, batch=batch))
    bound = NEARLY * min(one.full.core_seconds for one in found)
    return next(one for one in found if one.full.core_seconds <= bound)


def _tried(
    choice: EngineChoice, bench: Bench, load: Callable[[EngineChoice], Engine]
) -> tuple[Engine, Pace]:
    engine = load(choice)
    engine.warm_up(bench.batch)
    alone = _measured(engine, bench, 1)
    full = alone
    # A full run of one that takes seconds a window would hold up the start, and teach little.
    if bench.batch > 1 and alone.seconds * bench.batch < 10 * _TRIAL_SECONDS:
        full = _measured(engine, bench, bench.batch)
    return engine, Pace(choice.threads, alone, full, bench.batch)


def _measured(engine: Engine, bench: Bench, windows: int) -> WindowCost:
    images = np.zeros((windows, *bench.image_shape), np.uint8)
    began, used, fastest, runs = time.monotonic(), time.process_time(), math.inf, 0
    while runs < _MOST_RUNS and (not runs or time.monotonic() - began < _TRIAL_SECONDS):
        started = time.monotonic()
        engine.encode(images)
        fastest, runs = min(fastest, time.monotonic() - started), runs + 1
    core_seconds = (time.process_time() - used) / runs
    if engine.device == "cpu":
        # A machine that is busy just now makes it wait; on a free one it takes no longer than this.
        fastest = min(fastest, core_seconds)
    return WindowCost(core_seconds / windows, fastest / windows)


def _tell(pace: Pace, tried: list[Pace]) -> None:
    others = ", ".join(
        f"{other.threads} threads {1000 * other.full.core_seconds:.1f}"
        for other in tried
        if other.threads != pace.threads
    )
    logger.info(
        "engine threads: %s, %.1f core-ms a window in runs of up to %d (alone %.1f, in %.1f ms)%s",
        pace.threads or "its own",
        1000 * pace.full.core_seconds,
        pace.batch,
        1000 * pace.alone.core_seconds,
        1000 * pace.alone.seconds,
        f"; {others}" if others else "",
    )
