"""Imports: what the rows of each published layout say."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import pytest

from tests.support.published import ELSEWHERE, WIDTH, Published, some_features
from training.bags import Contents, open_bags
from training.importers.datasets import LAYOUTS
from training.importers.layouts import mark_kept
from training.importers.lists import ListFile
from training.manifest import Manifest, Row


def test_ucf_crime_tells_label_and_class_by_name_and_frames_by_annotation(tmp_path: Path) -> None:
    ucf = Published(tmp_path, "ucf-crime")
    lines = [
        "Abuse028_x264.mp4  Abuse  16  40  -1  -1  ",
        "RoadAccidents001_x264.mp4  RoadAccidents  0  8  32  70  ",
        "Normal_Videos_003_x264.mp4  Normal  -1  -1  -1  -1  ",
    ]
    notes = ucf.write_list("Temporal_Anomaly_Annotation.txt", lines)
    names = [f"{line.split('.')[0]}_i3d.npy" for line in lines]
    rows = ucf.listed(names, 4, 10, WIDTH, annotations=notes, encoder="i3d", fps=30.0)
    assert rows["Abuse028_x264"] == Row.model_validate(
        {
            "id": "Abuse028_x264",
            "label": "anomalous",
            "class": "Abuse",
            "group": "ucf-crime/Abuse028_x264",
            "dataset": "ucf-crime",
            "split": "test",
            "features": "features/Abuse028_x264_i3d.npy",
            "encoder": "i3d",
            "frames": 64,
            "fps": 30.0,
            "anomalous": [[16, 40]],
        }
    )
    # The last interval ends where the features do, as in the published ground truth.
    assert rows["RoadAccidents001_x264"].anomalous == ((0, 8), (32, 64))
    normal = rows["Normal_Videos_003_x264"]
    assert (normal.label, normal.class_name, normal.anomalous) == ("normal", "", ())


def test_labels_do_not_depend_on_the_order_of_a_list(tmp_path: Path) -> None:
    names = ["Normal_Videos001_x264.npy", "Arson001_x264.npy", "Normal_Videos002_x264.npy"]
    one = Published(tmp_path / "one", "ucf-crime").listed(names)
    two = Published(tmp_path / "two", "ucf-crime").listed(reversed(names))
    assert one == two
    assert [row.label for row in one.values()] == ["normal", "anomalous", "normal"]


def test_a_list_of_videos_finds_features_by_suffix_and_the_videos(tmp_path: Path) -> None:
    ucf = Published(tmp_path, "ucf-crime")
    ucf.write_features("Abuse001_x264_i3d.npy", some_features(4, 10, WIDTH))
    video = tmp_path / "videos" / "Abuse" / "Abuse001_x264.mp4"
    video.parent.mkdir(parents=True)
    video.touch()
    path = ucf.write_list("Anomaly_Train.txt", ["Abuse/Abuse001_x264.mp4"])
    train = ListFile(path, "train")
    rows = ucf.rows(train, feature_suffix="_i3d.npy", videos=tmp_path / "videos")
    row = rows["Abuse001_x264"]
    assert row.video == "videos/Abuse/Abuse001_x264.mp4"
    assert row.features == "features/Abuse001_x264_i3d.npy"
    assert row.anomalous is None
    only_video = ucf.rows(train, features=None, videos=tmp_path / "videos")["Abuse001_x264"]
    assert (only_video.features, only_video.frames) == (None, None)


def test_crops_that_are_a_file_each_become_one_file(tmp_path: Path) -> None:
    xd = Published(tmp_path, "xd-violence")
    stem = "Bad.Boys.1995__#00-26-51_00-27-53_label_B2-G-0"
    crops = [some_features(5, WIDTH, seed=seed) for seed in range(3)]
    for number, crop in enumerate(crops):
        xd.write_features(f"{stem}__{number}.npy", crop)
    # Nothing is said by the order of the lines.
    lines = [f"{ELSEWHERE}/{stem}__{number}.npy,B2-G-0" for number in (2, 0, 1)]
    path = xd.write_list("xd.csv", ["path,label", *lines])
    row = xd.rows(ListFile(path, "train"))[stem]
    assert row.features == f"stacked/features/{stem}.npy"
    assert np.array_equal(np.load(tmp_path / row.features), np.stack(crops, 1))
    assert (row.class_name, row.group) == ("Shooting", "xd-violence/Bad.Boys.1995")


def test_crops_are_found_though_a_list_names_the_video_alone(tmp_path: Path) -> None:
    ucf = Published(tmp_path, "ucf-crime")
    for number in range(10):
        ucf.write_features(f"Abuse/Abuse001_x264__{number}.npy", some_features(5, WIDTH))
    path = ucf.write_list("train.txt", ["Abuse/Abuse001_x264.mp4"])
    row = ucf.rows(ListFile(path, "train"))["Abuse001_x264"]
    assert np.load(tmp_path / str(row.features)).shape == (5, 10, WIDTH)


def test_features_with_crops_first_are_turned_and_open_as_a_bag(tmp_path: Path) -> None:
    tad = Published(tmp_path, "tad")
    rows = list(tad.listed(["01_Accident_004_clip.npy"], 10, 4, WIDTH, crops_first=True).values())
    bag = open_bags(Manifest(tmp_path / "manifest.jsonl", tuple(rows)), rows, Contents())[0]
    first = np.load(tad.features / "01_Accident_004_clip.npy")
    assert np.array_equal(bag.features, first.swapaxes(0, 1))
    assert rows[0].frames == 4 * 16


def test_xd_violence_reads_codes_and_interval_lines(tmp_path: Path) -> None:
    xd = Published(tmp_path, "xd-violence")
    riot, calm = "v=5Ftl4nOSytc__#1_label_B4-0-0", "The.Notebook.2004__#00-11-00_label_A"
    notes = xd.write_list("annotations.txt", [f"{riot}.mp4 0 20 30 60"])
    rows = xd.listed([f"{riot}.npy", f"{calm}.npy"], annotations=notes)
    assert rows[riot].class_name == "Riot"
    assert rows[riot].anomalous == ((0, 20), (30, 60))
    assert (rows[calm].label, rows[calm].anomalous) == ("normal", ())


def test_shanghaitech_has_labels_by_name_cameras_as_groups_and_masks(tmp_path: Path) -> None:
    campus = Published(tmp_path, "shanghaitech")
    mask = np.zeros(70, np.int8)
    mask[[3, 4, 69]] = 1
    (tmp_path / "test_frame_mask").mkdir()
    np.save(tmp_path / "test_frame_mask" / "01_0014.npy", mask)
    names = ["01_0014_i3d.npy", "01_063_i3d.npy"]
    rows = campus.listed(names, annotations=tmp_path / "test_frame_mask")
    assert {row.group for row in rows.values()} == {"shanghaitech/01"}
    assert rows["01_0014"].anomalous == ((3, 5), (69, 70))
    assert rows["01_0014"].frames == 70
    assert (rows["01_063"].label, rows["01_063"].frames) == ("normal", 64)


def test_a_list_may_have_a_label_column_that_agrees(tmp_path: Path) -> None:
    campus = Published(tmp_path, "shanghaitech")
    for name in ("01_0014", "01_063"):
        campus.write_features(f"{name}.npy", some_features(4, WIDTH))
    path = campus.write_list("SH_Test.txt", ["01_0014,265,1", "01_063 764 0"])
    rows = campus.rows(ListFile(path, "test"))
    assert [row.label for row in rows.values()] == ["anomalous", "normal"]


def test_tad_annotates_frames_and_intervals(tmp_path: Path) -> None:
    tad = Published(tmp_path, "tad")
    lines = ["01_Accident_004.mp4 190 53 118", "Normal_012.mp4 70 -1 -1"]
    notes = tad.write_list("vals.txt", lines)
    names = ["01_Accident_004_clip_large.npy", "Normal_012_clip_large.npy"]
    rows = tad.listed(names, annotations=notes)
    accident, normal = rows["01_Accident_004"], rows["Normal_012"]
    assert (accident.class_name, accident.frames) == ("Accident", 190)
    assert accident.anomalous == ((53, 118),)
    assert (normal.frames, normal.anomalous) == (70, ())


def test_ucsd_ped2_reads_the_matlab_file_that_it_comes_with(tmp_path: Path) -> None:
    ped = Published(tmp_path, "ucsd-ped2")
    lines = [
        "TestVideoFile = {};",
        "TestVideoFile{end+1}.gt_frame = [11:60];",
        "TestVideoFile{end+1}.gt_frame = [1:5, 21:30];",
    ]
    notes = ped.write_list("UCSDped2.m", lines)
    names = ["Test001_i3d.npy", "Test002_i3d.npy", "Train001_i3d.npy"]
    rows = ped.listed(names, annotations=notes)
    assert rows["Test001"].anomalous == ((10, 60),)
    assert rows["Test002"].anomalous == ((0, 5), (20, 30))
    assert rows["Train001"].label == "normal"


def test_ucsd_ped2_reads_a_folder_of_bitmaps_a_video(tmp_path: Path) -> None:
    folder = tmp_path / "Test" / "Test001_gt"
    folder.mkdir(parents=True)
    for frame in range(1, 21):
        image = np.zeros((6, 8), np.uint8)
        image[2, 3] = 255 * (5 <= frame < 8)
        cv2.imwrite(str(folder / f"{frame:03d}.bmp"), image)
    (folder / "._001.bmp").write_bytes(b"left by a Mac")
    ped = Published(tmp_path, "ucsd-ped2")
    row = ped.listed(["Test001.npy"], annotations=tmp_path / "Test")["Test001"]
    assert (row.anomalous, row.frames) == (((4, 7),), 20)


def generated(number: int) -> str:
    return f"descriptions_1_UCF_CLIP-B/{number}_clip.npy"


def test_generated_videos_are_marked_and_paired(tmp_path: Path) -> None:
    gv = Published(tmp_path, "gv-vad")
    names = ["UCF/Abuse001_x264_clip.npy", generated(2), generated(302), generated(600)]
    rows = gv.listed(names)
    assert [row.source for row in rows.values()] == ["real"] + 3 * ["synthetic"]
    assert [row.label for row in rows.values()] == 2 * ["anomalous"] + 2 * ["normal"]
    two, mate, last = (rows[f"gv-vad-1-{number}"] for number in (2, 302, 600))
    assert two.pair_id == mate.pair_id != last.pair_id
    assert two.group == mate.group not in {rows["Abuse001_x264"].group, last.group}
    assert two.features == f"features/{generated(2)}"
    assert {row.kept for row in rows.values()} == {None}


@pytest.mark.parametrize(
    ("number", "label"), [(0, None), (1, "anomalous"), (300, "anomalous"), (301, "normal")]
)
def test_the_first_300_descriptions_ask_for_anomalies(number: int, label: str | None) -> None:
    name = LAYOUTS["gv-vad"].parse(PurePosixPath(generated(number)))
    assert (name and name.label) == label
    assert LAYOUTS["gv-vad"].parse(PurePosixPath(generated(601))) is None


def test_the_filtered_list_says_which_generated_videos_were_kept(tmp_path: Path) -> None:
    gv = Published(tmp_path, "gv-vad")
    rows = gv.listed(["UCF/Abuse001_x264_clip.npy", generated(2), generated(3)])
    lines = [f"{ELSEWHERE}/UCF/Abuse001_x264_clip.npy", f"{ELSEWHERE}/{generated(3)}"]
    path = gv.write_list("ucfg2.list", lines)
    marked = mark_kept(LAYOUTS["gv-vad"], list(rows.values()), [path])
    assert [row.kept for row in marked] == [None, False, True]


def test_captions_are_found_by_the_video_s_name(tmp_path: Path) -> None:
    tad = Published(tmp_path, "tad")
    captions = tmp_path / "captions"
    captions.mkdir()
    np.save(captions / "Normal_012_emb.npy", some_features(4, WIDTH))
    rows = tad.listed(["Normal_012_clip.npy"], captions=captions)
    assert rows["Normal_012"].captions == "captions/Normal_012_emb.npy"


def test_paths_are_taken_as_listed_where_no_folder_is_given(tmp_path: Path) -> None:
    tad = Published(tmp_path, "tad")
    tad.write_features("Normal_012.npy", some_features(4, WIDTH))
    path = tad.write_list("train.list", [str(tad.features / "Normal_012.npy")])
    rows = tad.rows(ListFile(path, "train"), features=None)
    assert rows["Normal_012"].features == "features/Normal_012.npy"


def test_paths_stay_short_where_all_lies_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "home").symlink_to(tmp_path / "disk", target_is_directory=True)
    row = Published(tmp_path / "home" / "tad", "tad").listed(["Normal_012.npy"])["Normal_012"]
    assert row.features == "features/Normal_012.npy"


def test_one_crop_to_test_goes_with_ten_to_train(tmp_path: Path) -> None:
    ucf = Published(tmp_path, "ucf-crime")
    for name in ("Abuse001_x264__0", "Abuse001_x264__1", "Arson002_x264__5"):
        ucf.write_features(f"{name}.npy", some_features(4, WIDTH))
    train = ucf.write_list("train.csv", [f"Abuse001_x264__{crop}.npy,Abuse" for crop in (0, 1)])
    test = ucf.write_list("test.csv", ["Arson002_x264__5.npy,Arson"])
    rows = ucf.rows(ListFile(train, "train"), ListFile(test, "test"))
    assert rows["Arson002_x264"].features == "features/Arson002_x264__5.npy"
    assert [row.split for row in rows.values()] == ["train", "test"]


@pytest.mark.parametrize("dataset", LAYOUTS)
def test_what_stands_as_an_example_is_a_name_of_its_dataset(dataset: str) -> None:
    layout = LAYOUTS[dataset]
    for example in layout.example.split(" or "):
        assert layout.parse(PurePosixPath(example)) is not None, example
