"""Ground-truth files: read exactly, or refused with file, clip and field."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from server.truth import ClipTruth, TruthError, load_truth

GOOD = {"frames": 10, "fps": 5, "anomalous": [[2, 4], [8, 10]], "source": "yt01"}


def test_intervals_become_half_open_labels(tmp_path: Path) -> None:
    path = tmp_path / "ground_truth.json"
    path.write_text(json.dumps({"a.mp4": GOOD}))
    truth = load_truth(path)["a.mp4"]
    assert truth == ClipTruth(10, 5.0, ((2, 4), (8, 10)))
    assert [int(label) for label in truth.labels()] == [0, 0, 1, 1, 0, 0, 0, 0, 1, 1]
    assert truth.overlaps(3, 5)
    assert not truth.overlaps(4, 8)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (GOOD | {"frames": 0}, "frames"),
        (GOOD | {"frames": 9.5}, "whole number"),
        (GOOD | {"frames": True}, "whole number"),
        (GOOD | {"fps": 0}, "fps"),
        (GOOD | {"fps": "fast"}, "fast"),
        (GOOD | {"anomalous": [[4, 2]]}, r"\[4, 2\)"),
        (GOOD | {"anomalous": [[2, 11]]}, r"\[2, 11\)"),
        (GOOD | {"anomalous": [[0, 5], [4, 6]]}, r"\[4, 6\)"),
        (GOOD | {"anomalous": [3]}, "a.mp4"),
        ({"frames": 10, "fps": 5}, "lacks 'anomalous'"),
        ([1, 2], "must be an object"),
    ],
)
def test_an_entry_that_makes_no_sense_is_named(tmp_path: Path, entry: object, said: str) -> None:
    path = tmp_path / "ground_truth.json"
    path.write_text(json.dumps({"a.mp4": entry}))
    with pytest.raises(TruthError, match=said) as caught:
        load_truth(path)
    assert "a.mp4" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "7", "\xff"])
def test_a_file_that_is_no_object_of_clips_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "ground_truth.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(TruthError, match=r"ground_truth\.json"):
        load_truth(path)
