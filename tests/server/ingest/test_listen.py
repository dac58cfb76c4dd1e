"""Cameras that push to a port of ours; PyAV alone, no RTSP server."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from server.ingest.access import AccessPolicy
from server.ingest.events import StatusChanged, WindowReady
from server.streams import Mode, Reason, SourceError, SourceUrl, StreamConfig, StreamState
from tests.support.cameras import PushCamera, free_port, render_clip
from tests.support.pools import Recorder, listener, running_pool


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_clip(tmp_path_factory.mktemp("clips") / "street.mp4")


def test_a_camera_can_push_leave_and_come_back(clip: Path) -> None:
    recorder = Recorder()
    url = f"rtsp://127.0.0.1:{free_port()}/cam"
    with running_pool(recorder) as pool:
        pool.add(listener("a", url))
        waiting = recorder.wait_state("a", StreamState.CONNECTING)
        assert waiting.reason is None
        assert url in waiting.message
        with PushCamera(clip, url):
            recorder.wait_windows("a", 2)
            left = time.monotonic()
        again = recorder.wait_state("a", StreamState.CONNECTING, after=left)
        assert again.reason is Reason.END_OF_STREAM
        with PushCamera(clip, url):
            assert recorder.wait_reconnected("a").reason is Reason.END_OF_STREAM
            windows = recorder.wait_windows("a", 2, after=left)
            assert windows[0].number == 0
    changes = recorder.of("a", StatusChanged)
    assert StreamState.BACKING_OFF not in {change.state for change in changes}


def test_who_knocks_without_video_does_not_keep_the_camera_out(clip: Path) -> None:
    recorder = Recorder()
    port = free_port()
    with running_pool(recorder) as pool:
        pool.add(listener("a", f"rtsp://127.0.0.1:{port}/cam"))
        recorder.wait_state("a", StreamState.CONNECTING)
        recorder.wait(lambda: _knock(port), "the port to be open")
        with PushCamera(clip, f"rtsp://127.0.0.1:{port}/cam"):
            recorder.wait_windows("a", 1)


def test_a_taken_port_is_told(clip: Path) -> None:
    recorder = Recorder()
    with socket.create_server(("127.0.0.1", 0)) as taken, running_pool(recorder) as pool:
        port = taken.getsockname()[1]
        pool.add(listener("a", f"rtsp://127.0.0.1:{port}/cam"))
        failure = recorder.wait_state("a", StreamState.BACKING_OFF)
    assert failure.reason is Reason.UNREACHABLE
    assert f"cannot listen on 127.0.0.1:{port}" in failure.message


def test_only_loopback_is_listened_on_by_default() -> None:
    with running_pool(Recorder()) as pool, pytest.raises(SourceError) as denied:
        pool.add(listener("a", "rtsp://0.0.0.0:8554/cam"))
    assert denied.value.reason is Reason.ADDRESS_DENIED
    assert "0.0.0.0" in denied.value.sentence


def test_a_host_name_is_judged_by_the_addresses_it_stands_for() -> None:
    recorder = Recorder()
    with running_pool(recorder, access=AccessPolicy(camera_networks=())) as pool:
        pool.add(StreamConfig("a", SourceUrl("rtsp://localhost:554/cam"), Mode.PULL))
        parked = recorder.wait_state("a", StreamState.PARKED)
    assert parked.reason is Reason.ADDRESS_DENIED
    assert not recorder.of("a", WindowReady)


def _knock(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
    except OSError:
        return False
    return True
