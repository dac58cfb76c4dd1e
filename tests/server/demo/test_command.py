"""`gvvad demo` as a user runs it: on a clip whose scores are known, stopped, killed, misused.

The tiny bundle scores the brightness of a window with a trail, so a clip that is
dark, bright and dark again raises exactly one alert, while it is bright.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from server.contract import WindowSpec
from tests.support.clips import grey_clip
from tests.support.tiny_bundle import make_tiny_bundle

DARK, BRIGHT = 20, 250


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    window = WindowSpec(sampled_frames=4, fps=10.0)
    directory = tmp_path_factory.mktemp("bundles") / "tiny"
    return make_tiny_bundle(directory, window=window).directory


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    levels = [DARK] * 40 + [BRIGHT] * 40 + [DARK] * 40
    return grey_clip(tmp_path_factory.mktemp("clips") / "flash.mp4", levels)


@contextmanager
def demo(bundle: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A running `gvvad demo`; leaving asserts that none of its processes is left."""
    command = [sys.executable, "-m", "server", "demo", *arguments]
    # A killed demo cannot sweep up: keep what it leaves below the test's own directory.
    environ = os.environ | {"GVVAD_BUNDLE": str(bundle), "TMPDIR": str(bundle.parent)}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environ, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_line(process: subprocess.Popen[str], words: str) -> None:
    assert process.stderr is not None
    assert any(words in line for line in process.stderr), f"it never said {words!r}"


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """All that the demo has started, however deep."""
    return psutil.Process(process.pid).children(recursive=True)


def assert_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=15)
    assert alive == []


@pytest.mark.long
def test_one_flash_raises_one_alert_and_everything_is_reported(
    bundle: Path, clip: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "out"
    arguments = ("--clip", str(clip), "--seconds", "12", "--json", "--out", str(out))
    with demo(bundle, *arguments) as process:
        stdout, stderr = process.communicate(timeout=90)
    assert process.returncode == 0, stderr
    report = json.loads(stdout)
    assert stdout.count("\n") == 1
    assert set(report) == {
        *("bundle", "encoder", "engine", "windows", "dropped", "frames", "latency_seconds"),
        *("score", "alerts", "seconds", "picture"),
    }
    assert (report["alerts"], report["dropped"], report["encoder"]) == (1, 0, "means")
    assert 6 <= report["windows"] <= 7
    assert 100 <= report["frames"] <= 120
    assert report["score"]["min"] == pytest.approx(DARK / 255 / 2, abs=0.02)
    assert 0.6 < report["score"]["max"] < BRIGHT / 255
    assert report["latency_seconds"]["p50"] <= report["latency_seconds"]["p99"] < 2
    assert stderr.count("and goes on, peak score") == 1
    assert report["picture"] == str(out / "demo.png")
    assert_shows_the_flash(out / "demo.png")


def assert_shows_the_flash(picture: Path) -> None:
    """The highest window's frames are bright, the lowest window's dark."""
    pixels = np.asarray(Image.open(picture).convert("L"))
    height, width = pixels.shape
    highest = pixels[int(0.6 * height), int(0.1 * width) : int(0.18 * width)]
    lowest = pixels[int(0.87 * height), int(0.1 * width) : int(0.18 * width)]
    assert highest.min() > 200
    assert lowest.max() < 60


@pytest.mark.long
def test_ctrl_c_stops_everything_and_still_sums_up(
    bundle: Path, clip: Path, tmp_path: Path
) -> None:
    arguments = ("--clip", str(clip), "--seconds", "60", "--out", str(tmp_path))
    with demo(bundle, *arguments) as process:
        wait_for_line(process, "window   1")
        started = family(process)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=30)
    assert len(started) >= 3  # server, decode worker, camera
    assert process.returncode == 0, stderr
    assert "windows scored, 0 dropped" in stdout
    assert "Traceback" not in stderr
    assert (tmp_path / "demo.png").is_file()
    assert_gone(started)


@pytest.mark.long
def test_a_killed_demo_leaves_no_process_behind(bundle: Path, clip: Path, tmp_path: Path) -> None:
    arguments = ("--clip", str(clip), "--seconds", "60", "--out", str(tmp_path))
    with demo(bundle, *arguments) as process:
        wait_for_line(process, "window   0")
        started = family(process)
        process.kill()
    assert len(started) >= 3
    assert_gone(started)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--seconds", "3"], "--seconds (3) must be 10 to 86400"),
        (["--seconds", "nan"], "--seconds (nan) must be 10 to 86400"),
        (["--clip", "missing.mp4"], "missing.mp4 is not a file"),
        (["--clip", "text.mp4"], "text.mp4 is not a video that FFmpeg can read"),
        (["--clip", "short.mp4"], "short.mp4 is shorter than one window (1.6 s, 16 frames"),
        (
            ["--clip", "flash.mp4", "--out", "text.mp4"],
            "--out text.mp4 cannot be made (File exists)",
        ),
    ],
)
def test_bad_input_is_refused_in_one_sentence_before_anything_starts(
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    sentence: str,
) -> None:
    grey_clip(tmp_path / "short.mp4", [DARK] * 15)
    grey_clip(tmp_path / "flash.mp4", [DARK] * 40)
    (tmp_path / "text.mp4").write_text("no video at all")
    environ_path = os.pathsep.join([str(Path.cwd()), str(Path.cwd() / "protos")])
    monkeypatch.setenv("PYTHONPATH", environ_path)
    monkeypatch.chdir(tmp_path)
    with demo(bundle, *arguments) as process:
        stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 2
    assert stdout == ""
    assert stderr.startswith(f"gvvad: {sentence}")
    assert stderr.count("\n") == 1
    assert not (tmp_path / "demo-out").exists()
