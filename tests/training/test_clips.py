"""Finding clips, and dealing whole sources to folds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.truth import ClipTruth
from training.clips import Clip, TrainingError, find_clips, find_mates, source_folds


def a_clip(number: int, source: str, *, anomalous: bool) -> Clip:
    truth = ClipTruth(20, 10.0, ((0, 20),) if anomalous else ())
    return Clip(f"d/{number}.mp4", "d", source, False, truth)


def write_truth(folder: Path, entries: dict[str, object]) -> None:
    folder.mkdir(parents=True)
    (folder / "ground_truth.json").write_text(json.dumps(entries))


clip_lists = st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=1, max_size=60).map(
    lambda found: [
        a_clip(number, f"s{source}", anomalous=anomalous)
        for number, (source, anomalous) in enumerate(found)
    ]
)


@given(clip_lists, st.integers(2, 5))
def test_folds_deal_whole_sources_and_leave_none_empty(clips: list[Clip], folds: int) -> None:
    sources = {clip.source for clip in clips}
    if len(sources) < folds:
        with pytest.raises(TrainingError, match="cannot fill"):
            source_folds(clips, folds)
        return
    dealt = source_folds(clips, folds)
    assert set(dealt) == sources
    assert set(dealt.values()) <= set(range(folds))
    assert dealt == source_folds(list(reversed(clips)), folds)


def test_folds_are_balanced_in_both_labels() -> None:
    clips = [
        a_clip(10 * source + i, f"s{source}", anomalous=i % 2 == 0)
        for source in range(10)
        for i in range(4)
    ]
    dealt = source_folds(clips, 5)
    for fold in range(5):
        labels = [clip.anomalous for clip in clips if dealt[clip.source] == fold]
        assert (labels.count(True), labels.count(False)) == (4, 4)


def test_clips_carry_source_label_and_whether_they_are_generated(tmp_path: Path) -> None:
    entry = {"frames": 20, "fps": 10}
    write_truth(
        tmp_path / "real",
        {
            "a.mp4": entry | {"source": "cam1", "anomalous": [[3, 9]]},
            "b.mp4": entry | {"anomalous": []},
        },
    )
    write_truth(tmp_path / "some_generated", {"c.mp4": entry | {"anomalous": []}})
    found = {clip.name: clip for clip in find_clips(tmp_path)}
    assert list(found) == ["real/a.mp4", "real/b.mp4", "some_generated/c.mp4"]
    assert found["real/a.mp4"].anomalous
    assert found["real/a.mp4"].source == "cam1"
    assert found["real/b.mp4"].source == "real"
    assert not found["real/b.mp4"].synthetic
    assert found["some_generated/c.mp4"].synthetic


def test_a_clip_survives_the_way_through_json() -> None:
    clip = Clip("d/a.mp4", "d", "cam", True, ClipTruth(20, 29.97, ((3, 9), (12, 20))))
    assert Clip.from_json(json.loads(json.dumps(clip.to_json()))) == clip


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "holds no ground_truth.json"),
        ("{}", "names no clip"),
        ("[]", "must be an object"),
        ("{", "cannot be read as JSON"),
        ('{"a.mp4": {"frames": 0, "fps": 10, "anomalous": []}}', r"frames \(0\)"),
        ('{"a.mp4": {"frames": 9, "fps": 10, "anomalous": [[5, 12]]}}', r"\[5, 12\)"),
    ],
)
def test_truth_that_cannot_be_used_is_refused(
    tmp_path: Path, content: str | None, sentence: str
) -> None:
    (tmp_path / "d").mkdir()
    if content is not None:
        (tmp_path / "d" / "ground_truth.json").write_text(content)
    with pytest.raises(TrainingError, match=sentence):
        find_clips(tmp_path)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="is not a folder"):
        find_clips(tmp_path / "nowhere")


def test_mates_are_the_normal_clips_of_a_scene(tmp_path: Path) -> None:
    write_truth(tmp_path / "d", {})
    pairs = [["n1.mp4", "f.mp4", 0.9], ["n2.mp4", "f.mp4", 0.8]]
    (tmp_path / "d" / "same_camera_pairs.json").write_text(json.dumps(pairs))
    assert find_mates(tmp_path) == {"d/f.mp4": ("d/n1.mp4", "d/n2.mp4")}
    (tmp_path / "d" / "same_camera_pairs.json").write_text("[[1]]")
    with pytest.raises(TrainingError, match="must be a list of"):
        find_mates(tmp_path)
