"""Policies and schedules of lambda."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.scaling import (
    Evidence,
    Fall,
    Rise,
    ScalingSpec,
    Schedule,
    policy_of,
)

STEPS = 1000
KINDS = ("fixed", "learnable", "uncertainty", "meta")


def evidence(
    real: float = 1.0, synthetic: float = 1.0, slope: float = 0.1, alignment: float | None = None
) -> Evidence:
    return Evidence(real, synthetic, slope, alignment)


@pytest.mark.parametrize("rise", ["linear", "exponential", "cosine"])
def test_a_rise_runs_from_a_thousandth_to_one_over_its_share(rise: Rise) -> None:
    schedule = Schedule(rise, 0.1)
    factors = [schedule.factor(step, STEPS) for step in range(STEPS)]
    assert factors[0] == pytest.approx(1e-3)
    assert all(a < b for a, b in pairwise(factors[:101]))
    assert factors[100:] == [1.0] * 900


def test_rises_differ_in_the_middle() -> None:
    middle = {rise: Schedule(rise, 0.1).factor(50, STEPS) for rise in ("linear", "exponential")}
    assert middle["linear"] == pytest.approx(0.5005)
    assert middle["exponential"] == pytest.approx(1e-3**0.5)


def test_falls_end_where_they_should() -> None:
    cosine = Schedule("linear", 0.1, "cosine")
    assert cosine.factor(100, STEPS) == 1.0
    assert cosine.factor(STEPS - 1, STEPS) == pytest.approx(0, abs=1e-12)
    steps = Schedule("none", 0.1, "steps")
    found = [steps.factor(step, STEPS) for step in (0, 199, 200, 400)]
    assert found == pytest.approx([1, 1, 0.1, 0.01])


@given(
    rise=st.sampled_from(["none", "linear", "exponential", "cosine"]),
    fall=st.sampled_from(["none", "cosine", "steps"]),
    share=st.floats(0, 1),
    steps=st.integers(1, 50),
)
def test_a_factor_is_always_within_0_and_1(
    rise: Rise, fall: Fall, share: float, steps: int
) -> None:
    factors = [Schedule(rise, share, fall).factor(step, steps) for step in range(steps)]
    assert all(-1e-12 <= factor <= 1 for factor in factors)


@pytest.mark.parametrize("kind", KINDS)
def test_every_policy_starts_at_its_value(kind: str) -> None:
    assert policy_of(ScalingSpec(kind, value=0.7)).value() == pytest.approx(0.7)


@pytest.mark.parametrize("kind", KINDS)
def test_a_restored_policy_goes_on_as_the_one_that_was_saved(kind: str) -> None:
    spec = ScalingSpec(kind, value=0.7)
    first, second = policy_of(spec), policy_of(spec)
    seen = [evidence(1 / (1 + n), 0.5, 0.1 * n, math.sin(n)) for n in range(20)]
    for one in seen[:10]:
        first.learn(one)
    second.restore(first.state())
    for one in seen[10:]:
        first.learn(one)
        second.learn(one)
    assert first.value() == second.value()


def test_the_paper_s_learnable_lambda_only_falls_and_below_zero() -> None:
    policy = policy_of(ScalingSpec("learnable", value=0.1, rate=0.01))
    values = []
    for step in range(50):
        values.append(policy.value())
        policy.learn(evidence(slope=0.3 + 0.1 * math.sin(step)))
    assert all(a > b for a, b in pairwise(values))
    assert policy.value() < 0


@pytest.mark.parametrize(("real", "synthetic"), [(0.4, 0.5), (0.6, 0.4), (0.3, 0.3)])
def test_uncertainty_rests_at_the_ratio_of_losses(real: float, synthetic: float) -> None:
    policy = policy_of(ScalingSpec("uncertainty", rate=0.02))
    for _ in range(3000):
        policy.learn(evidence(real, synthetic))
    assert policy.value() == pytest.approx(real / synthetic, rel=0.02)


def test_uncertainty_is_bounded_and_ignores_steps_of_one_source() -> None:
    policy = policy_of(ScalingSpec("uncertainty", limit=2.0, rate=0.05))
    for _ in range(2000):
        policy.learn(evidence(1.0, 0.01))
    assert policy.value() == 2.0
    before = policy.state()
    policy.learn(evidence(synthetic=math.nan))
    assert before.equal(policy.state())


@pytest.mark.parametrize(("alignment", "rises"), [(0.3, True), (-0.3, False)])
def test_meta_follows_what_held_out_real_videos_say(alignment: float, rises: bool) -> None:
    policy = policy_of(ScalingSpec("meta", value=1.0, limit=2.0))
    policy.learn(evidence())
    assert policy.value() == pytest.approx(1.0)
    for _ in range(2000):
        policy.learn(evidence(alignment=alignment))
    assert (policy.value() > 1.8) if rises else (policy.value() < 0.2)
    assert 0 < policy.value() < 2


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"value": -1.0}, "value"),
        ({"rate": 0.0}, "rate"),
        ({"kind": "meta", "value": 2.0}, "between 0 and limit"),
    ],
)
def test_a_spec_that_cannot_be_is_refused(spec: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ScalingSpec(**spec)
    with pytest.raises(ValueError, match="rise_share"):
        Schedule(rise_share=1.5)
