"""The search for the largest number of cameras that holds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from server.bench.ramp import Limits, Ramp, search

MOST = 200


@dataclass(frozen=True)
class Tried:
    cameras: int
    longer: bool
    holds: bool


def run(truth: Callable[[int, bool], bool], guess: int, limits: Limits) -> Ramp[Tried]:
    """Search with an attempt that asks `truth`."""

    def attempt(cameras: int, longer: bool) -> Tried:
        assert 1 <= cameras <= limits.most_cameras
        return Tried(cameras, longer, truth(cameras, longer))

    return search(attempt, guess, limits)


@st.composite
def machines(draw: st.DrawFn) -> tuple[int, int]:
    """What a machine holds, and a guess of it."""
    return draw(st.integers(0, MOST - 1)), draw(st.integers(1, MOST))


@given(machines(), st.booleans(), st.floats(0.01, 1))
def test_what_a_machine_holds_is_found_exactly(
    machine: tuple[int, int], patient: bool, step: float
) -> None:
    held, guess = machine
    found = run(lambda n, _: n <= held, guess, Limits(MOST, 100, step, patient))
    assert (found.cameras, found.exact) == (held, True)


@given(machines(), st.integers(0, 60))
def test_one_noisy_failure_changes_nothing(machine: tuple[int, int], noisy: int) -> None:
    held, guess = machine
    asked = 0

    def truth(cameras: int, longer: bool) -> bool:
        nonlocal asked
        asked += 1
        return cameras <= held and asked != noisy + 1

    assert run(truth, guess, Limits(MOST, 100)).cameras == held


@given(machines())
def test_tries_grow_with_the_logarithm_of_the_answer(machine: tuple[int, int]) -> None:
    held, guess = machine
    found = run(lambda n, _: n <= held, guess, Limits(MOST, 1000))
    # Bracket and halving take about as many steps each; one that fails takes two tries.
    assert len(found.trials) <= 2 * (2 * math.ceil(math.log2(MOST)) + 2)


@given(machines(), st.integers(1, 12), st.booleans())
def test_a_search_that_runs_out_of_tries_tells_the_best_that_held(
    machine: tuple[int, int], most_trials: int, patient: bool
) -> None:
    held, guess = machine
    found = run(lambda n, _: n <= held, guess, Limits(MOST, most_trials, patient=patient))
    assert len(found.trials) <= most_trials
    assert found.cameras == max((one.cameras for one in found.trials if one.holds), default=0)
    assert not found.exact or found.cameras == held


@given(st.integers(2, MOST - 1), st.integers(1, MOST), st.data())
def test_what_does_not_hold_for_longer_is_not_the_answer(
    held: int, guess: int, data: st.DataObject
) -> None:
    really = data.draw(st.integers(0, held - 1))
    found = run(lambda n, longer: n <= (really if longer else held), guess, Limits(MOST, 1000))
    assert found.cameras == really
    assert all(one.cameras > really for one in found.trials if one.longer and not one.holds)


def test_an_answer_at_the_end_of_the_cameras_is_told_not_to_be_exact() -> None:
    found = run(lambda n, _: True, 20, Limits(30))
    assert (found.cameras, found.exact) == (30, False)


def test_the_second_try_is_as_far_from_the_guess_as_asked() -> None:
    found = run(lambda n, _: n <= 60, 40, Limits(MOST, 3, first_step=0.25, patient=False))
    assert [one.cameras for one in found.trials] == [40, 50, 70]
