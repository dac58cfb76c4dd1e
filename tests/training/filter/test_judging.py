"""Limits come from real footage; a video is never compared with its own recording."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from training.clips import TrainingError
from training.filter.criteria import DUPLICATE
from training.filter.footage import Footage
from training.filter.judging import Opinions, RealFootage, Seen, judge, usual_limits
from training.manifest import Row


def seen(
    name: str,
    features: np.ndarray,
    *,
    label: Literal["normal", "anomalous"] = "normal",
    motion: float = 0.1,
    **more: object,
) -> Seen:
    content: dict[str, object] = {"id": name, "label": label, "group": name}
    row = Row.model_validate(content | more)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    return Seen(row, Footage(unit.astype(np.float32), motion))


def directions(seed: int, count: int = 3, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, width))


@pytest.fixture
def real() -> RealFootage:
    return RealFootage(
        tuple(seen(f"r{n}", directions(n), motion=0.01 * (n + 1)) for n in range(40))
    )


def test_limits_are_percentiles_of_real_footage(real: RealFootage) -> None:
    limits = usual_limits(real.values())
    motion = np.array([0.01 * (n + 1) for n in range(40)])
    assert limits["motion"].low == pytest.approx(np.percentile(motion, 1))
    assert limits["motion"].high == pytest.approx(np.percentile(motion, 99))
    distances = real.values()["likeness"]
    assert (distances > limits["likeness"].high).sum() == 2
    assert limits["duplicate"].high == DUPLICATE
    assert limits["contrast"].low == 0.5


def test_where_an_encoder_finds_all_alike_duplicates_must_be_more_so() -> None:
    base = directions(0)
    alike = RealFootage(tuple(seen(f"r{n}", base + 0.01 * directions(n)) for n in range(30)))
    assert (usual_limits(alike.values())["duplicate"].high or 0) > 0.999


def test_a_real_video_is_measured_against_other_recordings() -> None:
    twins = [seen(f"r{n}", directions(n // 2), group=f"g{n // 2}") for n in range(40)]
    found = RealFootage(tuple(twins)).values()
    assert found["likeness"].min() > 0.01  # its twin of the same recording is at distance 0
    assert found["duplicate"].max() < 0.999


def test_too_few_or_one_sided_footage_is_refused() -> None:
    few = tuple(seen(f"r{n}", directions(n)) for n in range(5))
    with pytest.raises(TrainingError, match="5 real videos can be measured"):
        RealFootage(few)
    one_camera = tuple(seen(f"r{n}", directions(n), group="g") for n in range(30))
    with pytest.raises(TrainingError, match="normal ones of 1 cameras"):
        RealFootage(one_camera)


def test_near_duplicates_are_of_one_label(real: RealFootage) -> None:
    same = directions(99)
    videos = [
        seen("a", same),
        seen("b", same + 1e-3),
        seen("c", same, label="anomalous"),
        seen("d", directions(98), label="anomalous"),
    ]
    found = {video.id: video for video in judge(videos, real, Opinions(), 0.98)}
    assert found["a"].alike == ("b",)
    assert found["b"].alike == ("a",)
    assert found["c"].alike == ()
    assert found["a"].values["duplicate"] == pytest.approx(1, abs=1e-4)


def test_texts_and_twins_make_the_criteria_of_text(real: RealFootage) -> None:
    scene, attack = np.eye(8, dtype=np.float32)[:2]
    texts = {"p-normal": scene, "p-anomalous": attack, "lonely": scene}
    good = [
        seen("p-normal", np.tile(scene, (4, 1)), pair_id="p"),
        seen("p-anomalous", np.tile(attack, (4, 1)), label="anomalous", pair_id="p"),
        seen("lonely", np.tile(scene, (4, 1)), pair_id="q"),
        seen("untold", np.tile(scene, (4, 1))),
    ]
    found = {v.id: v.values for v in judge(good, real, Opinions(texts), 0.98)}
    for name in ("p-normal", "p-anomalous"):
        assert found[name]["prompt"] == pytest.approx(1)
        assert found[name]["contrast"] == pytest.approx(1)
    assert found["lonely"]["prompt"] == pytest.approx(1)
    assert found["lonely"]["contrast"] is None
    assert found["untold"]["prompt"] is None
    # The anomaly was asked for and did not come.
    missed = [good[0], seen("p-anomalous", np.tile(scene, (4, 1)), label="anomalous", pair_id="p")]
    again = {v.id: v.values for v in judge(missed, real, Opinions(texts), 0.98)}
    assert again["p-anomalous"]["contrast"] == pytest.approx(0)


def test_a_detector_agrees_with_a_high_peak_of_an_anomaly_and_a_low_one_of_the_rest(
    real: RealFootage,
) -> None:
    videos = [seen("n", directions(1)), seen("a", directions(2), label="anomalous")]
    found = judge(videos, real, Opinions(detector={"n": 0.2, "a": 0.7}), 0.98)
    assert [video.values["detector"] for video in found] == pytest.approx([0.8, 0.7])


def test_a_single_moment_leaves_consistency_unknown(real: RealFootage) -> None:
    found = judge([seen("a", directions(1, count=1))], real, Opinions(), 0.98)
    assert found[0].values["consistency"] is None
    assert found[0].values["duplicate"] == -1.0
