"""Metrics against independent references and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2
from sklearn.metrics import average_precision_score, roc_auc_score

from server.metrics import average_precision, frame_scores, poisson_interval, roc_auc

both_classes = st.lists(
    st.tuples(st.booleans(), st.integers(0, 9)), min_size=2, max_size=60
).filter(lambda pairs: {label for label, _ in pairs} == {True, False})


def arrays(pairs: list[tuple[bool, int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([p[0] for p in pairs]), np.array([p[1] / 9 for p in pairs])


@given(both_classes)
def test_auc_and_ap_equal_scikit_learn_ties_included(pairs: list[tuple[bool, int]]) -> None:
    labels, scores = arrays(pairs)
    # Rank sums of at most 60 numbers: the difference is rounding alone.
    assert roc_auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    expected = average_precision_score(labels, scores)
    assert average_precision(labels, scores) == pytest.approx(expected, abs=1e-12)


@given(both_classes)
def test_auc_is_unchanged_by_a_monotone_map_and_mirrored_by_negation(
    pairs: list[tuple[bool, int]],
) -> None:
    labels, scores = arrays(pairs)
    auc = roc_auc(labels, scores)
    assert auc is not None
    assert roc_auc(labels, np.exp(3 * scores) - 7) == auc
    assert roc_auc(labels, -scores) == pytest.approx(1 - auc)


def test_one_class_alone_has_no_auc() -> None:
    scores = np.array([0.1, 0.9])
    assert roc_auc(np.array([True, True]), scores) is None
    assert roc_auc(np.array([False, False]), scores) is None
    assert average_precision(np.array([False, False]), scores) is None


def test_a_score_holds_until_the_next_window_and_to_the_end() -> None:
    assert frame_scores([0, 3, 5], [0.1, 0.2, 0.3], 8).tolist() == [
        *[0.1] * 3,
        *[0.2] * 2,
        *[0.3] * 3,
    ]
    with pytest.raises(ValueError, match="at least one window"):
        frame_scores([], [], 8)


@pytest.mark.parametrize("events", [0, 1, 2, 7, 100, 2000])
def test_the_poisson_interval_is_garwoods(events: int) -> None:
    low, high = poisson_interval(events)
    assert high == pytest.approx(chi2.ppf(0.975, 2 * events + 2) / 2, rel=1e-9)
    assert low == pytest.approx(chi2.ppf(0.025, 2 * events) / 2 if events else 0.0, rel=1e-9)
