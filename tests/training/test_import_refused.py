"""Imports: what is refused, in one sentence that names file and line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.published import WIDTH, Published, some_features
from training.clips import TrainingError
from training.importers.datasets import LAYOUTS
from training.importers.layouts import mark_kept
from training.importers.lists import ListFile
from training.manifest import Row

ABUSE, NORMAL = "Abuse001_x264.npy", "Normal_Videos001_x264.npy"


@pytest.fixture
def ucf(tmp_path: Path) -> Published:
    """Two videos of four windows."""
    published = Published(tmp_path, "ucf-crime")
    for name in (ABUSE, NORMAL):
        published.write_features(name, some_features(4, WIDTH))
    return published


def refused(published: Published, *lists: ListFile, **more: object) -> str:
    with pytest.raises(TrainingError) as caught:
        published.rows(*lists, **more)
    said = str(caught.value)
    assert "\n" not in said
    assert not (published.folder / "stacked").exists()
    return said


def refused_list(published: Published, lines: list[str], **more: object) -> str:
    return refused(published, ListFile(published.write_list("a.list", lines), "test"), **more)


def test_a_list_that_names_a_missing_file_is_refused(ucf: Published) -> None:
    said = refused_list(ucf, [ABUSE, "", "Arson001_x264.npy"])
    assert "a.list, line 3: Arson001_x264.npy was expected in" in said
    said = refused_list(ucf, ["/nowhere/Arson001_x264.npy"], features=None)
    assert "a.list, line 1: /nowhere/Arson001_x264.npy is missing" in said
    said = refused_list(ucf, ["Abuse/Abuse001_x264.mp4"], videos=ucf.folder)
    assert "a.list, line 1: Abuse/Abuse001_x264.mp4 was expected in" in said
    said = refused_list(ucf, [ABUSE], captions=ucf.folder)
    assert "a.list, line 1: Abuse001_x264_emb.npy was expected in" in said


def test_a_video_without_features_and_folder_is_refused(ucf: Published) -> None:
    said = refused_list(ucf, ["Abuse/Abuse001_x264.mp4"], features=None)
    assert "line 1: 'Abuse001_x264' is listed without features" in said


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "Abuse001_x264.mp4  Abuse  10  100",
            "an interval of 'Abuse001_x264' ends at frame 100, beyond the video's",
        ),
        ("Abuse001_x264.mp4  Abuse  40  60  50  64", "interval 50 to 64 overlaps the one that"),
        ("Abuse001_x264.mp4  Abuse  30  20", "interval 30 to 20 must begin at 0 or later and rise"),
        ("Abuse001_x264.mp4  Arson  10  20", "two labels, 'Arson' for 'Abuse001_x264' whose name"),
        ("Abuse001_x264.mp4  Abuse  -1  -1", "two labels, no anomalous frame for 'Abuse001_x264'"),
        ("Normal_Videos001_x264.mp4  Normal  1  2", "two labels, anomalous frames for 'Normal_V"),
        (
            "Abuse001_x264.mp4  Abuse  50  10  60",
            "an interval of 'Abuse001_x264' ends at frame 60, beyond the video's",
        ),
        ("Abuse001_x264.mp4  Abuse  10  x", "frame numbers were expected, got '10 x'"),
        ("Abuse001_x264.mp4  Abuse", "pairs of frame numbers were expected"),
        ("Abuse001_x264.mp4  Abuse  0  -1 -1", "pairs of frame numbers were expected"),
        ("Abuse1.mp4  Abuse  10  20", "'Abuse1.mp4' is no name of the dataset"),
    ],
)
def test_an_annotation_that_cannot_be_is_refused(ucf: Published, line: str, said: str) -> None:
    lines = ["Arson001_x264.mp4  Arson  1  2", line]
    notes = ucf.write_list("notes.txt", lines)
    found = refused_list(ucf, [NORMAL, ABUSE], annotations=notes)
    assert f"notes.txt, line 2: {said}" in found


def test_an_annotation_that_stands_there_twice_is_refused(ucf: Published) -> None:
    notes = ucf.write_list("notes.txt", 2 * ["Abuse001_x264.mp4  Abuse  10  20"])
    found = refused_list(ucf, [ABUSE], annotations=notes)
    assert "notes.txt, line 2: 'Abuse001_x264' stands there twice" in found


def test_annotations_that_leave_a_test_video_out_are_refused(ucf: Published) -> None:
    notes = ucf.write_list("notes.txt", ["Arson001_x264.mp4  Arson  1  2"])
    assert "a.list, line 1" in refused_list(ucf, [ABUSE], annotations=notes)
    assert "annotates no video" in refused_list(
        ucf, [ABUSE], annotations=ucf.write_list("empty.txt", [])
    )
    assert "cannot be read as text" in refused_list(
        ucf, [ABUSE], annotations=ucf.folder / "gone.txt"
    )


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([f"{ABUSE},1", f"{ABUSE},0"], "line 2: two labels, '0' for 'Abuse001_x264'"),
        ([f"{NORMAL} Abuse"], "line 1: two labels, 'Abuse' for 'Normal_Videos001_x264'"),
        ([ABUSE, NORMAL, f"x/{ABUSE}"], "line 3: 'Abuse001_x264' is listed twice, first in"),
        (["Abuse001_x264__0.npy", ABUSE], "line 2: 'Abuse001_x264' is listed twice"),
        (["01_0014.npy"], "line 1: '01_0014.npy' is no name of the dataset; expected one like"),
    ],
)
def test_a_list_that_contradicts_itself_is_refused(
    ucf: Published, lines: list[str], said: str
) -> None:
    assert said in refused_list(ucf, lines)


def test_a_video_in_both_splits_is_refused(ucf: Published) -> None:
    train = ListFile(ucf.write_list("train.list", [NORMAL, ABUSE]), "train")
    test = ListFile(ucf.write_list("test.list", [ABUSE]), "test")
    said = refused(ucf, train, test)
    assert "test.list, line 1: 'Abuse001_x264' is in the test split and, by" in said
    assert "train.list, line 2, in the train split" in said


@pytest.mark.parametrize("lines", [[], ["", "  "], ["path,label"]])
def test_an_empty_split_is_refused(ucf: Published, lines: list[str]) -> None:
    assert "a.list names no video, so the test split is empty" in refused_list(ucf, lines)


def test_features_of_uneven_width_are_refused(ucf: Published) -> None:
    ucf.write_features("Arson001_x264.npy", some_features(4, WIDTH + 1))
    said = refused_list(ucf, [ABUSE, "Arson001_x264.npy"])
    assert "a.list, line 2" in said
    assert "has 9 numbers a window, 8 were expected as in" in said


def test_features_of_uneven_crops_are_refused(ucf: Published) -> None:
    ucf.write_features("Arson001_x264.npy", some_features(4, 10, WIDTH))
    said = refused_list(ucf, [ABUSE, "Arson001_x264.npy"])
    assert "has 10 crops, none were expected" in said
    ucf.write_features("Arson002_x264__0.npy", some_features(4, WIDTH))
    ucf.write_features("Arson002_x264__1.npy", some_features(5, WIDTH))
    said = refused_list(ucf, ["Arson/Arson002_x264.mp4"])
    assert "line 1: 2 crops of 'Arson002_x264' must be files of one shape" in said


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((4, 2, 2, 2), np.float32), "must be (windows, D) or (windows, crops, D)"),
        (np.zeros((0, 8), np.float32), "must be (windows, D) or (windows, crops, D)"),
        (np.zeros((4, 8), np.int64), "must hold one array of floats"),
        (np.array([{}], object), "cannot be read as .npy"),
    ],
)
def test_a_feature_file_of_something_else_is_refused(
    ucf: Published, array: np.ndarray, said: str
) -> None:
    np.save(ucf.features / ABUSE, array)
    found = refused_list(ucf, [ABUSE])
    assert "a.list, line 1" in found
    assert said in found


def test_masks_of_something_else_are_refused(tmp_path: Path) -> None:
    campus = Published(tmp_path, "shanghaitech")
    masks = tmp_path / "masks"
    masks.mkdir()
    campus.write_features("01_0014.npy", some_features(4, WIDTH))
    for mask in (np.zeros((4, 5)), np.zeros(0), np.array(["a"])):
        np.save(masks / "01_0014.npy", mask)
        assert "must hold one number a frame" in refused_list(
            campus, ["01_0014.npy"], annotations=masks
        )
    np.save(masks / "01_0014.npy", np.zeros(64))
    assert "no anomalous frame" in refused_list(campus, ["01_0014.npy"], annotations=masks)
    (masks / "01_0014.npy").write_bytes(b"")
    assert "cannot be read as .npy" in refused_list(campus, ["01_0014.npy"], annotations=masks)


def test_matlab_files_and_bitmaps_of_something_else_are_refused(tmp_path: Path) -> None:
    ped = Published(tmp_path, "ucsd-ped2")
    ped.write_features("Test001.npy", some_features(4, WIDTH))
    notes = ped.write_list("a.m", ["x = 1;"])
    assert "assigns no gt_frame" in refused_list(ped, ["Test001.npy"], annotations=notes)
    notes = ped.write_list("b.m", ["TestVideoFile{end+1}.gt_frame = [5:9, 7:12];"])
    assert "b.m, line 1: interval 6 to 12 overlaps" in refused_list(
        ped, ["Test001.npy"], annotations=notes
    )
    (tmp_path / "Test001_gt").mkdir()
    (tmp_path / "Test001_gt" / "001.bmp").write_bytes(b"no picture")
    assert "cannot be read as a bitmap" in refused_list(ped, ["Test001.npy"], annotations=tmp_path)
    ucf = Published(tmp_path, "ucf-crime")
    ucf.write_features(ABUSE, some_features(4, WIDTH))
    assert "only UCSD annotates in MATLAB" in refused_list(ucf, [ABUSE], annotations=notes)


def test_a_suffix_without_a_folder_and_a_rate_below_zero_are_refused(ucf: Published) -> None:
    said = refused_list(ucf, [ABUSE], features=None, feature_suffix="_i3d.npy")
    assert "('_i3d.npy') needs a feature folder" in said
    assert "a.list, line 1: fps: Input should be greater" in refused_list(ucf, [ABUSE], fps=-1.0)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["descriptions_1_UCF/5_clip.npy"], "line 1: 'gv-vad-1-5' was kept, but no full list"),
        ([ABUSE], "kept.list names no generated video"),
    ],
)
def test_a_filtered_list_that_is_none_is_refused(
    tmp_path: Path, lines: list[str], said: str
) -> None:
    rows: list[Row] = list(Published(tmp_path, "gv-vad").listed([ABUSE]).values())
    path = Published(tmp_path, "gv-vad").write_list("kept.list", lines)
    with pytest.raises(TrainingError, match=said):
        mark_kept(LAYOUTS["gv-vad"], rows, [path])
