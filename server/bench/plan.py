"""What a benchmark is asked to do, with how long each part of it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from server.bench.kinds import CameraKind
from server.engine.flags import EngineName

QUICK_SECONDS, USUAL_SECONDS = 6.0, 20.0
QUICK_ROUNDS, USUAL_ROUNDS = 1, 3


@dataclass(frozen=True, slots=True)
class Pace:
    """How long is measured.

    Attributes:
        seconds: each load that is tried, 2 or more; those that confirm one and those of the
            rounds take twice as long.
        rounds: of everything, 1 or more.
        most_trials: of the search.
        most_naive_trials: of the naive program's cameras.
        ceiling_seconds: each way of decoding and encoding.
        replay_seconds: recorded clips.
    """

    seconds: float
    rounds: int
    most_trials: int
    most_naive_trials: int
    ceiling_seconds: float
    replay_seconds: float


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
    pace: Pace
    extras: Extras
    naive_python: Path | None


def quick_pace() -> Pace:
    """All in under two minutes."""
    return Pace(QUICK_SECONDS, QUICK_ROUNDS, 4, 1, 0.7, 5.0)


def usual_pace() -> Pace:
    """What figures are published from."""
    return Pace(USUAL_SECONDS, USUAL_ROUNDS, 40, 10, 4.0, 10.0)
