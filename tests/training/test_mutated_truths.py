"""Spoiled files beside training clips: read as they are, or refused in one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.mutations import assert_sentence, few_or_many, holds, spoiled_bytes, spoiled_tree
from training.clips import TrainingError, find_clips, find_mates

TRUTH = {
    "a.mp4": {"frames": 16, "fps": 10, "anomalous": [[2, 5]], "source": "yt01"},
    "b.mp4": {"frames": 16, "fps": 29.97, "anomalous": [], "synthetic": True},
}
PAIRS = [["b.mp4", "a.mp4", 0.9], ["c.mp4", "a.mp4", 0.8]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "d").mkdir()
    return tmp_path / "d"


def assert_clips_or_refusal(folder: Path) -> None:
    try:
        clips = find_clips(folder.parent)
    except TrainingError as error:
        assert_sentence(error, folder.parent)
        return
    for clip in clips:
        assert clip.name.startswith("d/")
        assert ".." not in Path(clip.name).parts
        assert isinstance(clip.source, str)
        assert isinstance(clip.synthetic, bool)


@few_or_many
def test_a_spoiled_truth_gives_clips_or_a_refusal(folder: Path, examples: int) -> None:
    def law(content: Any) -> None:
        (folder / "ground_truth.json").write_text(json.dumps(content))
        assert_clips_or_refusal(folder)

    holds(law, spoiled_tree(TRUTH), examples)


@few_or_many
def test_a_truth_with_spoiled_bytes_gives_clips_or_a_refusal(folder: Path, examples: int) -> None:
    def law(content: bytes) -> None:
        (folder / "ground_truth.json").write_bytes(content)
        assert_clips_or_refusal(folder)

    holds(law, spoiled_bytes(json.dumps(TRUTH).encode()), examples)


@pytest.mark.parametrize(
    "note",
    [{"source": 5}, {"source": None}, {"source": ""}, {"source": ["yt01"]}, {"synthetic": "false"}],
)
def test_a_source_that_is_no_text_is_refused(folder: Path, note: dict[str, object]) -> None:
    (folder / "ground_truth.json").write_text(json.dumps({"a.mp4": TRUTH["b.mp4"] | note}))
    with pytest.raises(TrainingError, match="`source` that is text") as caught:
        find_clips(folder.parent)
    assert_sentence(caught.value, folder, "a.mp4")


@few_or_many
def test_spoiled_pairs_give_mates_or_a_refusal(folder: Path, examples: int) -> None:
    def law(content: Any) -> None:
        (folder / "same_camera_pairs.json").write_text(json.dumps(content))
        try:
            mates = find_mates(folder.parent)
        except TrainingError as error:
            assert_sentence(error, folder)
        else:
            assert all(isinstance(name, str) for found in mates.values() for name in found)

    holds(law, spoiled_tree(PAIRS), examples)


@pytest.mark.parametrize(
    "content", ["", "\xff", "{}", '"ab"', '["ab"]', "[" * 9999, "[" + "9" * 5000]
)
def test_pairs_that_are_no_pairs_are_refused(folder: Path, content: str) -> None:
    (folder / "same_camera_pairs.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(TrainingError, match="must be a list of") as caught:
        find_mates(folder.parent)
    assert_sentence(caught.value, folder)


def test_pairs_that_cannot_be_read_are_refused(folder: Path) -> None:
    (folder / "same_camera_pairs.json").mkdir()
    with pytest.raises(TrainingError, match="must be a list of") as caught:
        find_mates(folder.parent)
    assert_sentence(caught.value, folder)
