"""ROC points, calibration, and intervals by resampling videos."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.metrics import roc_curve as sklearn_roc_curve

from server.curves import (
    CalibrationBin,
    ScoreCounts,
    Statistic,
    bootstrap,
    bootstrap_weighted,
    calibration,
    counts_auc,
    counts_average_precision,
    counts_false_alarm_rate,
    roc_curve,
)
from server.metrics import (
    Labels,
    Scores,
    Video,
    average_precision,
    false_alarm_rate,
    pooled,
    roc_auc,
)

tied = st.lists(st.tuples(st.booleans(), st.integers(0, 9)), min_size=2, max_size=60).filter(
    lambda pairs: {label for label, _ in pairs} == {True, False}
)


def as_video(pairs: list[tuple[bool, int]]) -> Video:
    return np.array([p[0] for p in pairs]), np.array([p[1] / 9 for p in pairs])


def noisy_videos(seed: int, count: int, separation: float) -> list[Video]:
    """Every second one anomalous throughout; frames of one video share most of their noise."""
    random = np.random.default_rng(seed)
    videos = []
    for index in range(count):
        anomalous = index % 2 == 1
        centre = random.normal(separation if anomalous else 0.0)
        videos.append((np.full(20, anomalous), centre + random.normal(0, 0.1, 20)))
    return videos


@given(tied)
def test_the_roc_points_equal_scikit_learn_with_ties_as_one_point(
    pairs: list[tuple[bool, int]],
) -> None:
    labels, scores = as_video(pairs)
    curve = roc_curve(labels, scores)
    assert curve is not None
    expected = sklearn_roc_curve(labels, scores, drop_intermediate=False)
    found = (curve.false_positive_rate, curve.true_positive_rate, curve.thresholds)
    for own, reference in zip(found, expected, strict=True):
        assert own == pytest.approx(reference, abs=1e-12)
    area = np.trapezoid(curve.true_positive_rate, curve.false_positive_rate)
    assert roc_auc(labels, scores) == pytest.approx(area, abs=1e-12)


def test_one_class_alone_has_no_curve() -> None:
    scores = np.array([0.1, 0.9])
    assert roc_curve(np.array([True, True]), scores) is None
    assert roc_curve(np.array([False, False]), scores) is None


@given(st.lists(tied, min_size=1, max_size=4), st.data())
def test_weighted_counts_equal_scikit_learn_with_sample_weights(
    drawn: list[list[tuple[bool, int]]], data: st.DataObject
) -> None:
    videos = [as_video(pairs) for pairs in drawn]
    times = data.draw(st.permutations([1, *[0, 2, 3][: len(videos) - 1]]))
    weights = np.concatenate([[t] * len(v[0]) for t, v in zip(times, videos, strict=True)])
    labels, scores = pooled(videos)
    counts = resampled(videos, times)
    auc = roc_auc_score(labels, scores, sample_weight=weights)
    assert counts_auc(counts) == pytest.approx(auc, abs=1e-12)
    ap = average_precision_score(labels, scores, sample_weight=weights)
    assert counts_average_precision(counts) == pytest.approx(ap, abs=1e-12)


def test_a_highest_score_that_was_not_drawn_changes_nothing() -> None:
    counts = ScoreCounts(
        np.array([0.1, 0.5, 0.9]), np.array([1.0, 2.0, 0.0]), np.array([3.0, 2.0, 0.0])
    )
    assert counts_average_precision(counts) == pytest.approx(2 / 3 * 2 / 4 + 1 / 3 * 3 / 8)
    assert counts_auc(counts) == pytest.approx((1 * 1.5 + 2 * 4) / 15)


def resampled(videos: list[Video], times: list[int]) -> ScoreCounts:
    """Counts written the slow way: each video as many times as it was drawn."""
    labels, scores = pooled([v for t, v in zip(times, videos, strict=True) for _ in range(t)])
    distinct = np.unique(pooled(videos)[1])
    rows = [scores == score for score in distinct]
    return ScoreCounts(
        distinct,
        np.array([float(labels[row].sum()) for row in rows]),
        np.array([float((~labels[row]).sum()) for row in rows]),
    )


def test_the_value_is_the_plain_metric_and_each_resample_the_metric_of_repeated_videos() -> None:
    random = np.random.default_rng(3)
    videos = [(random.random(30) < 0.4, random.integers(0, 8, 30) / 7) for _ in range(5)]
    seen: list[tuple[ScoreCounts, float | None]] = []

    def remembered(counts: ScoreCounts) -> float | None:
        seen.append((counts, counts_auc(counts)))
        return seen[-1][1]

    found = bootstrap(videos, remembered, seed=1, rounds=20)
    for (counts, auc), weights in zip(seen, draws(5, seed=1, rounds=20), strict=True):
        times = [int(weight) for weight in weights]
        assert sum(times) == 5
        slow = resampled(videos, times)
        assert counts.positives.tolist() == slow.positives.tolist()
        assert counts.negatives.tolist() == slow.negatives.tolist()
        repeated = pooled([v for t, v in zip(times, videos, strict=True) for _ in range(t)])
        assert auc == pytest.approx(roc_auc(*repeated), abs=1e-12)
    assert found.value == pytest.approx(roc_auc(*pooled(videos)), abs=1e-12)


def draws(
    units: int, *, seed: int, rounds: int, groups: Sequence[str] | None = None
) -> list[Scores]:
    """The weights of every round, and last those of the units as they are."""
    drawn: list[Scores] = []

    def remembered(weights: Scores) -> float:
        drawn.append(weights)
        return 0.0

    bootstrap_weighted(units, remembered, seed=seed, rounds=rounds, groups=groups)
    return drawn


@pytest.mark.parametrize(
    ("statistic", "plain"),
    [
        (counts_auc, roc_auc),
        (counts_average_precision, average_precision),
        (counts_false_alarm_rate, false_alarm_rate),
    ],
)
def test_each_statistic_of_counts_is_the_metric_of_frames(
    statistic: Statistic, plain: Callable[[Labels, Scores], float | None]
) -> None:
    random = np.random.default_rng(5)
    videos = [(random.random(50) < 0.4, random.integers(0, 11, 50) / 10) for _ in range(3)]
    found = bootstrap(videos, statistic, seed=0, rounds=50)
    assert found.value == pytest.approx(plain(*pooled(videos)), abs=1e-12)
    assert width(found.low, found.value) > 0
    assert width(found.value, found.high) > 0


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    # AUC of two unit normals 1.5 apart, with a little noise within videos: Phi(1.5 / sqrt(2.02)).
    truth = 0.8544
    runs = 150
    found = [
        bootstrap(noisy_videos(seed, 80, 1.5), counts_auc, seed=seed, rounds=200)
        for seed in range(runs)
    ]
    covered = sum(f.low <= truth <= f.high for f in found if f.low and f.high) / runs
    # 0.95 plus or minus three standard deviations of 150 draws; percentiles run a little short.
    assert 0.88 <= covered <= 1.0
    # Frames as units would give 1 / sqrt(20) of the width; Hanley and McNeil give 0.16 here.
    widths = [width(f.low, f.high) for f in found]
    assert 0.12 < sum(widths) / runs < 0.20


def test_the_same_seed_gives_the_same_interval_and_another_one_another() -> None:
    videos = noisy_videos(0, 20, 1.0)
    first = bootstrap(videos, counts_auc, seed=7)
    assert bootstrap(videos, counts_auc, seed=7) == first
    assert bootstrap(videos, counts_auc, seed=8) != first


def test_a_monotone_map_and_the_order_of_frames_change_nothing() -> None:
    videos = noisy_videos(0, 12, 1.0)
    mapped = [(labels[::-1], np.exp(scores)[::-1]) for labels, scores in videos]
    assert bootstrap(mapped, counts_auc, seed=0) == bootstrap(videos, counts_auc, seed=0)


def test_resamples_of_one_class_are_left_out_and_counted() -> None:
    videos = [(np.array([False]), np.array([0.1])), (np.array([True]), np.array([0.9]))]
    found = bootstrap(videos, counts_auc, seed=0, rounds=1000)
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)
    # Both draws are the same video in half of the rounds; 1000 of them give 500 +- 48.
    assert 450 < found.undefined < 550
    assert found.rounds == 1000
    nothing = bootstrap(videos[:1], counts_auc, seed=0, rounds=10)
    assert (nothing.value, nothing.low, nothing.undefined) == (None, None, 10)


def test_groups_are_drawn_whole_and_widen_the_interval() -> None:
    cameras = ["b", "a", "b", "a", "c", "c"]
    drawn = draws(6, seed=0, rounds=200, groups=cameras)
    assert {tuple(weights[[1, 0, 4]].tolist()) for weights in drawn} >= {(1, 1, 1), (0, 1, 2)}
    for weights in drawn:
        assert weights[[0, 1, 4]].tolist() == weights[[2, 3, 5]].tolist()
        assert weights.sum() == 6
    # Each pair of videos shown ten times over is not more evidence than the pair.
    videos = noisy_videos(1, 20, 1.0)
    pairs = [str(index // 2) for index in range(20)] * 10
    copies = bootstrap(videos * 10, counts_auc, seed=0)
    grouped = bootstrap(videos * 10, counts_auc, seed=0, groups=pairs)
    assert width(grouped.low, grouped.high) > 2 * width(copies.low, copies.high)


def width(low: float | None, high: float | None) -> float:
    assert low is not None
    assert high is not None
    return high - low


def test_a_bootstrap_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="units"):
        bootstrap([], counts_auc, seed=0)
    with pytest.raises(ValueError, match="rounds"):
        bootstrap(noisy_videos(0, 2, 1.0), counts_auc, seed=0, rounds=0)
    with pytest.raises(ValueError, match="one group a unit"):
        bootstrap(noisy_videos(0, 2, 1.0), counts_auc, seed=0, groups=["a"])


def test_calibration_by_hand() -> None:
    labels = np.array([False, True, True, True, False, False])
    scores = np.array([0.0, 0.05, 0.5, 0.55, 1.0, 0.9])
    found = calibration(labels, scores)
    assert found is not None
    assert found.bins == (
        CalibrationBin(0.025, 0.5, 2.0),
        CalibrationBin(0.525, 1.0, 2.0),
        CalibrationBin(0.95, 0.0, 2.0),
    )
    assert found.expected_error == pytest.approx((2 * 0.475 + 2 * 0.475 + 2 * 0.95) / 6)


def test_a_score_that_is_the_share_has_no_error_and_a_constant_one_its_distance() -> None:
    labels = np.array([True, False, False, False])
    right, wrong = calibration(labels, np.full(4, 0.25)), calibration(labels, np.full(4, 0.85))
    assert right is not None
    assert wrong is not None
    assert right.expected_error == 0.0
    assert wrong.expected_error == pytest.approx(0.6)


def test_bins_equal_scikit_learn_away_from_edges() -> None:
    random = np.random.default_rng(2)
    scores = random.random(500)
    labels = random.random(500) < scores**2
    found = calibration(labels, scores)
    assert found is not None
    shares, means = calibration_curve(labels, scores, n_bins=10)
    assert [own.positive_share for own in found.bins] == pytest.approx(shares)
    assert [own.mean_score for own in found.bins] == pytest.approx(means)


def test_a_weight_is_a_repetition() -> None:
    random = np.random.default_rng(4)
    labels, scores = random.random(30) < 0.5, random.random(30)
    times = random.integers(0, 4, 30)
    weighted = calibration(labels, scores, times.astype(np.float64))
    repeated = calibration(np.repeat(labels, times), np.repeat(scores, times))
    assert weighted is not None
    assert repeated is not None
    assert weighted.expected_error == pytest.approx(repeated.expected_error)
    assert [own.frames for own in weighted.bins] == [own.frames for own in repeated.bins]


def test_calibration_needs_frames_and_scores_between_zero_and_one() -> None:
    assert calibration(np.zeros(0, np.bool_), np.zeros(0)) is None
    for score in (-0.01, 1.01, np.nan):
        with pytest.raises(ValueError, match=r"in \[0, 1\]"):
            calibration(np.array([True]), np.array([score]))
