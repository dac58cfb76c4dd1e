"""gvvad-train import, as it is called."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.published import ELSEWHERE, WIDTH, Published, some_features
from training.cli import main
from training.manifest import load_manifest

GENERATED = "descriptions_1_UCF_CLIP-B"


@pytest.fixture
def lists(tmp_path: Path) -> list[str]:
    """Arguments that import a small GV-VAD."""
    gv = Published(tmp_path, "gv-vad")
    train = ["UCF/Abuse001_x264_clip.npy", "UCF/Normal_Videos001_x264_clip.npy"]
    train += [f"{GENERATED}/{number}_clip.npy" for number in (2, 302)]
    test = ["UCF/Arson002_x264_clip.npy", "UCF/Normal_Videos_003_x264_clip.npy"]
    for name in train + test:
        gv.write_features(name, some_features(4, WIDTH))
    given = [
        *("--train-list", str(gv.write_list("ucfg1.list", [f"{ELSEWHERE}/{n}" for n in train]))),
        *("--test-list", str(gv.write_list("test.list", [f"{ELSEWHERE}/{n}" for n in test]))),
        *("--kept-list", str(gv.write_list("ucfg2.list", train[:3]))),
        *("--annotations", str(gv.write_list("notes.txt", ["Arson002_x264.mp4  Arson  8  40"]))),
    ]
    return ["import", "gv-vad", *given, "--features", str(gv.features), "--encoder", "clip"]


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("gvvad-train: ")
    return said


def test_import_writes_both_splits_and_counts_them(
    lists: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "manifest.jsonl"
    assert main([*lists, "--out", str(out)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["split", "label", "source", "class", "videos"]
    assert ["test", "anomalous", "real", "Arson", "1"] in lines
    assert ["train", "normal", "synthetic", "-", "1"] in lines
    assert " ".join(lines[-1]).startswith("6 videos in ")
    rows = {row.id: row for row in load_manifest(out).rows}
    assert rows["Arson002_x264"].anomalous == ((8, 40),)
    assert [rows[f"gv-vad-1-{number}"].kept for number in (2, 302)] == [True, False]
    assert all((out.parent / str(row.features)).exists() for row in rows.values())


def test_import_prints_json(
    lists: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "manifest.jsonl"
    assert main([*lists, "--out", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["manifest"], found["rows"]) == (str(out), 6)
    assert sum(count["videos"] for count in found["counts"]) == 6
    assert set(found["counts"][0]) == {"split", "label", "source", "class", "videos"}


def test_import_of_a_folder_of_clips(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    data.mkdir()
    truth = {"frames": 40, "fps": 25.0, "source": "gate"}
    clips = {"a.mp4": truth | {"anomalous": [[4, 9]]}, "b.mp4": truth | {"anomalous": []}}
    (data / "ground_truth.json").write_text(json.dumps(clips))
    arguments = ["import", "clips", "--videos", str(data), "--out", str(tmp_path / "m" / "a.jsonl")]
    said = refused(arguments, capsys)
    assert "'a.mp4' stands in a ground_truth.json under" in said
    for name in clips:
        (data / name).touch()
    assert main(arguments) == 0
    rows = load_manifest(tmp_path / "m" / "a.jsonl").rows
    assert [row.video for row in rows] == ["../data/a.mp4", "../data/b.mp4"]
    assert [row.anomalous for row in rows] == [((4, 9),), ()]
    assert {row.group for row in rows} == {"data/gate"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tad"], "no list says which videos there are; give --train-list"),
        (["clips"], "give --videos, no list"),
        (["clips", "--videos", "x", "--train-list", "y"], "give --videos, no list"),
        (["tad", "--test-list", "x", "--kept-list", "y"], "--kept-list (y) is of generated videos"),
        (["tad", "--test-list", "gone.list"], "gone.list cannot be read as text"),
        (["clips", "--videos", "gone"], "gone is not a folder"),
    ],
)
def test_import_without_what_it_needs_is_refused(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "manifest.jsonl"
    assert said in refused(["import", *arguments, "--out", str(out)], capsys)
    assert not out.exists()


def test_import_of_bad_input_leaves_the_manifest_that_was_there(
    lists: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "manifest.jsonl"
    assert main([*lists, "--out", str(out)]) == 0
    before = out.read_bytes()
    (tmp_path / "test.list").write_text("")
    assert "test.list names no video" in refused([*lists, "--out", str(out)], capsys)
    assert out.read_bytes() == before
