"""Feature files: what is read, what is refused, how a video becomes segments."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.bags import Contents, Floats, open_bags, segments, stretched
from training.clips import TrainingError
from training.manifest import Manifest, Row

ANY = Contents()
GOOD = np.arange(24, dtype=np.float32).reshape(6, 4)


def opened(
    folder: Path, arrays: dict[str, np.ndarray], contents: Contents = ANY, **more: object
) -> list[Floats]:
    rows = []
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
        content = {"id": name, "label": "normal", "group": "g", "features": f"{name}.npy"}
        rows.append(Row.model_validate(content | more))
    manifest = Manifest(folder / "m.jsonl", tuple(rows))
    return [bag.features for bag in open_bags(manifest, rows, contents)]


def test_one_view_and_many_crops_read_alike(tmp_path: Path) -> None:
    one, many = opened(tmp_path, {"a": GOOD})[0], opened(tmp_path, {"b": GOOD[:, None]})[0]
    np.testing.assert_array_equal(one, many)
    assert one.shape == (6, 1, 4)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros(4, np.float32), r"must be \(windows, D\)"),
        (np.zeros((0, 4), np.float32), r"must be \(windows, D\)"),
        (np.zeros((6, 4), np.int64), "one array of floats"),
        (np.full((6, 4), np.nan, np.float32), "not finite"),
        (np.zeros((6, 5), np.float32), "all files must be of one encoder"),
        (np.zeros((6, 2, 4), np.float32), "one number of crops"),
        (np.array([{}], dtype=object), "cannot be read as .npy"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_name(
    array: np.ndarray, said: str, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=said) as caught:
        opened(tmp_path, {"good": GOOD, "bad": array})
    assert "bad" in str(caught.value)


def test_a_missing_file_and_a_row_without_features_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"gone\.npy cannot be read"):
        opened(tmp_path, {"a": GOOD}, features="gone.npy")
    with pytest.raises(TrainingError, match="extract them first"):
        opened(tmp_path, {"a": GOOD}, features=None)


def test_features_of_another_encoder_are_refused(tmp_path: Path) -> None:
    opened(tmp_path, {"a": GOOD}, Contents(encoder="mine"), encoder="mine")
    with pytest.raises(TrainingError, match="of encoder theirs, mine was expected"):
        opened(tmp_path, {"a": GOOD}, Contents(encoder="mine"), encoder="theirs")


def test_captions_stand_one_a_window(tmp_path: Path) -> None:
    np.save(tmp_path / "texts.npy", np.ones((6, 1, 3), np.float32))
    needed = Contents(captions=True)
    opened(tmp_path, {"a": GOOD}, needed, captions="texts.npy")
    with pytest.raises(TrainingError, match="the recipe needs them"):
        opened(tmp_path, {"a": GOOD}, needed)
    with pytest.raises(TrainingError, match="a sentence embedding a window"):
        opened(tmp_path, {"a": GOOD[:5]}, needed, captions="texts.npy")


@given(windows=st.integers(1, 200), count=st.integers(1, 64))
def test_segments_are_means_of_equal_parts(windows: int, count: int) -> None:
    values = np.random.default_rng(0).normal(size=(windows, 2, 3)).astype(np.float32)
    cuts = np.linspace(0, windows, count + 1, dtype=int)
    expected = [
        values[start:end].mean(0, dtype=np.float64) if end > start else values[start]
        for start, end in pairwise(cuts)
    ]
    # Means in double precision, rounded once to single.
    np.testing.assert_allclose(segments(values, count), expected, rtol=1e-6, atol=1e-7)


@given(windows=st.integers(1, 64))
def test_a_stretched_video_keeps_its_order_and_its_shares(windows: int) -> None:
    indices = stretched(windows, 64)
    assert (np.diff(indices) >= 0).all()
    counts = np.bincount(indices, minlength=windows)
    assert counts.max() - counts.min() <= 1
