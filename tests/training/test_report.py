"""Out-of-fold figures and the threshold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.truth import ClipTruth
from training.clips import Clip
from training.report import ClipScores, false_events, figures, pick_threshold, report


def scored(source: str, scores: list[float], *, anomalous: bool, dataset: str = "d") -> ClipScores:
    frames = 16 * len(scores)
    truth = ClipTruth(frames, 10.0, ((0, frames),) if anomalous else ())
    clip = Clip(f"{source}{scores}", dataset, source, False, truth)
    firsts = tuple(range(0, frames, 16))
    flat = tuple(0.0 for _ in scores)
    return ClipScores(clip, firsts, tuple(scores), flat, flat)


CLIPS = [
    scored("a", [0.9], anomalous=True),
    scored("a", [0.4], anomalous=False),
    scored("b", [0.6, 0.7], anomalous=True),
    scored("b", [0.65], anomalous=False),
    scored("calm", [0.1, 0.2, 0.1], anomalous=False),
    scored("elsewhere", [0.3], anomalous=False, dataset="other"),
]


def test_figures_count_frames_of_mixed_datasets_only() -> None:
    found = report(CLIPS, 0.1, 1.5)
    # Frames: anomalous 16 at .9, .6, .7 each; normal 16 at .4, .65 and 48 lower: 14 of 15 pairs.
    assert found.metrics()["oof_head_frame_auc"] == pytest.approx(14 / 15, abs=1e-4)
    assert found.metrics()["oof_head_frame_auc_without_normal_sources"] == pytest.approx(
        5 / 6, abs=1e-4
    )
    assert found.metrics()["oof_baseline_frame_auc"] == 0.5
    assert {line.source for line in found.sources()} == {"a", "b", "calm", "elsewhere"}


def test_a_source_of_one_label_has_no_auc() -> None:
    calm = next(line for line in report(CLIPS, 0.1, 1.5).sources() if line.source == "calm")
    assert calm.auc is None
    assert calm.normal_minutes == pytest.approx(4.8 / 60)
    assert figures([], lambda clip: clip.scores).auc is None


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=200),
    st.floats(0.01, 0.99),
)
def test_no_more_than_the_stated_share_of_normal_windows_is_over_the_threshold(
    scores: list[float], rate: float
) -> None:
    threshold = pick_threshold([scored("a", scores, anomalous=False)], rate)
    assert threshold in scores
    assert np.mean(np.array(scores) > threshold) <= rate + 1e-9


def test_anomalous_clips_do_not_move_the_threshold() -> None:
    normal = [clip for clip in CLIPS if not clip.clip.anomalous]
    assert pick_threshold(CLIPS, 0.2) == pick_threshold(normal, 0.2)


@pytest.mark.parametrize(
    ("scores", "window_seconds", "events"),
    [
        ([0.1, 0.2], 1.5, 0),
        ([0.5, 0.5, 0.5], 1.5, 1),
        ([0.5, 0.45, 0.5], 1.5, 1),
        ([0.5, 0.3, 0.5], 2.0, 2),
        ([0.5, 0.5, 0.3, 0.5, 0.5], 1.5, 2),
        ([0.5, 0.3, 0.5], 1.5, 0),
        ([0.5, 0.3, 0.5], 0.6, 0),
        ([0.5, 0.5, 0.3], 0.6, 1),
    ],
)
def test_false_events_follow_the_servers_policy(
    scores: list[float], window_seconds: float, events: int
) -> None:
    assert false_events(scored("a", scores, anomalous=False), 0.5, window_seconds) == events
