"""Imports: laws of masks and intervals, of what is written, and of what it is good for."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from server.truth import ClipTruth
from tests.support.published import WIDTH, Published, some_features
from training.importers.lists import ListFile
from training.importers.truths import ordered, truth_of_mask
from training.manifest import load_manifest, write_manifest
from training.mil import Places, train_head
from training.mil_recipe import MilRecipe

MIB = 1 << 20

QUICK = {
    "name": "quick",
    "text": "none",
    "direct": True,
    "hidden": [8],
    "half_life_windows": 16.0,
    "windows": "contiguous",
    "context": 16,
    "lead": 4,
    "each": 2,
    "steps": 4,
    "learning_rate": 0.01,
    "validation_share": 0.3,
    "validate_every": 2,
    "objective": {"k": 2, "select": "score", "magnitude": 0.0},
}


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), max_size=10),
    st.integers(0, 1),
    st.integers(0, 30),
)
def test_intervals_come_back_from_their_mask(
    steps: list[tuple[int, int]], early: int, rest: int
) -> None:
    edges = (np.cumsum(np.array(steps, int).ravel()) - early).tolist()
    intervals = tuple(zip(edges[::2], edges[1::2], strict=True))
    frames = max([1, *edges]) + rest
    mask = ClipTruth(frames, 25.0, intervals).labels()
    found = truth_of_mask("mask", mask)
    assert (found.intervals, found.frames) == (intervals, frames)
    assert ordered("mask", reversed(found.intervals)) == found.intervals


@given(arrays.arrays(np.bool_, st.integers(1, 60)))
def test_masks_come_back_from_their_intervals(mask: np.ndarray) -> None:
    found = truth_of_mask("mask", mask)
    assert np.array_equal(ClipTruth(len(mask), 25.0, found.intervals).labels(), mask)


def test_stacking_holds_no_video_in_memory(tmp_path: Path) -> None:
    ucf = Published(tmp_path, "ucf-crime")
    video = some_features(10, 600, 768)
    ucf.write_features("Abuse001_x264.npy", video)
    train = ListFile(ucf.write_list("train.list", ["Abuse001_x264.npy"]), "train")
    tracemalloc.start()
    row = ucf.rows(train, crops_first=True)["Abuse001_x264"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert video.nbytes > 17 * MIB
    assert peak < MIB
    assert np.array_equal(np.load(tmp_path / str(row.features)), video.swapaxes(0, 1))


def test_what_is_stacked_already_is_kept_and_what_changed_is_written_anew(tmp_path: Path) -> None:
    ucf = Published(tmp_path, "ucf-crime")
    name = "Abuse001_x264.npy"
    rows = ucf.listed([name], 10, 4, WIDTH, crops_first=True)
    target = tmp_path / str(rows["Abuse001_x264"].features)
    before = target.stat()
    ucf.listed([name], 10, 4, WIDTH, crops_first=True)
    assert target.stat().st_ino == before.st_ino
    for windows in (4, 5):
        again = some_features(10, windows, WIDTH, seed=9)
        ucf.write_features(name, again)
        ucf.rows(ListFile(tmp_path / "test.list", "test"), crops_first=True)
        assert np.array_equal(np.load(target), again.swapaxes(0, 1))
    assert [file.name for file in target.parent.iterdir()] == [name]


def test_an_imported_manifest_trains(tmp_path: Path) -> None:
    gv = Published(tmp_path, "gv-vad")
    names = [f"UCF/Abuse{n:03d}_x264_clip.npy" for n in range(1, 7)]
    names += [f"UCF/Normal_Videos{n:03d}_x264_clip.npy" for n in range(1, 7)]
    names += [f"descriptions_1_UCF_CLIP-B/{n}_clip.npy" for n in (2, 3, 302, 303)]
    for seed, name in enumerate(names):
        gv.write_features(name, some_features(2, 12, WIDTH, seed=seed))
    train = ListFile(gv.write_list("train.list", names), "train")
    rows = gv.rows(train, crops_first=True, encoder="tiny")
    write_manifest(tmp_path / "manifest.jsonl", rows.values())
    assert load_manifest(tmp_path / "manifest.jsonl").rows == tuple(rows.values())
    recipe = MilRecipe.model_validate(QUICK)
    found = train_head(Places(tmp_path / "manifest.jsonl", tmp_path / "run"), recipe)
    assert found.head.spec.feature_dim == WIDTH
