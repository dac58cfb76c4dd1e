"""Scores that moved, and when a stream should be calibrated again."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.calibration import Calibration
from server.drift import is_beyond, proposal, stability_index
from server.series import HISTOGRAM_BINS, ScoreSeries

BUNDLE = "ab" * 32


def histogram(scores: np.ndarray) -> list[int]:
    return ScoreSeries.regular(1.28, np.clip(scores, 0, 1)).histogram().tolist()


def calm(seed: int, windows: int = 20_000, centre: float = 0.05) -> np.ndarray:
    return centre + 0.01 * np.random.default_rng(seed).standard_normal(windows)


def test_the_same_scene_does_not_drift_even_where_all_scores_lie_close_together() -> None:
    index = stability_index(histogram(calm(1)), histogram(calm(2)))
    assert index is not None
    assert 0 <= index < 0.01


def test_a_scene_that_scores_a_hundredth_higher_drifts() -> None:
    reference = histogram(calm(1))
    slight, clear = (
        stability_index(reference, histogram(calm(2, centre=centre))) for centre in (0.052, 0.06)
    )
    assert slight is not None
    assert clear is not None
    assert slight < 0.1 < 0.25 < clear


def test_scores_where_none_were_are_drift_even_from_a_single_bin() -> None:
    still = [0] * HISTOGRAM_BINS
    still[30] = 5000
    for place in (0, 29, 31, 999):
        moved = [0] * HISTOGRAM_BINS
        moved[place] = 5000
        index = stability_index(still, moved)
        assert index is not None
        assert index > 1
    assert stability_index(still, still) == 0


def test_too_few_scores_say_nothing() -> None:
    assert stability_index(histogram(calm(1)), histogram(calm(2, windows=999))) is None
    assert stability_index(histogram(calm(1, windows=999)), histogram(calm(2))) is None


@given(
    st.lists(st.integers(0, 1000), min_size=20, max_size=20),
    st.lists(st.integers(0, 1000), min_size=20, max_size=20),
)
def test_the_index_is_never_negative_and_zero_against_itself(first, second) -> None:
    index = stability_index(first, second)
    assert (index is None) == (min(sum(first), sum(second)) < 1000)
    if index is not None:
        assert 0 <= index < math.inf
        assert stability_index(first, first) == 0


@pytest.mark.parametrize(("events", "beyond"), [(0, False), (1, False), (4, False), (6, True)])
def test_more_events_than_chance_allows_are_beyond(events: int, beyond: bool) -> None:
    # P(X >= 5) is 0.0037 and P(X >= 6) is 0.0006 at a mean of 1.
    assert is_beyond(events, 1.0) is beyond


def calibrated(bundle_id: str = BUNDLE) -> Calibration:
    return Calibration(bundle_id, 0.5, 1.0, 3e5, 2, 0.1, 2.0, True, "", 1e9)


@pytest.mark.parametrize(
    ("drift", "opened", "told"),
    [
        (None, None, ""),
        (0.25, (4, 1.0), ""),
        (0.26, None, "population stability index 0.26, over 0.25"),
        (0.05, (6, 1.0), "it opened 6 events in the last 24.0 hours, and the budget is 1 a day"),
        (0.05, (6, 0.0), ""),
    ],
)
def test_a_new_calibration_is_proposed_for_a_reason(drift, opened, told) -> None:
    assert told in proposal(calibrated(), BUNDLE, drift, opened)
    assert bool(proposal(calibrated(), BUNDLE, drift, opened)) == bool(told)


def test_a_calibration_of_another_bundle_proposes_a_new_one_first_of_all() -> None:
    sentence = proposal(calibrated("cd" * 32), BUNDLE, 0.9, (99, 1.0))
    assert sentence.startswith("it was calibrated with bundle cdcdcdcdcdcd, and abababababab is")
