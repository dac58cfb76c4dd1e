"""One load and what came of it: figures, and whether the server held it; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

BEHIND_SECONDS = 0.25
"""A camera whose frames fall behind its clock by more within a run is not kept up with."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One window as a watcher got it.

    Attributes:
        stream_id: the camera.
        arrival_seconds: when its last frame arrived, on the watcher's monotonic clock.
        latency_seconds: from then to its score, as the server published it.
        end_frame: one past its last source frame, counted since the connect.
        drop_reason: why there is no score; None where there is one.
    """

    stream_id: str
    arrival_seconds: float
    latency_seconds: float
    end_frame: int
    drop_reason: str | None


@dataclass(frozen=True, slots=True)
class Latency:
    """Quantiles of the latency of scored windows, in seconds."""

    p50: float
    p95: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class Shares:
    """Cores that a server's stages kept busy.

    Attributes:
        decode: decoding in the workers.
        preprocess: bringing sampled frames to the model's size, in the workers.
        ingest: all else of the workers: reading packets, handing windows over.
        engine: the threads that run the bundle.
        rest: gRPC, the store, metrics and all else of the main process.
    """

    decode: float
    preprocess: float
    ingest: float
    engine: float
    rest: float

    @property
    def total(self) -> float:
        """All of the server."""
        return self.decode + self.preprocess + self.ingest + self.engine + self.rest


@dataclass(frozen=True, slots=True)
class Generator:
    """What played and watched the cameras, on the same cores.

    Attributes:
        farm_cores: of the cameras.
        watcher_cores: of this program, which watches all scores.
        frames_sent: by the cameras, to all their readers.
        frames_refused: that a reader did not take in time.
        lateness_p99_seconds: 99th percentile of how late a frame was sent.
        scores_missed: that this program was too slow for.
    """

    farm_cores: float
    watcher_cores: float
    frames_sent: int
    frames_refused: int
    lateness_p99_seconds: float
    scores_missed: int

    @property
    def cores(self) -> float:
        """Of all of it."""
        return self.farm_cores + self.watcher_cores


@dataclass(frozen=True, slots=True)
class Run:
    """What one load did.

    Attributes:
        cameras: asked for.
        seconds: watched, after the cameras had settled.
        windows: scored in that time.
        dropped: windows without a score, by reason.
        latency: of the scored windows; None where there were none.
        worst_camera_p99_seconds: the highest 99th percentile of a single camera.
        behind_seconds: how far the slowest camera's frames fell behind its clock.
        frames_decoded: in all.
        silent: cameras that were admitted and gave no window.
        refused: cameras that the server did not admit.
        refusal: its sentence; empty where it admitted all.
        shares: of the cores.
        others_cores: that programs had which are none of the benchmark's.
        pss_bytes: memory of the server and its workers at the end.
        generator: what the load itself cost.
    """

    cameras: int
    seconds: float
    windows: int
    dropped: tuple[tuple[str, int], ...]
    latency: Latency | None
    worst_camera_p99_seconds: float
    behind_seconds: float
    frames_decoded: int
    silent: int
    refused: int
    refusal: str
    shares: Shares
    others_cores: float
    pss_bytes: int
    generator: Generator

    @property
    def windows_per_second(self) -> float:
        """Scored."""
        return self.windows / self.seconds

    @property
    def drops(self) -> int:
        """Windows without a score, for whatever reason."""
        return sum(count for _, count in self.dropped)


def latency_of(seconds: Sequence[float]) -> Latency | None:
    """Quantiles; None of nothing.

    >>> latency_of([0.1, 0.2, 0.3]).p50
    0.2
    """
    if not seconds:
        return None
    p50, p95, p99, top = np.quantile(np.asarray(seconds), [0.5, 0.95, 0.99, 1.0]).tolist()
    return Latency(p50, p95, p99, top)


def worst_p99_seconds(seen: Iterable[Seen]) -> float:
    """The highest 99th percentile of a single camera; 0 where nothing was scored."""
    by_camera: dict[str, list[float]] = {}
    for window in seen:
        if window.drop_reason is None:
            by_camera.setdefault(window.stream_id, []).append(window.latency_seconds)
    return max((float(np.quantile(one, 0.99)) for one in by_camera.values()), default=0.0)


def behind_seconds(seen: Iterable[Seen], fps: Mapping[str, float | None]) -> float:
    """By how much the slowest camera's frames fell behind its clock between two windows.

    A decoder that is too slow lets packets wait before anything stamps them: no latency
    shows it, but fewer frames go by than the camera sends.

    Args:
        seen: windows in the order in which they came; one that connects anew counts from 0.
        fps: that each camera sends; None where nobody knows.

    Returns:
        The largest of all cameras; 0 where none can be told.
    """
    ends: dict[str, tuple[Seen, Seen]] = {}
    for window in seen:
        first, _ = ends.get(window.stream_id, (window, window))
        ends[window.stream_id] = first, window
    behind = 0.0
    for stream_id, (first, last) in ends.items():
        rate = fps.get(stream_id)
        if rate is not None:
            passed_seconds = last.arrival_seconds - first.arrival_seconds
            behind = max(behind, passed_seconds - (last.end_frame - first.end_frame) / rate)
    return behind


def drops_by_reason(seen: Iterable[Seen]) -> tuple[tuple[str, int], ...]:
    """How many windows had no score, by reason."""
    counts = Counter(window.drop_reason for window in seen if window.drop_reason is not None)
    return tuple(sorted(counts.items()))


def complaints(run: Run, bound_seconds: float) -> tuple[str, ...]:
    """Why a load was not held, in words; empty where it was.

    Args:
        run: the load.
        bound_seconds: that the 99th percentile of the latency must stay under.
    """
    told: list[str] = []
    if run.refused:
        told.append(f"the server refused {run.refused} of {run.cameras}: {run.refusal}")
    if run.silent:
        told.append(f"{run.silent} gave no window")
    if run.latency is not None and run.latency.p99 >= bound_seconds:
        told.append(f"p99 latency {run.latency.p99:.2f} s, not under {bound_seconds:g} s")
    if run.drops:
        reasons = ", ".join(f"{count} {reason}" for reason, count in run.dropped)
        told.append(f"windows dropped ({reasons})")
    if run.behind_seconds > BEHIND_SECONDS:
        told.append(f"a camera fell {run.behind_seconds:.2f} s behind in {run.seconds:.0f} s")
    if run.generator.frames_refused:
        told.append(f"{run.generator.frames_refused} frames were not taken from the cameras")
    if run.generator.scores_missed:
        told.append(f"the watcher missed {run.generator.scores_missed} scores")
    return tuple(told)
