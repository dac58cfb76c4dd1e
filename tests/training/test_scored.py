"""Which videos can be judged, and over what an interval resamples."""

from __future__ import annotations

import pytest

from training.clips import TrainingError
from training.evaluation import EvaluationSpec, evaluate
from training.evaluation_report import markdown
from training.manifest import Row
from training.scored import VideoScores, check_truth

SPEC = EvaluationSpec(0.5, "by hand", 0.0, rounds=200, seed=0)


def video(name: str, group: str, start: int, scores: tuple[float, ...]) -> VideoScores:
    """Four windows of which those from `start` on are anomalous."""
    row = Row(
        id=name, label="anomalous", group=group, frames=64, fps=10.0, anomalous=((16 * start, 64),)
    )
    return VideoScores(row, (0, 16, 32, 48), (16, 32, 48, 64), scores)


def test_videos_that_are_all_anomalous_are_judged_by_their_normal_frames() -> None:
    videos = [
        video("a", "one", 2, (0.1, 0.2, 0.8, 0.9)),
        video("b", "two", 3, (0.1, 0.3, 0.7, 0.2)),
    ]
    check_truth([one.row for one in videos])
    # Of 3 x 5 pairs of an anomalous and a normal window 12 are in order and one ties.
    assert evaluate(videos, SPEC).frames["auc"].value == pytest.approx(12.5 / 15)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "none is anomalous"),
        ([Row(id="a", label="normal", group="g")], "none is anomalous"),
        ([video("a", "g", 0, (0.1,) * 4).row], "no frame is normal"),
        (
            [video("a", "g", 2, (0.1,) * 4).row.model_copy(update={"frames": None})],
            "no frame is normal",
        ),
        ([Row(id="a", label="anomalous", group="g")], "nothing says when"),
    ],
)
def test_frames_of_one_label_are_refused(rows: list[Row], said: str) -> None:
    with pytest.raises(TrainingError, match=said):
        check_truth(rows)


def test_of_one_camera_alone_the_interval_resamples_its_videos() -> None:
    good, bad = (0.1, 0.2, 0.8, 0.9), (0.9, 0.8, 0.2, 0.1)
    one = evaluate([video("a", "camera", 2, good), video("b", "camera", 2, bad)], SPEC)
    two = evaluate([video("a", "left", 2, good), video("b", "right", 2, bad)], SPEC)
    assert one.frames["auc"] == two.frames["auc"]
    assert (one.frames["auc"].low, one.frames["auc"].high) == (0, 1)
    assert "resamples of whole videos, all of one camera" in markdown("x", one, [], [])
    assert "resamples of whole cameras or recordings" in markdown("x", two, [], [])
