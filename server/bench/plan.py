"""What a benchmark is asked to do, with how long each part of it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from server.bench.kinds import CameraKind
from server.bench.ramp import Limits
from server.engine.flags import EngineName

MOST_CAMERAS = 10_000

QUICK_SECONDS, USUAL_SECONDS = 6.0, 20.0
QUICK_ROUNDS, USUAL_ROUNDS = 1, 3


@dataclass(frozen=True, slots=True)
class Pace:
    """How long is measured.

    Attributes:
        seconds: each load that is tried, 2 or more.
        longer: times as long take those that confirm one, and those of the rounds.
        rounds: of everything, 1 or more.
        search: how patient it is; `most_cameras` is what the ceiling says.
        most_naive_trials: of the naive program's cameras; 0 leaves them out.
        ceiling_seconds: each way of decoding and encoding.
        replay_seconds: recorded clips.
        encode_batches: windows at a time that are tried on one thread a core, to find how the
            encoder is cheapest; empty tries every way.
    """

    seconds: float
    longer: int
    rounds: int
    search: Limits
    most_naive_trials: int
    ceiling_seconds: float
    replay_seconds: float
    encode_batches: tuple[int, ...] = ()

    @property
    def longer_seconds(self) -> float:
        """Of a load that confirms."""
        return self.longer * self.seconds


@dataclass(frozen=True, slots=True)
class Extras:
    """What is measured beside the search and the rounds.

    Attributes:
        twice: twice the cameras, to see that those admitted keep their latency.
        memory: of each further camera.
        soak_minutes: a long run at what holds; 0 for none.
    """

    twice: bool = False
    memory: bool = False
    soak_minutes: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """One benchmark of one mix of cameras.

    Attributes:
        kinds: of cameras; the first camera is of the first, and so on, in turn.
        bundle: directory of what is served.
        engine: that serves it.
        settings: of the server by dotted key, beside the benchmark's own.
        bound_seconds: that the 99th percentile of the latency must stay under.
        cameras: exactly so many, without a search; None searches.
        share: of each round's own ceiling, without a search; None otherwise.
        pace: how long is measured.
        extras: what else.
        naive_python: interpreter that has what the naive program needs; None leaves it out.
    """

    kinds: tuple[CameraKind, ...]
    bundle: Path
    engine: EngineName
    settings: Mapping[str, str]
    bound_seconds: float
    cameras: int | None
    share: float | None
    pace: Pace
    extras: Extras
    naive_python: Path | None


def quick_pace() -> Pace:
    """All in under two minutes."""
    search = Limits(MOST_CAMERAS, most_trials=5, first_step=0.25, patient=False)
    return Pace(
        seconds=QUICK_SECONDS,
        longer=1,
        rounds=QUICK_ROUNDS,
        search=search,
        most_naive_trials=0,
        ceiling_seconds=1.5,
        replay_seconds=5.0,
        encode_batches=(1, 8),
    )


def usual_pace() -> Pace:
    """What figures are published from."""
    return Pace(
        seconds=USUAL_SECONDS,
        longer=2,
        rounds=USUAL_ROUNDS,
        search=Limits(MOST_CAMERAS),
        most_naive_trials=10,
        ceiling_seconds=8.0,
        replay_seconds=10.0,
    )
