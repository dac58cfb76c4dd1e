"""The demo camera that stays, beside a real server."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from server.rpc.client import Client, ClientError
from server.streams import StreamState
from tests.support.cameras import free_port, render_clip
from tests.support.serving import ServerProcess
from tests.support.tiny_bundle import make_tiny_bundle

WAIT_SECONDS = 30


def demo_camera(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "server", "demo-camera", *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def state(client: Client) -> StreamState | None:
    try:
        return client.get("door").status.state
    except ClientError:
        return None


@pytest.mark.long
def test_it_makes_its_stream_waits_for_a_server_and_stops_when_told(tmp_path: Path) -> None:
    clip = render_clip(tmp_path / "clip.mp4")
    bundle = make_tiny_bundle(tmp_path / "bundle").directory
    url, grpc = f"rtsp://127.0.0.1:{free_port()}/live", free_port()
    camera = demo_camera("door", url, "--clip", str(clip), "--server", f"127.0.0.1:{grpc}")
    assert camera.stderr is not None
    try:
        assert "waiting for the server" in camera.stderr.readline()
        for _ in range(2):  # the second server is new and knows no stream
            with ServerProcess(bundle=bundle, store=tmp_path / "gvvad.db", grpc__port=grpc) as one:
                client = one.client()
                until(lambda: state(client) is StreamState.RUNNING)  # noqa: B023
                client.close()
        camera.send_signal(signal.SIGTERM)
        assert camera.wait(10) == 0
    finally:
        camera.kill()
        _, errors = camera.communicate()
    assert errors.count("pushing at 25 frames a second") == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["door", "file:///clip.mp4"], "must be rtsp://HOST:PORT/PATH"),
        (["door", "nonsense"], "source URL must start with one of"),
        (["door", "rtsp://127.0.0.1:9/live", "--clip", "/nowhere.mp4"], "/nowhere.mp4"),
    ],
)
def test_what_it_cannot_play_is_refused_in_one_line(arguments: list[str], sentence: str) -> None:
    camera = demo_camera(*arguments)
    _, errors = camera.communicate(timeout=30)
    assert camera.returncode == 2
    assert sentence in errors
    assert errors.count("\n") == 1
