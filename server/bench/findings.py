"""What a benchmark has found so far, and what that amounts to; no measuring here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import harmonic_mean, median, median_low

from server.bench.ceilings import DecodeCost, EncodeCost
from server.bench.kinds import CameraKind
from server.bench.line import Line, line_through
from server.bench.naive import NaiveFigures
from server.bench.ramp import Ramp
from server.bench.replay import Replay
from server.bench.run import Run
from server.views import ModelInfo

GOAL_SHARE = 0.75
"""Of the ceiling; cameras that a server should hold at least."""


@dataclass(frozen=True, slots=True)
class LoadTrial:
    """A load that was tried.

    Attributes:
        run: what it did.
        complaints: why it does not hold; empty where it does.
    """

    run: Run
    complaints: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether the server held it."""
        return not self.complaints

    @property
    def held(self) -> int:
        """Cameras that were: all; those admitted, where nothing but a refusal is wrong; or none."""
        only_refused = self.run.refused > 0 and len(self.complaints) == 1
        return self.run.cameras - self.run.refused if self.holds or only_refused else 0


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What the cores would hold if they did nothing but decode and encode.

    Attributes:
        decode: cost by kind of camera; empty where one kind cannot be decoded here.
        encode: cost of a window.
        cameras: of the mix; None where `decode` is empty.
        replay_windows_per_second: of recorded clips of the first kind; None as `cameras`.
    """

    decode: tuple[DecodeCost, ...]
    encode: EncodeCost
    cameras: float | None
    replay_windows_per_second: float | None


@dataclass(frozen=True, slots=True)
class NaiveRound:
    """The naive program in one round, and the server with the cameras that it keeps up with.

    Attributes:
        saturated: recorded clips, one a core, as fast as it goes.
        live: the cameras that it keeps up with; None where it keeps up with none.
        ours: the server with as many; None as `live`.
    """

    saturated: NaiveFigures
    live: NaiveFigures | None
    ours: Run | None


@dataclass(frozen=True, slots=True)
class Round:
    """Everything once, one after the other, so that all saw the same state of the machine.

    Attributes:
        ceiling: measured first.
        trial: the server with the cameras that it holds.
        replay: the server with recorded clips; None where there are none.
        naive: the same tasks for the naive program; None where it was left out.
    """

    ceiling: Ceiling
    trial: LoadTrial
    replay: Replay | None
    naive: NaiveRound | None


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory over the number of cameras, bytes by cameras."""

    points: tuple[tuple[int, int], ...]

    @property
    def line(self) -> Line | None:
        """Bytes a further camera takes."""
        return line_through([n for n, _ in self.points], [taken for _, taken in self.points])


@dataclass(frozen=True, slots=True)
class Soak:
    """A long run, in parts.

    Attributes:
        parts: with the seconds from its begin to the end of each.
    """

    parts: tuple[tuple[float, Run], ...]

    @property
    def line(self) -> Line | None:
        """Bytes an hour that memory grows by."""
        hours = [seconds / 3600 for seconds, _ in self.parts]
        return line_through(hours, [run.pss_bytes for _, run in self.parts])

    @property
    def drops(self) -> int:
        """Windows without a score."""
        return sum(run.drops for _, run in self.parts)


@dataclass(slots=True)
class Findings:
    """All of one mix of cameras; grows while it is measured.

    Attributes:
        kinds: of cameras, taken in turn.
        bound_seconds: of the 99th percentile of the latency.
        cores: of the machine.
        model: what the server says it runs.
        first_ceiling: where the search began.
        trials: every load that was tried in the search.
        ramp: its result; None where a number was given instead.
        cameras: the number that everything else is measured at.
        by_share: each round takes its own number, a share of its ceiling.
        naive_cameras: that the naive program keeps up with; None where that was not asked.
        naive_lacking: why it was left out; empty where it was not.
        rounds: finished ones.
        twice: the run at twice the number.
        memory: see there.
        soak: see there.
    """

    kinds: tuple[CameraKind, ...]
    bound_seconds: float
    cores: int
    model: ModelInfo | None = None
    first_ceiling: Ceiling | None = None
    trials: list[LoadTrial] = field(default_factory=list)
    ramp: Ramp[LoadTrial] | None = None
    cameras: int = 0
    by_share: bool = False
    naive_cameras: int | None = None
    naive_lacking: str = ""
    rounds: list[Round] = field(default_factory=list)
    twice: Run | None = None
    memory: Memory | None = None
    soak: Soak | None = None

    @property
    def ceiling(self) -> float | None:
        """Cameras, the median over rounds; before the first round the one of the search."""
        if not self.rounds:
            return self.first_ceiling.cameras if self.first_ceiling is not None else None
        return self._median(lambda one: one.ceiling.cameras)

    @property
    def goal(self) -> int | None:
        """Cameras that should hold."""
        return None if self.ceiling is None else math.floor(GOAL_SHARE * self.ceiling)

    @property
    def rounds_held(self) -> int:
        """Rounds in which the server held `cameras`."""
        return sum(one.trial.holds for one in self.rounds)

    @property
    def held(self) -> int:
        """Cameras that were held: those searched for, or those asked for where every round did;
        of a share the median of what the rounds held, those that the server refused left out.
        """
        if self.ramp is not None:
            return self.ramp.cameras
        if not self.rounds or (self.rounds_held < len(self.rounds) and not self.by_share):
            return 0
        return median_low(one.trial.held for one in self.rounds)

    @property
    def share(self) -> float | None:
        """Of the ceiling that the server holds."""
        return self.held / self.ceiling if self.ceiling else None

    @property
    def replay_share(self) -> float | None:
        """Of its ceiling that the replay of recorded clips reaches."""
        return self._median(_replay_share)

    @property
    def replay_windows_per_second(self) -> float | None:
        """Of recorded clips."""
        return self._median(
            lambda one: one.replay.windows_per_second if one.replay is not None else None
        )

    @property
    def naive_windows_per_second(self) -> float | None:
        """Of the naive program with recorded clips."""
        return self._median(
            lambda one: one.naive.saturated.windows_per_second if one.naive else None
        )

    @property
    def naive_p95_seconds(self) -> float | None:
        """How far the naive program is behind the cameras that it keeps up with."""
        return self._median(
            lambda one: one.naive.live.behind_p95_seconds if one.naive and one.naive.live else None
        )

    @property
    def p95_beside_naive_seconds(self) -> float | None:
        """The server's latency with as many cameras."""
        return self._median(_p95_beside_naive)

    def latency(self, quantile: str) -> float | None:
        """At `cameras`, in seconds: p50, p95, p99 or max."""
        return self._median(
            lambda one: getattr(one.trial.run.latency, quantile) if one.trial.run.latency else None
        )

    @property
    def drops(self) -> int:
        """Windows without a score in all rounds."""
        return sum(one.trial.run.drops for one in self.rounds)

    def all_trials(self) -> list[LoadTrial]:
        """Every load of the search and of the rounds."""
        return [*self.trials, *(one.trial for one in self.rounds)]

    @property
    def stopped_by(self) -> str:
        """What stops the next camera, in words."""
        failed = [one for one in self.trials if not one.holds and one.run.cameras > self.cameras]
        if not failed:
            return "nothing that was tried"
        nearest = min(failed, key=lambda one: one.run.cameras)
        busy = nearest.run.shares.total + nearest.run.generator.farm_cores
        where = f"at {nearest.run.cameras} cameras, with {busy:.1f} of {self.cores} cores busy"
        return f"{'; '.join(nearest.complaints)} ({where})"

    def _median(self, value: Callable[[Round], float | None]) -> float | None:
        found = [one for one in map(value, self.rounds) if one is not None]
        return median(found) if found else None


def mixed(ceilings: Sequence[float]) -> float:
    """Cameras of a mix, each kind as often as the others, from those of each kind alone.

    >>> mixed([30.0, 10.0])
    15.0
    """
    return harmonic_mean(ceilings)


def _replay_share(one: Round) -> float | None:
    if one.replay is None or one.ceiling.replay_windows_per_second is None:
        return None
    return one.replay.windows_per_second / one.ceiling.replay_windows_per_second


def _p95_beside_naive(one: Round) -> float | None:
    run = one.naive.ours if one.naive is not None else None
    return run.latency.p95 if run is not None and run.latency is not None else None
