"""`gvvad bench` as a user runs it: a process, its output, and what it leaves behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.support.cameras import RtspServer, render_clip
from tests.support.leaks import leaks

RUN_SECONDS = 280
SMALL = ("--camera", "160x96@25", "--naive-python", "none", "--quick")


@contextmanager
def bench(cache: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The command, running."""
    pipe = subprocess.PIPE
    environ = os.environ | {"XDG_CACHE_HOME": str(cache)}
    command = [sys.executable, "-m", "server", "bench", *arguments]
    with subprocess.Popen(command, env=environ, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def outcome(cache: Path, *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a run to its end."""
    with bench(cache, *arguments) as process:
        stdout, stderr = process.communicate(timeout=RUN_SECONDS)
        return process.returncode, stdout, stderr


@pytest.mark.long
@pytest.mark.timeout(RUN_SECONDS + 20)
def test_two_small_cameras_are_measured_from_end_to_end(tmp_path: Path) -> None:
    picture = tmp_path / "bench.svg"
    code, stdout, stderr = outcome(
        tmp_path, *SMALL, "--cameras", "2", "--seconds", "3", "--json", "--out", str(picture)
    )
    assert code == 0, stderr
    told = json.loads(stdout)
    assert told["complete"]
    assert told["model"]["encoder"] == "motion-members"
    [found] = told["benches"]
    assert (found["held"], found["measured_at"], found["cameras"]) == (2, 2, ["160x96@25"])
    [one] = found["rounds"]
    load = one["load"]
    assert load["holds"], load["complaints"]
    assert load["windows_per_second"] == pytest.approx(2 * 10 / 16, rel=0.6)
    # Workers report frames once a second, so that this is no closer.
    assert load["frames_decoded"] == pytest.approx(load["generator"]["frames_sent"], abs=75)
    assert 0 < load["latency"]["p50"] <= load["latency"]["p99"] < 1
    assert load["pss_bytes"] > 50e6
    assert all(share >= -0.001 for share in load["shares"].values())
    assert load["shares"]["decode"] > 0
    assert load["shares"]["engine"] > 0
    assert one["ceiling"]["cameras"] > 2
    assert one["replay"]["windows"] > 10
    assert "<svg" in picture.read_text()
    assert "a round: decode and encoder ceilings" in stderr


@pytest.mark.long
@pytest.mark.timeout(RUN_SECONDS + 20)
def test_extras_are_measured_where_they_are_asked_for(tmp_path: Path) -> None:
    extras = ("--twice", "--memory", "--soak", "0.2")
    code, stdout, stderr = outcome(
        tmp_path, *SMALL, "--share", "0.02", "--seconds", "3", "--require", "0.99", *extras
    )
    # So few cameras are less than nearly all of the ceiling, and that was required.
    assert code == 1, stderr
    missed = re.search(r"160x96@25: (\d+) cameras of a ceiling of ([\d.]+) ", stderr)
    assert missed is not None, stderr
    assert int(missed[1]) == max(1, int(0.02 * float(missed[2])))
    told = {line[2:18].strip(): line[18:] for line in stdout.splitlines() if line[:2] == "  "}
    assert told["cameras"].startswith(f" {missed[1]}, as asked for; held in 1 of 1 rounds")
    assert "MB a further camera" in told["memory"]
    assert ": 0 refused, p99 " in told["twice as many"]
    assert told["for long"].startswith(" 0.2 minutes: memory ")


@pytest.mark.long
@pytest.mark.rtsp
@pytest.mark.timeout(RUN_SECONDS + 20)
def test_a_real_camera_has_no_ceiling_and_keeps_its_password(tmp_path: Path) -> None:
    clip, password = render_clip(tmp_path / "clip.mp4"), "Hirschkaefer-91"
    with RtspServer({"/cam": clip}, user="viewer", password=password) as rtsp:
        camera = ("--camera", rtsp.url("/cam", "viewer", password), "--quick", "--json")
        code, stdout, stderr = outcome(tmp_path, *camera, "--cameras", "1", "--seconds", "3")
    assert code == 0, stderr
    [found] = json.loads(stdout)["benches"]
    assert (found["held"], found["ceiling"], found["replay_share"]) == (1, None, None)
    assert found["cameras"] == [rtsp.url("/cam").replace("//", "//***@")]
    assert found["naive"]["left_out"] == "for real cameras"
    assert leaks([("stdout", stdout), ("stderr", stderr)], {"password": password}) == []


@pytest.mark.long
@pytest.mark.timeout(RUN_SECONDS)
def test_ctrl_c_ends_everything_and_shows_what_was_found(tmp_path: Path) -> None:
    with bench(tmp_path, *SMALL, "--cameras", "1", "--seconds", "3", "--rounds", "9") as process:
        assert process.stderr is not None
        assert any("1 camera," in line for line in process.stderr), "it never told of a load"
        started = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=30)
    assert len(started) >= 3  # cameras, server, a decode worker
    assert process.returncode == 130
    assert "it did not run to its end; this is what was found until then" in stdout
    assert "ceiling" in stdout
    assert "Traceback" not in stderr
    _, alive = psutil.wait_procs(started, timeout=15)
    assert alive == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--camera", "768x431"], "camera '768x431': width and height must be even"),
        (["--camera", "768x432@0"], "camera '768x432@0' has no rate of 0.1 to 120 frames a second"),
        (["--camera", "http://host/cam"], "source URL must start with one of rtsp://"),
        (["--camera", "missing.mp4@25"], "missing.mp4 is not a file"),
        (["--camera", "mpeg4.mp4@25"], "mpeg4.mp4 is mpeg4; give a clip of H.264"),
        (["--camera", "320x240", "--each", "320x240"], "argument --each: not allowed with"),
        (["--bound", "0"], "--bound (0) must be 0.01 to 60"),
        (["--seconds", "nan"], "--seconds (nan) must be 2 to 3600"),
        (["--share", "75"], "--share (75) must be 0.01 to 2"),
        (["--share", "0.5", "--camera", "rtsp://host/cam"], "--share needs a ceiling, which real"),
        (["--share", "0.5", "--cameras", "2"], "argument --cameras: not allowed with"),
        (["--cameras", "0"], "--cameras (0) must be 1 to 10000"),
        (["--rounds", "101"], "--rounds (101) must be 1 to 100"),
        (["--require", "75"], "--require (75) must be 0 to 1"),
        (["--soak", "-1"], "--soak (-1) must be 0.2 to 10080"),
        (["--set", "grpc.port=1"], "--set grpc.port is the benchmark's own; leave it out"),
        (["--set", "ingest.worker=1"], "unknown setting ingest.worker in --set ingest.worker"),
        (["--bundle", "nowhere"], "nowhere"),
        (["--out", "bench.jpg"], "--out bench.jpg must end with .png or .svg"),
        (["--out", "no/bench.png"], "--out no/bench.png: no is no directory; make it first"),
        (["--engine", "onnx"], "argument --engine: 'onnx' must be one of"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence(
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from server.cli import main

    render_clip(tmp_path / "mpeg4.mp4", seconds=1, codec="mpeg4")
    monkeypatch.chdir(tmp_path)
    assert main(["bench", *arguments]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert sentence in told.err
    assert told.err.startswith("gvvad: ")
    assert told.err.count("\n") == 1
