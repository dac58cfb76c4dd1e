"""Figures of scored videos, held against counts by hand and scikit-learn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from server.contract import WINDOW_FRAMES
from training.clips import TrainingError
from training.evaluation import Evaluation, EvaluationSpec, evaluate
from training.evaluation_report import markdown
from training.manifest import Row
from training.scored import VideoScores, check_truth

FPS = 16.0
"""A window lasts one second."""


def video(
    name: str, scores: list[float], *anomalous: tuple[int, int], class_name: str = ""
) -> VideoScores:
    """A video of a window a second; intervals in seconds."""
    first = tuple(WINDOW_FRAMES * n for n in range(len(scores)))
    row = Row(
        id=name,
        label="anomalous" if anomalous else "normal",
        group=name,
        frames=WINDOW_FRAMES * len(scores),
        fps=FPS,
        anomalous=tuple((round(FPS * start), round(FPS * end)) for start, end in anomalous),
        class_name=class_name,
    )
    return VideoScores(row, first, tuple(f + WINDOW_FRAMES for f in first), tuple(scores))


def judged(*videos: VideoScores, threshold: float = 0.5, lasting: float = 0.0) -> Evaluation:
    return evaluate(videos, EvaluationSpec(threshold, "given", lasting, rounds=50))


CALM = video("calm", [0.1, 0.2, 0.1, 0.6, 0.1, 0.1])
FIGHT = video("fight", [0.1, 0.1, 0.8, 0.9, 0.2, 0.1], (2, 4))


def test_frame_figures_are_those_of_all_frames_in_a_row() -> None:
    found = judged(CALM, FIGHT)
    labels = np.concatenate([v.labels() for v in (CALM, FIGHT)])
    scores = np.concatenate([v.back_filled() for v in (CALM, FIGHT)])
    assert found.frames["auc"].value == pytest.approx(roc_auc_score(labels, scores))
    assert found.frames["ap"].value == pytest.approx(average_precision_score(labels, scores))
    assert found.frames["anomalous_auc"].value == 1.0
    assert found.frames["false_alarm_rate"].value == pytest.approx(1 / 10)


def test_a_score_counts_only_from_the_moment_at_which_it_exists() -> None:
    # The windows of seconds 2 and 3 are known at seconds 3 and 4.
    causal = FIGHT.causal()
    assert causal[: 3 * 16].max() < 0.8
    assert (causal[3 * 16 : 4 * 16] == 0.8).all()
    assert (causal[4 * 16 : 5 * 16] == 0.9).all()
    found = judged(CALM, FIGHT)
    assert found.causal_auc.value is not None
    assert found.frames["auc"].value is not None
    assert found.causal_auc.value < found.frames["auc"].value


def test_the_report_says_which_events_are_too_brief_to_be_told() -> None:
    told = "1 of the events last no longer than 2 s"
    assert told in markdown("x", judged(CALM, FIGHT, lasting=2.0), [], [])
    assert "last no longer than" not in markdown("x", judged(CALM, FIGHT), [], [])


def test_a_budget_that_no_threshold_keeps_says_whether_it_could_be_measured() -> None:
    wrong = video("wrong", [0.1, 0.9, 0.1, 0.2, 0.1], (3, 4))
    told = markdown("x", judged(CALM, wrong), [], [])
    assert "| 10 | no threshold keeps within it | - | - | not measurable: 0.00 h" in told


def test_alarms_open_when_the_score_exists() -> None:
    alarms = FIGHT.alarms(0.5, 0.0)
    assert [(a.opened_seconds, a.closed_seconds) for a in alarms] == [(3.0, 5.0)]
    assert FIGHT.alarms(0.5, 1.5)[0].opened_seconds == 4.0
    assert FIGHT.alarms(0.5, 2.5) == []


def test_an_alarm_that_never_closes_ends_with_the_video() -> None:
    late = video("late", [0.1, 0.9, 0.9], (1, 3))
    assert [(a.opened_seconds, a.closed_seconds) for a in late.alarms(0.5, 0.0)] == [(2.0, 3.0)]


def test_events_are_found_after_their_delay_and_false_alarms_counted() -> None:
    found = judged(CALM, FIGHT)
    assert found.events.recall == 1.0
    assert found.events.mean_delay_seconds == 1.0
    assert len(found.events.false_alarms) == 1
    assert found.events.normal_hours == pytest.approx(10 / 3600)


def test_a_budget_that_the_footage_cannot_show_is_not_measurable() -> None:
    assert [budget.measurable for budget in judged(CALM, FIGHT).budgets] == [False] * 3
    hours = [video(f"calm-{n}", [0.1] * 3600) for n in range(3)]
    found = judged(*hours, FIGHT, threshold=0.5)
    assert [budget.measurable for budget in found.budgets] == [False, True, True]
    point = found.budgets[1].point
    assert point is not None
    assert point.recall == 1.0


def test_each_kind_of_anomaly_is_judged_against_all_normal_videos() -> None:
    theft = video("theft", [0.1, 0.15, 0.1], (1, 2), class_name="theft")
    fight = video("fight", [0.1, 0.9, 0.1], (1, 2), class_name="fight")
    found = {one.name: one.auc for one in judged(CALM, theft, fight).classes}
    assert found["fight"] == 1.0
    assert found["theft"] is not None
    assert found["theft"] < 1.0
    assert judged(CALM, FIGHT).classes == ()


def test_many_videos_of_one_camera_are_one_witness() -> None:
    random = np.random.default_rng(0)
    filmed = [video(f"v{n}", random.random(8).tolist(), *[(2, 5)] * (n % 2)) for n in range(8)]

    def width(*, one_camera: bool) -> float:
        copies = [
            replace(v, row=v.row.model_copy(update={"id": f"{v.row.id}-{n}", "group": group}))
            for v in filmed
            for n in range(8)
            for group in [v.row.id if one_camera else f"{v.row.id}-{n}"]
        ]
        auc = judged(*copies).frames["auc"]
        assert auc.low is not None
        assert auc.high is not None
        return auc.high - auc.low

    assert width(one_camera=True) > 1.5 * width(one_camera=False)


def test_without_a_frame_count_a_video_reaches_as_far_as_its_truth() -> None:
    row = Row(id="open", label="anomalous", group="g", anomalous=((10, 40),))
    found = VideoScores(row, (0, 16), (16, 32), (0.1, 0.9))
    assert found.frames == 40
    assert found.truth().events[0].end_seconds == pytest.approx(40 / 30)
    assert found.back_filled()[-1] == 0.9


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (
            [Row(id="v", label="anomalous", group="g", frames=32)],
            "'v' is anomalous, but nothing says when",
        ),
        ([CALM.row], "1 videos to evaluate on, none is anomalous; both labels are needed"),
        ([], "0 videos to evaluate on, none is anomalous; both labels are needed"),
    ],
)
def test_truth_that_is_not_enough_is_refused(rows: list[Row], sentence: str) -> None:
    with pytest.raises(TrainingError, match=sentence):
        check_truth(rows)


SCORES = st.lists(st.integers(1, 99).map(lambda n: n / 100), min_size=3, max_size=12)


@given(calm=SCORES, fight=SCORES, power=st.sampled_from([0.5, 2.0]))
def test_ranking_figures_do_not_see_a_monotone_map(
    calm: list[float], fight: list[float], power: float
) -> None:
    def figures(bend: float) -> list[float | None]:
        videos = [
            video("calm", [score**bend for score in calm]),
            video("fight", [score**bend for score in fight], (1, 2)),
        ]
        found = evaluate(videos, EvaluationSpec(0.5, "given", 0.0, rounds=1))
        return [found.frames["auc"].value, found.frames["ap"].value, found.causal_auc.value]

    assert figures(power) == pytest.approx(figures(1.0))
