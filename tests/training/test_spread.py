"""Spread over seeds: Student's interval, and differences seed by seed."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from training.spread import Spread

values = st.lists(st.floats(-100, 100), min_size=2, max_size=40)


@pytest.mark.parametrize("count", [2, 3, 5, 10, 31])
def test_the_interval_is_student_s(count: int) -> None:
    found = Spread(0.0, 1.0, count).half_width
    expected = stats.t.ppf(0.975, count - 1) / math.sqrt(count)
    assert found == pytest.approx(expected, abs=5e-4)


def test_many_seeds_keep_the_widest_interval_that_is_known() -> None:
    assert Spread(0.0, 1.0, 400).half_width == pytest.approx(2.042 / 20)


@given(values, st.floats(-100, 100))
def test_what_both_share_cancels(aucs: list[float], shared: float) -> None:
    found = Spread.of_pairs([auc + shared for auc in aucs], aucs)
    assert found.mean == pytest.approx(shared, abs=1e-9)
    assert found.deviation == pytest.approx(0, abs=1e-9)


def test_a_difference_is_beyond_noise_where_its_interval_leaves_out_0() -> None:
    # Of five values of deviation 1, half of the interval is 2.776 / sqrt(5) = 1.241.
    assert Spread(-1.25, 1.0, 5).is_beyond_noise
    assert not Spread(1.24, 1.0, 5).is_beyond_noise
    assert not Spread.of_pairs([1.0, 2.0], [1.0, 2.0]).is_beyond_noise
