"""Policies: the paper's lambda only falls, and conclusions follow from the figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from training.ablate_learnable import (
    ALONE,
    CLEAN,
    HALF,
    LEARNABLE,
    POLICIES,
    PROBLEMS,
    SWAPPED,
    PolicyCell,
    PolicyResult,
    conclusions,
    policy_figures,
)
from training.ablate_report import learnable_markdown


def result(auc: float, last: float, cosine: float) -> PolicyResult:
    scale = tuple(np.linspace(1.0, last, 8).tolist())
    return PolicyResult(
        auc=auc, scale=scale, cosine=(None, *[cosine] * 7), agreement=(None, *[0.6] * 7)
    )


def told(ends: dict[str, float], cosines: dict[str, float]) -> dict[str, str]:
    """Conclusions where every policy's lambda ends so on each problem, by their beginning."""
    results = {
        (problem, policy): [
            result(0.9 + 0.01 * seed, ends[problem] + 0.01 * seed, cosines[problem])
            for seed in range(3)
        ]
        for problem in PROBLEMS
        for policy in POLICIES
    }
    said = conclusions(policy_figures(results))
    return {" ".join(text.split()[:2]): text for text in said}


def ends(clean: float, swapped: float) -> dict[str, float]:
    return dict(zip(PROBLEMS, (clean, min(clean, 0.5), swapped), strict=True))


def test_lambda_of_the_paper_only_falls_whatever_the_videos_are_worth() -> None:
    for problem in (CLEAN, SWAPPED):
        cell = PolicyCell(problem, LEARNABLE, 0, 30)
        found = cell.run(Path(), lambda steps: None)
        assert found.scale[0] == 1.0
        assert (np.diff(found.scale) < 0).all()
        assert len(found.cosine) == 30


def test_meta_is_given_no_more_real_videos_than_the_others() -> None:
    steps: list[int] = []
    found = PolicyCell(CLEAN, "meta", 0, 5).run(Path(), steps.append)
    assert sum(steps) == 5
    assert found.scale[-1] != 1.0


def test_telling_apart_is_claimed_only_beyond_noise_and_in_the_right_order() -> None:
    level = dict.fromkeys(PROBLEMS, 0.0)
    for clean, swapped, said in (
        (1.9, 0.1, "gives synthetic videos that help more weight than"),
        (0.5, 0.5, "no more weight"),
        (-0.9, -1.0, "takes all weight from synthetic videos"),
        (0.1, 1.9, "gives mislabelled synthetic videos more weight"),
    ):
        assert said in told(ends(clean, swapped), level)["**meta**: λ"]


def test_a_lambda_below_0_is_told() -> None:
    level = dict.fromkeys(PROBLEMS, 0.0)
    below = told(ends(-0.9, -0.9), level)["The paper's"]
    assert "rose in 0 of 63 steps" in below
    assert "fell to -0.90; below 0 training raises the loss" in below
    assert "below 0" not in told(ends(0.2, 0.2), level)["The paper's"]


@pytest.mark.parametrize(
    ("swapped", "said"), [(-0.2, "It is lower where"), (0.3, "It doesn't tell")]
)
def test_gradients_tell_only_where_they_differ(swapped: float, said: str) -> None:
    cosines = dict(zip(PROBLEMS, (0.3, 0.1, swapped), strict=True))
    found = told(ends(1.0, 1.0), cosines)["Cosine of"]
    assert said in found
    assert "0.30 ± 0.00 (clean), 0.10 ± 0.00 (spurious axis)" in found


def test_the_report_holds_every_policy() -> None:
    results = {
        (problem, policy): [
            result(0.7 + 0.1 * (policy != ALONE) + 0.01 * n, 0.5, 0.25) for n in range(3)
        ]
        for problem in PROBLEMS
        for policy in POLICIES
    }
    found = policy_figures(results)
    text = learnable_markdown(found, 3, conclusions(found))
    assert text.count(f"| {HALF} | 81.0 ± 1.0 | **+10.00 ± 0.00** | 0.50 ± 0.00 |") == 3
    assert text.count(f"| {ALONE} | 71.0 ± 1.0 | - |") == 3
    assert "Only 3 seeds" in text
    assert "13 + 13 of the real ones aside" in text
