"""gvvad-train evaluate: a report that a person can read, of heads and of bundles."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from server.bundle import DEFAULT_BUNDLE
from tests.support.featured import make_features
from tests.support.footage import make_footage
from tests.training.test_mil import recipe_of
from training.cli import main
from training.manifest import Row, clip_rows, load_manifest, write_manifest
from training.mil import Places, train_head
from training.pictures import chosen_videos
from training.scored import VideoScores

RECIPE = recipe_of(steps=40)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_features(tmp_path_factory.mktemp("features"), videos=48)


@pytest.fixture(scope="module")
def run(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train_head(Places(manifest, folder), RECIPE)
    return folder


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of rendered clips, calm and wild."""
    folder = tmp_path_factory.mktemp("footage")
    make_footage(folder, sources=2)
    write_manifest(folder / "manifest.jsonl", clip_rows(folder))
    return folder / "manifest.jsonl"


def judge(*arguments: object, out: Path) -> int:
    return main(["evaluate", *map(str, arguments), "--out", str(out), "--rounds", "20"])


def test_a_head_is_judged_on_test_videos_alone(
    manifest: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert judge("--manifest", manifest, "--head", run, "--json", out=tmp_path) == 0
    found = json.loads(capsys.readouterr().out)
    tests = [row for row in load_manifest(manifest).rows if row.split == "test"]
    assert found["videos"] == len(tests)
    assert found["frames"]["auc"]["value"] > 0.9
    assert found["frames"]["auc"]["low"] <= found["frames"]["auc"]["value"]
    assert found["at_threshold"]["events"] == sum(row.label == "anomalous" for row in tests)
    assert Path(found["report"]) == tmp_path / "report.md"


def test_the_report_shows_its_figures_and_its_pictures(
    manifest: Path, run: Path, tmp_path: Path
) -> None:
    assert judge("--manifest", manifest, "--head", run, out=tmp_path) == 0
    report = (tmp_path / "report.md").read_text()
    figures = json.loads((tmp_path / "report.json").read_text())
    assert f"| ROC AUC of frames | {figures['frames']['auc']['value']:.3f} (" in report
    assert f"{100 * figures['at_threshold']['recall']:.0f} % of 4 events are found" in report
    assert "not measurable: 0.0" in report
    assert "Of 8 videos nothing says the frame rate; they are taken at 30 Hz." in report
    for name in ("scores.png", "roc.png", "delay.png", "calibration.png"):
        assert f"![{name}]({name})" in report
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_a_bundle_scores_the_videos_themselves(
    footage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--manifest", footage, "--bundle", DEFAULT_BUNDLE, "--split", "all", "--json")
    assert judge(*arguments, out=tmp_path) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["videos"] == 4
    assert found["skipped"] == {}
    assert found["frames"]["auc"]["value"] > 0.5


def test_a_video_that_cannot_be_read_is_left_out_and_told(
    footage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    lost = Row(id="lost", label="normal", group="g", video=str(broken), frames=32)
    rows = [
        row.model_copy(update={"video": str(footage.parent / str(row.video))})
        for row in load_manifest(footage).rows
    ]
    write_manifest(tmp_path / "manifest.jsonl", [*rows, lost])
    arguments = ("--manifest", tmp_path / "manifest.jsonl", "--bundle", DEFAULT_BUNDLE)
    assert judge(*arguments, "--split", "all", "--json", out=tmp_path) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["videos"] == 4
    assert "broken.mp4" in found["skipped"]["lost"]
    assert "1 videos could not be scored; lost: " in (tmp_path / "report.md").read_text()


def test_videos_of_which_none_can_be_scored_are_refused_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    known = {"group": "g", "split": "test", "video": "broken.mp4", "frames": 32}
    rows = [
        Row.model_validate(known | {"id": "calm", "label": "normal"}),
        Row.model_validate(known | {"id": "wild", "label": "anomalous", "anomalous": [[0, 9]]}),
    ]
    write_manifest(tmp_path / "manifest.jsonl", rows)
    arguments = ("--manifest", tmp_path / "manifest.jsonl", "--bundle", DEFAULT_BUNDLE)
    assert judge(*arguments, out=tmp_path / "out") == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert "none of 2 videos can be scored; calm: " in told
    assert "broken.mp4" in told
    assert not (tmp_path / "out").exists()


def test_videos_that_were_trained_on_are_told(run: Path, tmp_path: Path) -> None:
    rows = make_features(tmp_path / "features")
    known = [
        row.model_copy(update={"video_sha256": f"{n:064x}", "split": None})
        for n, row in enumerate(load_manifest(rows).rows)
    ]
    write_manifest(rows, known)
    train_head(Places(rows, tmp_path / "run"), RECIPE)
    arguments = ("--manifest", rows, "--head", tmp_path / "run", "--split", "all")
    assert judge(*arguments, out=tmp_path) == 0
    assert "**24 of these videos were trained on**" in (tmp_path / "report.md").read_text()


def test_curves_are_chosen_by_rule() -> None:
    def video(name: str, scores: tuple[float, ...], *anomalous: tuple[int, int]) -> VideoScores:
        label = "anomalous" if anomalous else "normal"
        row = Row(id=name, label=label, group=name, frames=48, anomalous=anomalous)
        return VideoScores(row, (0, 16, 32), (16, 32, 48), scores)

    videos = [
        video("upside down", (0.9, 0.1, 0.9), (16, 32)),
        video("clear", (0.1, 0.9, 0.1), (16, 32)),
        video("flat", (0.5, 0.5, 0.5), (16, 32)),
        video("calm", (0.1, 0.1, 0.1)),
        video("false alarm", (0.1, 0.8, 0.1)),
    ]
    assert [(name, found.row.id) for name, found in chosen_videos(videos)] == [
        ("best", "clear"),
        ("middle", "flat"),
        ("worst", "upside down"),
        ("normal, highest", "false alarm"),
    ]


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        (["--threshold", "1.5"], r"--threshold \(1.5\) must be over 0 and at most 1"),
        (["--min-duration", "-1"], r"--min-duration \(-1.0\) must be 0 or more"),
        (["--split", "validation"], "no real video of .* is marked 'validation'; mark rows"),
        (["--seed", "-1"], r"--seed \(-1\) must be 0 or more"),
    ],
)
def test_what_cannot_be_judged_is_refused_in_a_sentence(
    manifest: Path,
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    extra: list[str],
    sentence: str,
) -> None:
    assert judge("--manifest", manifest, "--head", run, *extra, out=tmp_path) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert re.search(sentence, told)


def test_windows_that_do_not_fit_the_features_are_refused(
    manifest: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "spans.npy", np.array([[0, 16]]))
    rows = [
        row.model_copy(
            update={
                "spans": str(tmp_path / "spans.npy"),
                "features": str(manifest.parent / str(row.features)),
            }
        )
        for row in load_manifest(manifest).rows
    ]
    write_manifest(tmp_path / "manifest.jsonl", rows)
    assert judge("--manifest", tmp_path / "manifest.jsonl", "--head", run, out=tmp_path) == 2
    assert "windows of features, up to frame 0, but" in capsys.readouterr().err
