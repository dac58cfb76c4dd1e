"""The domain gap: a probe that sees it, and conclusions that say no more than the figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.ablate_gap import (
    ALONG,
    DISPLACED,
    GAPS,
    SCALES,
    TURNED,
    Gap,
    GapCell,
    GapResult,
    conclusions,
    gap_figures,
)
from training.ablate_report import gap_markdown

NOISE = (-0.002, -0.001, 0.0, 0.001, 0.002)


def results_of(probe: float, aucs: dict[float, float]) -> list[GapResult]:
    """As if five seeds had found these AUCs, give or take noise; 0.6 of the other lambdas."""
    results = []
    for noise in NOISE:
        found = tuple(aucs.get(scale, 0.6) + noise * (1 + scale) for scale in SCALES)
        results.append(GapResult(probe_auc=probe, validation=found, test=found))
    return results


def told(near: dict[float, float], far: float, displaced: float, turned: float) -> list[str]:
    """Conclusions where those lambdas are best."""
    found = {gap: results_of(0.7 + 0.1 * n, {far: 0.9}) for n, gap in enumerate(ALONG)}
    found[ALONG[0]] = results_of(0.5, near)
    found[DISPLACED] = results_of(0.99, {displaced: 0.9})
    found[TURNED] = results_of(0.52, {turned: 0.9})
    return conclusions(gap_figures(found))


@pytest.mark.parametrize(
    ("gap", "lowest", "highest"), [(ALONG[0], 0.47, 0.53), (ALONG[-1], 0.99, 1)]
)
def test_the_probe_sees_the_gap(gap: Gap, lowest: float, highest: float) -> None:
    found = GapCell(gap, 0, 1).run(Path(), lambda steps: None)
    assert lowest <= found.probe_auc <= highest
    assert all(0 <= auc <= 1 for auc in (*found.validation, *found.test))


def test_a_turned_anomaly_is_hardly_seen_by_the_probe() -> None:
    found = GapCell(TURNED, 0, 1).run(Path(), lambda steps: None)
    assert found.probe_auc < 0.56


def test_real_videos_alone_are_the_same_beside_any_gap() -> None:
    near, far = (GapCell(gap, 0, 1).run(Path(), lambda steps: None) for gap in (ALONG[0], TURNED))
    assert (len(near.test), len(far.test)) == (len(SCALES), len(SCALES) - 1)
    pooled = gap_figures({ALONG[0]: [near, near], TURNED: [far, far]})
    assert pooled[TURNED].test[0].mean == pooled[ALONG[0]].test[0].mean == near.test[0]
    assert pooled[TURNED].test[1].mean == far.test[0]


def test_no_need_of_scaling_is_claimed_only_where_lambda_1_or_more_is_best() -> None:
    assert "need no scaling down" in told({1.0: 0.9}, 0.1, 1.0, 0.1)[0]
    assert "need no scaling down" in told({2.0: 0.9}, 0.1, 1.0, 0.1)[0]
    tied = told({0.5: 0.9001, 1.0: 0.9}, 0.1, 1.0, 0.1)[0]
    assert "can't be claimed" in tied
    assert "within noise" in tied
    assert "scaling helps even there" in told({0.5: 0.9, 1.0: 0.8}, 0.1, 1.0, 0.1)[0]


def test_the_way_of_lambda_is_told_as_it_is() -> None:
    falls = told({1.0: 0.9}, 0.1, 1.0, 0.1)[1]
    assert "from 0.500 to 1.000" in falls
    assert "is 1, 0.1, 0.1, 0.1: it never rises" in falls
    assert "it does not fall" in told({1.0: 0.9}, 2.0, 1.0, 0.1)[1]


def test_a_probe_is_blamed_only_for_what_it_missed() -> None:
    both = told({1.0: 0.9}, 0.1, 1.0, 0.1)[-1]
    assert "a probe of 0.520 can hide a gap that calls for λ 0.1" in both
    assert "a probe of 0.990 can stand for one where scaling down is not" in both
    assert "agree" in told({1.0: 0.9}, 0.1, 0.1, 1.0)[-1]


def test_lambda_is_chosen_on_validation_and_judged_on_test() -> None:
    validation = tuple(0.9 if scale == 0.5 else 0.5 for scale in SCALES)
    test = tuple(0.7 if scale == 0.5 else 0.8 for scale in SCALES)
    result = GapResult(probe_auc=0.5, validation=validation, test=test)
    found = gap_figures({ALONG[0]: [result, result]})[ALONG[0]]
    assert found.scale == 0.5
    assert found.over_unscaled.mean == pytest.approx(-0.1)


def test_the_report_holds_every_figure() -> None:
    found = gap_figures({gap: results_of(0.75, {0.25: 0.912}) for gap in GAPS})
    text = gap_markdown(found, 5, ["So it is."])
    assert text.count("| 91.2 ± 0.2 |") == len(GAPS)
    assert "| 4 | 90° | 0.750 |" in text
    assert "| 0.25 (0.25, 0.25, 0.25, 0.25, 0.25) | **+31.20 ± 0.12** |" in text
    assert "So it is." in text
    assert "Only" not in text
    assert "Only 2 seeds" in gap_markdown(found, 2, [])


def test_cells_differ_by_all_that_decides_them() -> None:
    cells = [
        GapCell(ALONG[0], 0),
        GapCell(ALONG[1], 0),
        GapCell(ALONG[0], 1),
        GapCell(TURNED, 0, 5),
    ]
    assert len({cell.key for cell in cells}) == 4
    assert GapCell(ALONG[0], 0).key == cells[0].key
