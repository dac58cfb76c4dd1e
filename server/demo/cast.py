"""Who does what, when: the script of the demo's scene.

Walking, running and standing follow from each person's speed alone, with steps
driven by the way covered, so feet never slide. A fight adds fast, chaotic
angles on top. Every motion is a smooth function of time, fixed by the seed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from server.demo.figures import Look, Pose, joints
from server.demo.plaza import Points

WALK_SPEED = 0.95
RUN_SPEED = 5.0
_LUNGE_SPEED = 8.0
"""Metres a second."""

_STRIDE_METRES = 1.35
_FIGHT_CENTRE = np.array([0.3, 6.9])
_KNOT_SECONDS = 0.15
_CHAOS = 11  # angles of a pose
_RISE_SECONDS = 1.6
_TURN_SECONDS = 0.25

_LOOKS = (
    Look((50, 53, 67), (34, 35, 42), (40, 32, 28)),
    Look((95, 52, 46), (41, 42, 52), (58, 44, 34), 1.04),
    Look((105, 78, 31), (50, 48, 43), (36, 30, 28)),
    Look((36, 55, 50), (57, 56, 60), (70, 54, 40), 0.97),
    Look((42, 41, 45), (49, 56, 73), (34, 28, 26), 1.05),
    Look((83, 73, 59), (38, 36, 39), (84, 70, 56), 0.94),
    Look((64, 59, 78), (43, 41, 42), (48, 38, 34)),
)
# X, Z where each walks to and fro while all is calm; the first five will fight.
_BEATS = (
    ((-7.0, 13.2), (-1.5, 12.6)),
    ((7.4, 14.4), (2.2, 13.8)),
    ((-4.2, 16.2), (3.0, 16.6)),
    ((8.4, 16.9), (2.6, 17.0)),
    ((-8.8, 15.0), (-4.0, 15.4)),
    ((0.5, 17.4), (7.4, 17.5)),
    ((-10.0, 17.3), (-5.0, 17.5)),
)
_FIGHTERS = 5
_FALLS = 2
_FLEE_TO = {0: (-13.0, 10.5), 1: (13.5, 11.0)}


@dataclass(frozen=True, slots=True)
class Person:
    """One person's way through the scene.

    Attributes:
        look: clothes.
        knot_seconds: (K,) rising.
        knots: (K, 2) X, Z in metres at those times.
        way_metres: (K,) covered until then; drives the steps.
        fight_seconds: span of the fight, or None for a bystander.
        fall_seconds: span on the ground, or None.
        phases: (11, 3) of the chaotic angles.
        rates_hz: (11, 3) of the same.
    """

    look: Look
    knot_seconds: npt.NDArray[np.float64]
    knots: Points
    way_metres: npt.NDArray[np.float64]
    fight_seconds: tuple[float, float] | None
    fall_seconds: tuple[float, float] | None
    phases: Points
    rates_hz: Points

    def body(self, at_seconds: float) -> Points:
        """(13, 3) joints at that time."""
        place = self._place(at_seconds)
        before, after = self._place(at_seconds - 0.15), self._place(at_seconds + 0.15)
        velocity = (after - before) / 0.3
        speed = float(np.hypot(*velocity))
        heading = self._heading(at_seconds, velocity)
        pose = _gait(float(np.interp(at_seconds, self.knot_seconds, self.way_metres)), speed)
        pose = pose.towards(self._brawl(at_seconds), _ramp(self.fight_seconds, at_seconds, 0.5))
        lying = _ramp(self.fall_seconds, at_seconds, 0.45, leave_seconds=_RISE_SECONDS)
        pose = pose.towards(self._flail(at_seconds), lying)
        return joints(pose, heading, place, self.look.height)

    def _place(self, at_seconds: float) -> Points:
        return np.array(
            [np.interp(at_seconds, self.knot_seconds, self.knots[:, axis]) for axis in (0, 1)]
        )

    def _heading(self, at_seconds: float, velocity: Points) -> float:
        """Along the way; in a fight towards its middle."""
        inwards = _FIGHT_CENTRE - self._place(at_seconds)
        fighting = _ramp(self.fight_seconds, at_seconds, 0.4)
        way = velocity if np.hypot(*velocity) > 0.2 else np.array([0.2, -1.0])
        aim = (
            way / np.hypot(*way) * (1 - fighting) + inwards / (np.hypot(*inwards) + 0.1) * fighting
        )
        return math.atan2(aim[0], aim[1])

    def _noise(self, at_seconds: float) -> Points:
        """(11,) in -1..1, each a sum of three incommensurable swings."""
        swings = np.sin(2 * math.pi * self.rates_hz * at_seconds + self.phases)
        return np.asarray(swings.mean(axis=1) * 1.6)

    def _brawl(self, at_seconds: float) -> Pose:
        """Punches, kicks, shoves."""
        swing = self._noise(at_seconds)
        return Pose(
            leg_left=0.25 + 0.65 * swing[0],
            leg_right=-0.1 + 0.65 * swing[1],
            knee_left=0.45 + 0.4 * swing[2],
            knee_right=0.45 + 0.4 * swing[3],
            arm_left=1.35 + 1.1 * swing[4],
            arm_right=1.35 + 1.1 * swing[5],
            elbow_left=0.8 + 0.8 * swing[6],
            elbow_right=0.8 + 0.8 * swing[7],
            spread=0.35 + 0.3 * swing[8],
            lean=0.3 + 0.45 * swing[9],
            tilt=0.2 * swing[10],
        )

    def _flail(self, at_seconds: float) -> Pose:
        """On the back, warding off."""
        swing = self._noise(at_seconds)
        return Pose(
            leg_left=0.6 + 0.5 * swing[0],
            leg_right=0.4 + 0.5 * swing[1],
            knee_left=0.9 + 0.5 * swing[2],
            knee_right=0.8 + 0.5 * swing[3],
            arm_left=1.7 + 0.8 * swing[4],
            arm_right=1.5 + 0.8 * swing[5],
            elbow_left=0.7 + 0.5 * swing[6],
            elbow_right=0.7 + 0.5 * swing[7],
            spread=0.5,
            lean=0.25 + 0.2 * swing[9],
            tilt=-1.35,
        )


def cast(
    rng: np.random.Generator, duration_seconds: float, event_seconds: tuple[float, float]
) -> list[Person]:
    """Everybody in the scene, the fighters first."""
    return [_person(rng, index, duration_seconds, event_seconds) for index in range(len(_BEATS))]


def _person(
    rng: np.random.Generator, index: int, duration_seconds: float, event: tuple[float, float]
) -> Person:
    fights = index < _FIGHTERS
    calm_until = event[0] if fights else duration_seconds + 1
    way = _Way(_start(rng, index), -1.0)
    _walk_to_and_fro(way, rng, _BEATS[index], calm_until)
    fight = fall = None
    if fights:
        fight = (event[0] + 0.4, event[1] - (1.6 if index in _FLEE_TO else 0.3))
        _brawl_about(way, rng, index, fight[1])
        _leave(way, rng, index, duration_seconds + 1)
    if index == _FALLS:
        fall = (event[0] + 0.4 * (event[1] - event[0]), event[1])
    knot_seconds, knots = np.array(way.seconds), np.array(way.places)
    steps = np.hypot(*np.diff(knots, axis=0).T)
    return Person(
        look=_LOOKS[index],
        knot_seconds=knot_seconds,
        knots=knots,
        way_metres=np.concatenate([[0.0], np.cumsum(steps)]),
        fight_seconds=fight,
        fall_seconds=fall,
        phases=rng.uniform(0, 2 * math.pi, (_CHAOS, 3)),
        rates_hz=rng.uniform(0.9, 3.0, (_CHAOS, 3)),
    )


class _Way:
    """Knots of a path, built one after another."""

    def __init__(self, start: Points, at_seconds: float) -> None:
        self.seconds = [at_seconds]
        self.places = [start]

    def wait(self, seconds: float) -> None:
        self.seconds.append(self.seconds[-1] + seconds)
        self.places.append(self.places[-1])

    def go(self, place: Points, speed: float, until_seconds: float = math.inf) -> None:
        """Straight to `place`, or as far as time allows."""
        here, now = self.places[-1], self.seconds[-1]
        needed = max(1e-3, float(np.hypot(*(place - here))) / speed)
        part = min(1.0, max(1e-3, until_seconds - now) / needed)
        self.seconds.append(now + needed * part)
        self.places.append(here + (place - here) * part)


def _start(rng: np.random.Generator, index: int) -> Points:
    first, last = (np.array(place) for place in _BEATS[index])
    return np.asarray(first + (last - first) * rng.uniform(0.1, 0.9))


def _walk_to_and_fro(
    way: _Way,
    rng: np.random.Generator,
    beat: tuple[tuple[float, float], tuple[float, float]],
    until_seconds: float,
) -> None:
    ends = [np.array(place) for place in beat]
    turn = int(rng.integers(2))
    while way.seconds[-1] < until_seconds - 1e-6:
        speed = WALK_SPEED * rng.uniform(0.8, 1.1)
        way.go(ends[turn % 2] + rng.normal(0, 0.15, 2), speed, until_seconds)
        if way.seconds[-1] < until_seconds - 2 * _TURN_SECONDS:
            way.wait(_TURN_SECONDS)
        turn += 1


def _brawl_about(way: _Way, rng: np.random.Generator, index: int, until_seconds: float) -> None:
    """Rush in, then shove to and fro around the middle."""
    angle = 2 * math.pi * index / _FIGHTERS
    while way.seconds[-1] < until_seconds - 1e-6:
        reach = rng.uniform(0.3, 1.7)
        angle += rng.normal(0, 0.6)
        spot = _FIGHT_CENTRE + reach * np.array([1.25 * math.cos(angle), 0.7 * math.sin(angle)])
        distance = float(np.hypot(*(spot - way.places[-1])))
        speed = RUN_SPEED if distance > 2.5 else max(0.3, distance / _KNOT_SECONDS)
        way.go(spot, min(_LUNGE_SPEED, speed), until_seconds)


def _leave(way: _Way, rng: np.random.Generator, index: int, until_seconds: float) -> None:
    """Two flee at a run before the event ends; the others calm down and walk on."""
    if index in _FLEE_TO:
        way.go(np.array(_FLEE_TO[index]), RUN_SPEED * 1.1, until_seconds)
        way.wait(max(1.0, until_seconds - way.seconds[-1]))
        return
    way.wait(_RISE_SECONDS + 0.8 if index == _FALLS else rng.uniform(0.3, 0.8))
    _walk_to_and_fro(way, rng, _BEATS[index], until_seconds)


def _gait(way_metres: float, speed: float) -> Pose:
    """Standing at 0 m/s, walking at 1, running from about 3."""
    run = min(1.0, max(0.0, (speed - 1.8) / 1.6))
    stride = _STRIDE_METRES * (1 + 0.9 * run)
    phase = 2 * math.pi * way_metres / stride
    amount = min(1.0, speed / WALK_SPEED)
    swing, lift = (0.42 + 0.4 * run) * amount, (0.55 + 0.75 * run) * amount
    sine, cosine = math.sin(phase), math.cos(phase)
    return Pose(
        leg_left=swing * sine,
        leg_right=-swing * sine,
        knee_left=0.06 + lift * max(0.0, cosine),
        knee_right=0.06 + lift * max(0.0, -cosine),
        arm_left=-0.8 * swing * sine,
        arm_right=0.8 * swing * sine,
        elbow_left=0.2 + 1.2 * run,
        elbow_right=0.2 + 1.2 * run,
        lean=0.03 + 0.22 * run,
    )


def _ramp(
    span_seconds: tuple[float, float] | None,
    at_seconds: float,
    enter_seconds: float,
    leave_seconds: float | None = None,
) -> float:
    """0 outside the span, 1 inside, straight slopes at its ends."""
    if span_seconds is None:
        return 0.0
    rising = (at_seconds - span_seconds[0]) / enter_seconds
    falling = (span_seconds[1] - at_seconds) / (leave_seconds or enter_seconds) + 1
    return min(1.0, max(0.0, min(rising, falling)))
