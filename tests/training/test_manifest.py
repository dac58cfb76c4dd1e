"""Manifests: what is read, what is refused, how rows are split."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.clips import TrainingError
from training.manifest import (
    Manifest,
    Row,
    clip_rows,
    load_manifest,
    mark_tests,
    split_normal_rows,
    split_rows,
    write_manifest,
)


def row(name: str, label: str = "normal", group: str | None = None, **more: object) -> Row:
    return Row.model_validate({"id": name, "label": label, "group": group or name} | more)


def rows_of(groups: int) -> list[Row]:
    """Two videos of either label a group."""
    return [
        row(f"{label}-{group}-{index}", label, f"camera-{group}")
        for group in range(groups)
        for label in ("normal", "anomalous")
        for index in range(2)
    ]


def test_a_manifest_reads_back_what_was_written(tmp_path: Path) -> None:
    rows = (
        row("a", features="a.npy", encoder="tiny", frames=160, fps=25.0),
        row("b", "anomalous", anomalous=[[16, 48]], **{"class": "Fighting"}),
        row("c", "anomalous", source="synthetic", description="x", pair_id="p", seed=3, kept=True),
    )
    write_manifest(tmp_path / "m.jsonl", rows)
    assert load_manifest(tmp_path / "m.jsonl") == Manifest(tmp_path / "m.jsonl", rows)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 1: a JSON object was expected"),
        ("[]", "line 1: Input should be a valid dictionary"),
        ('{"id": "a", "label": "odd", "group": "g"}', "label: Input should be 'normal'"),
        ('{"id": "a", "label": "normal"}', "group: Field required"),
        ('{"id": "a", "label": "normal", "group": "g", "colour": 1}', "colour: Extra inputs"),
        ('{"id": "a", "label": "normal", "group": "g", "anomalous": [[1, 2]]}', "normal video"),
        ('{"id": "a", "label": "anomalous", "group": "g", "anomalous": [[3, 2]]}', "must rise"),
        ('{"id":"a","label":"normal","group":"g"}\n' * 2, "line 2: id 'a' stands there twice"),
        ("\n", "holds no row"),
    ],
)
def test_a_broken_manifest_is_refused_with_its_line(line: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text(line)
    with pytest.raises(TrainingError) as caught:
        load_manifest(tmp_path / "m.jsonl")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_manifest_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="cannot be read"):
        load_manifest(tmp_path / "none.jsonl")


@given(groups=st.integers(3, 30), share=st.floats(0.05, 0.6), seed=st.integers(0, 1000))
def test_a_group_is_never_on_both_sides(groups: int, share: float, seed: int) -> None:
    rows = rows_of(groups)
    training, validation = split_rows(rows, share, seed)
    assert sorted(r.id for r in training + validation) == sorted(r.id for r in rows)
    assert {r.group for r in training}.isdisjoint(r.group for r in validation)
    assert len(validation) >= share * len(rows)


def test_the_same_seed_splits_alike_and_another_does_not() -> None:
    first, second, other = (split_rows(rows_of(20), 0.2, seed)[1] for seed in (4, 4, 5))
    assert first == second != other


def test_test_rows_and_filtered_rows_take_no_part() -> None:
    rows = [*rows_of(5), row("t", split="test"), row("f", "anomalous", kept=False)]
    training, validation = split_rows(rows, 0.2, 0)
    assert {"t", "f"}.isdisjoint(r.id for r in training + validation)


def test_synthetic_videos_only_train() -> None:
    made = [row(f"s{i}", "anomalous", "camera-0", source="synthetic") for i in range(3)]
    for seed in range(10):
        assert not any(r.synthetic for r in split_rows([*rows_of(4), *made], 0.3, seed)[1])


def test_a_marked_validation_split_is_kept_and_must_not_leak() -> None:
    rows = rows_of(4)
    marked = [r.model_copy(update={"split": "validation"}) for r in rows[:4]]
    assert split_rows([*marked, *rows[4:]], 0.5, 0)[1] == marked
    with pytest.raises(TrainingError, match="group 'camera-0' leaks"):
        split_rows([*marked[:3], *rows[3:]], 0.5, 0)


@pytest.mark.parametrize("label", ["normal", "anomalous"])
def test_videos_of_one_label_cannot_be_trained_on(label: str) -> None:
    with pytest.raises(TrainingError, match="both labels are needed"):
        split_rows([r for r in rows_of(4) if r.label == label], 0.2, 0)


@given(groups=st.integers(3, 12), share=st.floats(0.05, 0.6), seed=st.integers(0, 9))
def test_whole_groups_of_real_videos_become_tests(groups: int, share: float, seed: int) -> None:
    made = row("made", "anomalous", source="synthetic")
    rows = [*rows_of(groups), made]
    marked = mark_tests(rows, share, seed)
    tests = {one.group for one in marked if one.split == "test"}
    assert [one.model_copy(update={"split": None}) for one in marked] == rows
    assert all((one.group in tests) == (one.split == "test") for one in marked)
    assert made.group not in tests
    assert share * groups <= len(tests) < share * groups + 1
    assert mark_tests(rows, share, seed) == marked


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([row("a", split="test"), row("b", "anomalous")], "'a' and 0 others are marked as test"),
        ([row("a", group="g"), row("b", "anomalous", group="g")], "videos to train on is normal"),
        ([row("a"), row("b")], "videos to test on is anomalous"),
    ],
)
def test_rows_that_cannot_be_shared_out_are_refused(rows: list[Row], said: str) -> None:
    with pytest.raises(TrainingError, match=said):
        mark_tests(rows, 0.2, 0)


@given(groups=st.integers(2, 30), share=st.floats(0.05, 0.5), seed=st.integers(0, 1000))
def test_normal_videos_alone_are_split_by_whole_groups(
    groups: int, share: float, seed: int
) -> None:
    rows = [*rows_of(groups), row("made", source="synthetic"), row("held", split="test")]
    fitted, held_back = split_normal_rows(rows, share, seed)
    normal = [r.id for r in rows_of(groups) if r.label == "normal"]
    assert sorted(r.id for r in fitted + held_back) == sorted(normal)
    assert {r.group for r in fitted}.isdisjoint(r.group for r in held_back)
    assert len(held_back) >= share * len(normal)


def test_of_a_single_scene_whole_videos_are_held_back() -> None:
    rows = [row(f"clip-{number}", group="walkway") for number in range(8)]
    fitted, held_back = split_normal_rows(rows, 0.25, 0)
    assert (len(fitted), len(held_back)) == (6, 2)
    marked = [*rows[:7], row("last", group="walkway", split="validation")]
    assert split_normal_rows(marked, 0.25, 0)[1] == marked[7:]


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_normal_videos_cannot_be_split(count: int) -> None:
    rows = [row(f"clip-{number}") for number in range(count)] + [row("odd", "anomalous")]
    with pytest.raises(TrainingError, match=f"{count} of {count + 1} rows are real normal videos"):
        split_normal_rows(rows, 0.25, 0)


def truth_of(folder: Path, splits: dict[str, object]) -> Path:
    entries = {
        name: {"frames": 20, "fps": 10, "anomalous": []} | ({"split": said} if said else {})
        for name, said in splits.items()
    }
    (folder / "ground_truth.json").write_text(json.dumps(entries))
    return folder


def test_a_ground_truth_says_which_clips_are_for_testing(tmp_path: Path) -> None:
    said = {"a.mp4": "training", "b.mp4": "testing", "c.mp4": "validation", "d.mp4": None}
    found = {r.id: r.split for r in clip_rows(truth_of(tmp_path, dict(said)))}
    assert found == {"a.mp4": "train", "b.mp4": "test", "c.mp4": "validation", "d.mp4": None}


@pytest.mark.parametrize("said", ["tests", 3, ["test"]])
def test_a_split_that_is_none_is_refused(tmp_path: Path, said: object) -> None:
    with pytest.raises(TrainingError, match=r"split of 'a\.mp4' must be one of train, training"):
        clip_rows(truth_of(tmp_path, {"a.mp4": said}))
