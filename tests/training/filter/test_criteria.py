"""Criteria against their formulas, written out plainly."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.contract import Feature
from training.filter.criteria import (
    BY_NAME,
    Limit,
    consistency,
    contrast,
    contrast_of_normal,
    distance_to,
    goodness,
    prompt_agreement,
    similarities,
)


def unit(seed: int, count: int, width: int = 6) -> Feature:
    made = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return np.asarray(made / np.linalg.norm(made, axis=1, keepdims=True), np.float32)


def test_prompt_agreement_is_the_mean_cosine() -> None:
    features, text = unit(0, 5), unit(1, 1)[0]
    expected = sum(float(np.dot(frame, text)) for frame in features) / 5
    assert prompt_agreement(features, text) == pytest.approx(expected, abs=1e-6)
    assert prompt_agreement(np.tile(text, (3, 1)), text) == pytest.approx(1, abs=1e-6)


def test_contrast_is_the_top_quarter_of_sigmoids() -> None:
    features, (own, twin) = unit(2, 8), unit(3, 2)
    each = [1 / (1 + math.exp(-100 * float(f @ own - f @ twin))) for f in features.astype(float)]
    top = sorted(each)[-2:]
    assert contrast(features, own, twin) == pytest.approx(sum(top) / 2, abs=1e-4)
    low = sorted(each)[:2]
    assert contrast_of_normal(features, own, twin) == pytest.approx(sum(low) / 2, abs=1e-4)


def test_a_normal_video_is_as_good_as_its_most_anomalous_moment_is_not() -> None:
    own, twin = np.eye(2, dtype=np.float32)
    calm, odd = np.tile(own, (8, 1)), np.tile(own, (8, 1))
    odd[:2] = twin
    assert contrast_of_normal(calm, own, twin) > 0.99
    assert contrast_of_normal(odd, own, twin) < 0.01
    assert contrast(odd, twin, own) > 0.99  # an anomaly may be as short


def test_consistency_is_one_for_a_frozen_video_and_falls_as_it_flickers() -> None:
    still = np.tile(unit(4, 1), (6, 1))
    assert consistency(still) == pytest.approx(1, abs=1e-6)
    blinking = np.concatenate([unit(4, 1), unit(5, 1)] * 3)
    assert consistency(blinking) == pytest.approx(float(unit(4, 1)[0] @ unit(5, 1)[0]), abs=1e-6)
    assert math.isnan(consistency(unit(4, 1)))


def test_distance_is_that_to_the_five_nearest_real_features() -> None:
    features, real = unit(6, 4), unit(7, 30)
    expected = [sorted(1 - float(f @ r) for r in real)[:5] for f in features]
    assert distance_to(features, real) == pytest.approx(np.mean(expected), abs=1e-6)
    assert distance_to(real[:3], np.repeat(real, 5, 0)) == pytest.approx(0, abs=1e-6)


@given(st.integers(2, 6), st.integers(0, 99))
def test_similarity_is_symmetric_and_finds_copies(count: int, seed: int) -> None:
    videos = [unit(seed + n, 3) for n in range(count)]
    found = similarities([*videos, videos[0]])
    np.testing.assert_allclose(found, found.T, atol=1e-12)
    assert found[0, -1] == pytest.approx(1, abs=1e-6)
    assert (np.diag(found) == -1).all()


def test_between_limits_all_are_equally_good() -> None:
    values = np.array([0.0, 1.0, 2.0, 3.0, 5.0])
    limit = Limit(low=1, high=3)
    found = goodness(BY_NAME["motion"], values, limit)
    assert found.tolist() == [-1, 0, 0, 0, -2]
    assert limit.slack(values).tolist() == [-1, 0, 1, 0, -2]
    assert goodness(BY_NAME["likeness"], values, Limit(high=3)).argmax() == 0
    assert goodness(BY_NAME["prompt"], values, Limit()).argmax() == 4
    assert Limit().slack(values).tolist() == [math.inf] * 5
