"""Recorded clips through the server's path, with scores known by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from server.alerts import AlertPolicy
from server.backtest_command import run_backtest_command
from server.bundle import Bundle, file_sha256
from server.cli import main
from server.contract import WindowSpec
from server.engine.onnxruntime import EngineOptions, OnnxDetector
from server.metrics import poisson_interval
from server.replay import replay
from server.truth import TruthError
from tests.support.clips import grey_clip
from tests.support.tiny_bundle import make_tiny_bundle, trail_scores

DARK, BRIGHT = 26, 230  # levels whose encoded means lie far from the threshold of 0.5


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One clip that turns bright after 5 s and stays so for 5, one dark, one too short."""
    clips = tmp_path / "clips"
    (clips / "sub").mkdir(parents=True)
    grey_clip(clips / "event.mp4", [DARK] * 48 + [BRIGHT] * 48)
    grey_clip(clips / "sub" / "dark.mp4", [DARK] * 40)
    grey_clip(clips / "short.mp4", [DARK] * 15)
    truth = {
        "event.mp4": {"frames": 96, "fps": 10, "anomalous": [[48, 96]]},
        "sub/dark.mp4": {"frames": 40, "fps": 10, "anomalous": []},
        "short.mp4": {"frames": 15, "fps": 10, "anomalous": []},
    }
    (clips / "ground_truth.json").write_text(json.dumps(truth))
    return clips


@pytest.fixture
def bundle(tmp_path: Path, folder: Path) -> Bundle:
    return make_tiny_bundle(
        tmp_path / "tiny",
        window=WindowSpec(4, 10.0),
        clips=[file_sha256(folder / "sub" / "dark.mp4")],
    )


def run_json(folder: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> dict:
    code = run_backtest_command(folder, bundle.directory, as_json=True)
    return {"code": code} | json.loads(capsys.readouterr().out)


def test_the_report_holds_scores_metrics_and_false_alarms(
    folder: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    report = run_json(folder, bundle, capsys)
    assert report["code"] == 0
    event = report["clips"]["event.mp4"]
    # H.264 and the YUV matrix move a flat grey by up to two levels of 255.
    expected = trail_scores([DARK / 255] * 3 + [BRIGHT / 255] * 3)
    assert event["scores"] == pytest.approx(expected, abs=0.01)
    assert event["first_frames"] == [0, 16, 32, 48, 64, 80]
    assert len(event["alerts"]) == 1
    assert event["alerts"][0]["start_seconds"] == pytest.approx(6.4)
    assert report["unseen"]["auc"] == 1.0
    assert report["unseen"]["ap"] == 1.0
    assert report["unseen"]["false_alarms"] == 0
    assert report["unseen"]["clips"] == 1
    assert report["unseen"]["clips_without_window"] == 1
    assert report["unseen"]["hours"] == pytest.approx(48 / 10 / 3600)
    assert report["unseen"]["false_alarms_per_hour"] is None
    assert report["unseen"]["false_alarms_interval"] == list(poisson_interval(0))
    assert report["windows"] == 8
    assert report["windows_per_second"] > 0


def test_clips_of_the_training_are_marked_and_totalled_apart(
    folder: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    report = run_json(folder, bundle, capsys)
    assert {name: clip["seen"] for name, clip in report["clips"].items()} == {
        "event.mp4": False,
        "short.mp4": False,
        "sub/dark.mp4": True,
    }
    assert report["seen"]["clips"] == 1
    assert report["seen"]["auc"] is None
    assert report["clips"]["short.mp4"]["scores"] == []


def test_an_alert_over_normal_frames_is_a_false_alarm(
    folder: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = json.loads((folder / "ground_truth.json").read_text())
    truth["event.mp4"]["anomalous"] = [[0, 16]]
    (folder / "ground_truth.json").write_text(json.dumps(truth))
    assert run_json(folder, bundle, capsys)["unseen"]["false_alarms"] == 1


def test_a_clip_that_is_no_video_is_told_and_the_others_are_scored(
    folder: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "broken.mp4").write_bytes(b"this is no video" * 99)
    code = run_backtest_command(folder, bundle.directory, as_json=True)
    out, err = capsys.readouterr()
    assert code == 2
    assert "broken.mp4 is not a video" in err
    assert err.count("\n") == 1
    report = json.loads(out)
    assert len(report["clips"]["event.mp4"]["scores"]) == 6
    assert "broken.mp4" in report["clips"]["broken.mp4"]["error"]


def test_truth_about_a_clip_that_is_not_there_is_refused(folder: Path, bundle: Bundle) -> None:
    (folder / "short.mp4").unlink()
    with pytest.raises(TruthError, match=r"names short\.mp4, which is not there"):
        run_backtest_command(folder, bundle.directory, as_json=True)


def test_one_clip_takes_its_own_truth_and_nobody_elses(
    folder: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "short.mp4").unlink()  # its entry beside event.mp4 concerns nobody here
    (folder / "sub" / "ground_truth.json").write_text("not for event.mp4, nor JSON")
    report = run_json(folder / "event.mp4", bundle, capsys)
    assert report["code"] == 0
    assert list(report["clips"]) == ["event.mp4"]
    assert report["unseen"]["auc"] == 1.0


@pytest.mark.parametrize(
    "more", [(), ("--engine", "onnxruntime"), ("--device", "cpu", "--threads", "1")]
)
def test_the_engine_is_the_server_s_and_is_named(
    folder: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str], more: tuple[str, ...]
) -> None:
    command = ["backtest", str(folder), "--bundle", str(bundle.directory), *more]
    assert main([*command, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["engine"] == "onnxruntime on cpu"
    assert report["unseen"]["auc"] == 1.0
    assert main(command) == 0
    assert ", onnxruntime on cpu" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--engine", "tensort"), "'tensort' must be one of onnxruntime, tensorrt, tensorrt_rtx"),
        (("--engine", "tensort"), "; did you mean tensorrt?"),
        (("--device", "gpu"), "'gpu' must be one of cpu, cuda; see"),
        (("--threads", "0"), "'0' must be 1 to 1024"),
        (("--threads", "2", "--engine", "tensorrt"), "--threads (2) is of onnxruntime on the CPU"),
    ],
)
def test_an_engine_that_makes_no_sense_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], told: str
) -> None:
    assert main(["backtest", str(folder), *more]) == 2
    assert told in (sentence := capsys.readouterr().err)
    assert sentence.count("\n") == 1


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="there is a GPU")
@pytest.mark.parametrize("more", [("--device", "cuda"), ("--engine", "tensorrt_rtx")])
def test_an_engine_that_cannot_run_here_is_never_another_one(
    folder: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...]
) -> None:
    assert main(["backtest", str(folder), *more]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1


def test_a_folder_without_clips_is_refused(tmp_path: Path, bundle: Bundle) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no clip"):
        run_backtest_command(tmp_path / "empty", bundle.directory, as_json=True)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        run_backtest_command(tmp_path / "nowhere", bundle.directory, as_json=True)


def test_a_replay_repeats_to_the_bit_and_clips_do_not_mix(folder: Path, bundle: Bundle) -> None:
    detector = OnnxDetector(bundle, EngineOptions(threads=1))
    policy = AlertPolicy(0.5, 0.4, 0.0)
    paths = [folder / "event.mp4", folder / "sub" / "dark.mp4"]
    first = [clip.scores for clip in replay(paths, bundle, detector, policy)]
    again = [clip.scores for clip in replay(paths[::-1], bundle, detector, policy)]
    assert first == again[::-1]


def test_the_readable_report_says_what_is_not_measurable(
    folder: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_backtest_command(folder, bundle.directory, as_json=False) == 0
    text = capsys.readouterr().out
    assert "unseen: 1 clips, 1 without a window left out, frame AUC 1.000" in text
    assert "rate not measurable" in text
    assert "seen: 1 clips, frame AUC not defined (one class only)" in text
