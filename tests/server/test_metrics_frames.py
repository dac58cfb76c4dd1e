"""Frame figures: the papers' four, classes, causal scores, rates."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from server.metrics import (
    Rate,
    Video,
    class_aucs,
    false_alarm_rate,
    frame_figures,
    frame_scores,
    macro_auc,
    pooled,
    strict_causal_scores,
)


def video(labels: list[int], scores: list[float]) -> Video:
    return np.array(labels, np.bool_), np.array(scores, np.float64)


def random_videos(seed: int, count: int) -> list[Video]:
    """Every second one anomalous; scores of few values, so that most are tied."""
    random = np.random.default_rng(seed)
    return [
        (random.random(40) < (0.3 if index % 2 else 0.0), random.integers(0, 6, 40) / 5)
        for index in range(count)
    ]


def test_the_false_alarm_rate_counts_the_threshold_itself_and_normal_frames_alone() -> None:
    labels, scores = video([0, 0, 0, 0, 1], [0.1, 0.5, 0.6, 0.49, 0.9])
    assert false_alarm_rate(labels, scores) == 0.5
    assert false_alarm_rate(labels, scores, threshold=0.6) == 0.25
    assert false_alarm_rate(labels[4:], scores[4:]) is None


@pytest.mark.parametrize("seed", range(5))
def test_the_papers_four_figures_equal_scikit_learn_on_pooled_frames(seed: int) -> None:
    videos = random_videos(seed, 6)
    labels, scores = (np.concatenate([v[part] for v in videos]) for part in (0, 1))
    odd_labels, odd_scores = (np.concatenate([v[part] for v in videos[1::2]]) for part in (0, 1))
    found = frame_figures(videos)
    assert found.auc == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert found.ap == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    assert found.anomalous_auc == pytest.approx(roc_auc_score(odd_labels, odd_scores), abs=1e-12)
    assert found.false_alarm_rate == np.mean(scores[labels == 0] >= 0.5)


def test_figures_without_the_frames_they_need_are_none() -> None:
    normal = frame_figures([video([0, 0], [0.1, 0.7])])
    assert (normal.auc, normal.ap, normal.anomalous_auc) == (None, None, None)
    assert normal.false_alarm_rate == 0.5
    assert frame_figures([]).false_alarm_rate is None


def test_a_normal_video_changes_all_figures_but_those_of_anomalous_videos() -> None:
    anomalous = video([0, 1, 1, 0], [0.2, 0.6, 0.3, 0.4])
    before = frame_figures([anomalous])
    after = frame_figures([anomalous, video([0, 0], [0.9, 0.95])])
    assert after.anomalous_auc == before.anomalous_auc == 0.75
    assert (before.auc, after.auc) == (0.75, 3 / 8)
    assert (before.false_alarm_rate, after.false_alarm_rate) == (0.0, 0.5)


def test_frames_without_a_score_are_refused_with_the_video_named() -> None:
    good, bad = video([0], [0.1]), video([0, 1], [0.1])
    with pytest.raises(ValueError, match="video 1 must have one score a label"):
        pooled([good, bad])


def test_a_class_is_held_against_all_normal_videos_and_no_other_class() -> None:
    normals = [video([0, 0], [0.1, 0.4]), video([0], [0.6])]
    fights = [video([0, 1], [0.3, 0.5])]
    fires = [video([1], [0.9]), video([1], [0.7])]
    found = class_aucs(normals + fires + fights, [None, None, "fire", "fire", "fight"])
    assert [(own.name, own.videos) for own in found] == [("fight", 1), ("fire", 2)]
    assert [own.auc for own in found] == [3 / 4, 1.0]
    assert macro_auc(found) == 0.875


def test_the_macro_mean_leaves_out_classes_without_an_auc() -> None:
    alone = class_aucs([video([1], [0.9])], ["fire"])
    assert alone[0].auc is None
    assert macro_auc(alone) is None
    assert macro_auc([*alone, *class_aucs([video([0, 1], [0.1, 0.2])], ["fight"])]) == 1.0


@pytest.mark.parametrize(("labels", "name"), [([0, 1], None), ([0, 0], "fire")])
def test_a_class_that_the_labels_contradict_is_refused(labels: list[int], name: str | None) -> None:
    with pytest.raises(ValueError, match="video 0 of class"):
        class_aucs([video(labels, [0.1, 0.2])], [name])


def test_a_causal_score_counts_from_its_windows_end_until_the_next_exists() -> None:
    found = strict_causal_scores([0, 3], [3, 6], [0.4, 0.8], 9)
    assert found.tolist() == [*[0.0] * 3, *[0.4] * 3, *[0.8] * 3]
    late = strict_causal_scores([0, 3], [3, 6], [0.4, 0.8], 9, delay_frames=2)
    assert late.tolist() == [*[0.0] * 5, *[0.4] * 3, 0.8]


def test_overlapping_windows_count_from_their_ends_too() -> None:
    found = strict_causal_scores([0, 2, 4], [4, 6, 8], [0.1, 0.2, 0.3], 7)
    assert found.tolist() == [*[0.0] * 4, *[0.1] * 2, 0.2]


def test_a_clip_too_short_for_a_window_stays_at_zero() -> None:
    assert strict_causal_scores([], [], [], 3).tolist() == [0.0] * 3


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.integers(1, 5), st.integers(0, 7))
def test_causal_scores_are_the_backfilled_ones_shifted_by_window_and_delay(
    scores: list[float], length: int, delay: int
) -> None:
    first = [length * index for index in range(len(scores))]
    frames = length * len(scores)
    causal = strict_causal_scores(first, [f + length for f in first], scores, frames, delay)
    shift = min(length + delay, frames)
    assert causal[:shift].tolist() == [0.0] * shift
    assert causal[shift:].tolist() == frame_scores(first, scores, frames)[: frames - shift].tolist()


@pytest.mark.parametrize(
    ("first", "end", "delay", "message"),
    [
        ([0], [3, 6], 0, "first frame, an end and a score"),
        ([0, 6], [3, 6], 0, "must end after its first frame"),
        ([0, 1], [6, 3], 0, "no earlier than the last"),
        ([0, 3], [3, 6], -1, "delay_frames"),
    ],
)
def test_windows_that_make_no_sense_are_refused(
    first: list[int], end: list[int], delay: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        strict_causal_scores(first, end, [0.1, 0.2], 9, delay)


def test_a_rate_reads_as_count_hours_and_interval() -> None:
    rate = Rate(4, 2.1)
    assert str(rate) == "4 in 2.10 h: 1.90 per hour (0.52 to 4.88)"
    assert rate.sentence(10) == str(rate)
    assert Rate(0, 0.06).sentence(1) == ("not measurable: 0.06 h of normal footage, 3.00 h needed")
    assert Rate(0, 0.06).sentence(10).endswith("0.30 h needed")


def test_a_rate_is_measurable_from_three_expected_events_on() -> None:
    assert Rate(0, 3.0).measurable(1)
    assert not Rate(9, 2.99).measurable(1)
    assert Rate(0, 30.0).measurable(0.1)
    # Hours added up clip by clip end just under three.
    hours = sum([0.3] * 10)
    assert hours < 3
    assert Rate(0, hours).measurable(1)


def test_no_footage_gives_no_rate() -> None:
    rate = Rate(0, 0.0)
    assert rate.per_hour is None
    assert rate.interval is None
    assert str(rate) == "0 in 0.00 h"
    assert rate.sentence(1) == "not measurable: 0.00 h of normal footage, 3.00 h needed"


@pytest.mark.parametrize(("events", "hours"), [(-1, 1.0), (1, -0.1), (1, math.nan)])
def test_a_rate_of_nonsense_is_refused(events: int, hours: float) -> None:
    with pytest.raises(ValueError, match="must be >= 0"):
        Rate(events, hours)
