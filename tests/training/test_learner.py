"""One step of fitting: what it logs, and that it repeats."""

from __future__ import annotations

import math

import pytest
import torch

from training.fitted_bags import HEAD, OBJECTIVE, as_batch
from training.head import Head
from training.learner import FIGURES, Learner, LearnerSpec
from training.objective import LAP
from training.problems import Bags, Planting, axis, planted
from training.scaling import ScalingSpec, Schedule


def bags(*, synthetic: bool = True) -> Bags:
    random = torch.Generator().manual_seed(0)
    real = planted(Planting(axis(0, 3.0)), 8, 8, random)
    made = planted(Planting(axis(0, 3.0), synthetic=True), 8, 8, random)
    return Bags.join([real, made]) if synthetic else real


def learner(kind: str = "fixed", *, released: bool = False) -> Learner:
    torch.manual_seed(0)
    scaling = ScalingSpec(kind, value=0.5, schedule=Schedule("none"))
    return Learner(Head(HEAD), LearnerSpec(50, 1e-2, 1e-2, OBJECTIVE, scaling, released, seed=4))


@pytest.mark.parametrize("kind", ["fixed", "learnable", "uncertainty", "meta"])
def test_a_restored_learner_takes_the_steps_that_it_would_have_taken(kind: str) -> None:
    first, second = learner(kind), learner(kind)
    batch = as_batch(bags())
    held_out = as_batch(bags(synthetic=False))
    for step in range(3):
        first.step(step, batch, lambda: held_out)
    saved = {name: tensor.clone() for name, tensor in first.state().items()}
    torch.manual_seed(99)  # what the program did meanwhile
    second.restore(saved)
    for step in range(3, 6):
        figures = [one.step(step, batch, lambda: held_out) for one in (first, second)]
        assert figures[0] == figures[1]
    for name, tensor in first.state().items():
        assert torch.equal(tensor, second.state()[name]), name


def test_a_step_leaves_the_caller_s_chance_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    one = Learner(Head(HEAD), LearnerSpec(5, objective=OBJECTIVE))
    torch.manual_seed(7)
    one.step(0, as_batch(bags()))
    assert torch.equal(torch.rand(3), expected)


def test_all_that_is_logged_has_a_column() -> None:
    held_out = as_batch(bags(synthetic=False))
    figures = learner("meta").step(0, as_batch(bags()), lambda: held_out)
    assert set(figures) < set(FIGURES)
    assert {"gradient_cosine", "gradient_agreement", "alignment", "lambda"} < set(figures)
    assert -1 <= figures["gradient_cosine"] <= 1
    assert 0 <= figures["gradient_agreement"] <= 1


def test_losses_are_told_by_source() -> None:
    figures = learner().step(0, as_batch(bags()))
    mean = (figures["loss_real"] + figures["loss_synthetic"]) / 2
    assert mean == pytest.approx(figures["term_mil"])
    alone = learner().step(0, as_batch(bags(synthetic=False)))
    assert math.isnan(alone["loss_synthetic"])
    assert "gradient_cosine" not in alone


def test_the_paper_s_lambda_falls_by_the_loss_of_synthetic_videos() -> None:
    one = learner("learnable")
    before = one.policy.value()
    for step in range(5):
        one.step(step, as_batch(bags()))
    assert one.policy.value() < before


def test_prompts_reach_the_objective() -> None:
    torch.manual_seed(0)
    spec = LearnerSpec(5, objective=LAP)
    truth = bags().truth.float()
    figures = Learner(Head(HEAD), spec, lambda batch: truth).step(0, as_batch(bags()))
    assert figures["term_pal"] > 0
    assert "term_mpl" in figures  # 0 where the triplet keeps its margin
    with pytest.raises(ValueError, match="suspicion"):
        Learner(Head(HEAD), spec).step(0, as_batch(bags()))


def test_the_released_objective_is_one_switch_away() -> None:
    figures = [learner(released=on).step(0, as_batch(bags())) for on in (False, True)]
    assert figures[0]["loss"] != figures[1]["loss"]
