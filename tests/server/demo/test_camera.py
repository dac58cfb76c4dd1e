"""The camera against a plain RTSP listener: what it sends, when, and how it ends."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
import pytest

from tests.support.clips import write_clip

FRAMES, FPS = 30, 20


@dataclass
class Received:
    """What came over RTSP, in order."""

    codec: str = ""
    times_seconds: list[float] = field(default_factory=list)
    levels: list[float] = field(default_factory=list)


@pytest.fixture
def url() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"rtsp://127.0.0.1:{probe.getsockname()[1]}/live"


def ramp_clip(path: Path, codec: str = "libx264") -> Path:
    """Frame i is flat grey 4 * i, so that every frame is known by its level."""
    images = (np.full((48, 64, 3), 4 * index, np.uint8) for index in range(FRAMES))
    return write_clip(path, images, fps=FPS, codec=codec)


@contextmanager
def listening(url: str) -> Iterator[Received]:
    """A listener in a thread; leaving waits until the camera has hung up."""
    received = Received()
    thread = threading.Thread(target=listen, args=(url, received))
    thread.start()
    yield received
    thread.join(30)
    assert not thread.is_alive()


def listen(url: str, received: Received) -> None:
    options = {"rtsp_flags": "listen", "listen_timeout": "20"}
    with av.open(url, format="rtsp", options=options) as container:
        received.codec = container.streams.video[0].codec_context.name
        for frame in container.decode(video=0):
            if frame.time is not None:
                received.times_seconds.append(frame.time)
            received.levels.append(float(frame.to_ndarray(format="gray").mean()))


def camera(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "server.demo.camera", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def play(clip: Path, url: str, seconds: float) -> tuple[list[dict[str, float]], float]:
    """What the camera announced, and how long it played."""
    started = time.monotonic()
    finished = camera("--clip", str(clip), "--url", url, "--seconds", str(seconds))
    assert finished.returncode == 0, finished.stderr
    return [json.loads(line) for line in finished.stdout.splitlines()], time.monotonic() - started


@pytest.mark.long
@pytest.mark.parametrize(("codec", "suffix"), [("libx264", ".mp4"), ("mpeg4", ".avi")])
def test_any_clip_arrives_as_h264_in_real_time_and_in_a_loop(
    codec: str, suffix: str, url: str, tmp_path: Path
) -> None:
    clip = ramp_clip(tmp_path / f"clip{suffix}", codec)
    with listening(url) as received:
        turns, took_seconds = play(clip, url, 4.0)
    assert received.codec == "h264"
    assert 75 <= len(received.levels) <= 80  # 4 s of 20 frames, less what a hang-up cuts off
    expected = [4 * (index % FRAMES) for index in range(len(received.levels))]
    assert np.abs(np.array(received.levels) - expected).max() < 14
    assert np.all(np.diff(received.times_seconds) > 0)
    assert 3.9 <= took_seconds < 8
    assert [turn["turn"] for turn in turns] == [0, 1, 2]
    gaps = np.diff([turn["started_seconds"] for turn in turns])
    assert gaps == pytest.approx([FRAMES / FPS] * 2, abs=0.1)


def test_the_camera_waits_for_a_listener_that_comes_late(url: str, tmp_path: Path) -> None:
    clip = ramp_clip(tmp_path / "clip.mp4")
    arguments = ["--clip", str(clip), "--url", url, "--seconds", "1"]
    command = [sys.executable, "-m", "server.demo.camera", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as early:
        assert early.stdout is not None
        with pytest.raises(subprocess.TimeoutExpired):
            early.wait(1.5)  # it knocks and nobody opens
        with listening(url) as received:
            announced = early.stdout.readline()
        assert early.wait(30) == 0
    assert json.loads(announced)["turn"] == 0
    assert len(received.levels) >= 15


def test_a_target_that_never_listens_ends_it_with_a_sentence(url: str, tmp_path: Path) -> None:
    clip = ramp_clip(tmp_path / "clip.mp4")
    arguments = ("--clip", str(clip), "--url", url, "--seconds", "1", "--connect-seconds", "0.3")
    finished = camera(*arguments)
    assert finished.returncode == 2
    assert finished.stderr == f"{url} does not take the stream: Connection refused\n"


def test_a_clip_that_is_no_video_ends_it_with_a_sentence(url: str, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_text("no video at all")
    finished = camera("--clip", str(clip), "--url", url, "--seconds", "1")
    assert finished.returncode == 2
    assert finished.stderr.startswith(f"{clip} is not a video that FFmpeg can read")
