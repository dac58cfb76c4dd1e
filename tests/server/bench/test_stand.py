"""Cameras at a real server: what a run tells of those that are kept up with, and of others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from server.bench.farm import CameraFarm, CameraSpec
from server.bench.host import Host, host, read_counters
from server.bench.run import complaints
from server.bench.stand import Camera, Stand
from server.bench.watcher import Watcher
from server.streams import SourceUrl
from tests.support.cameras import render_clip

SECONDS = 5.0
SENT_FPS = 25.0


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CameraFarm]:
    clip = render_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", seconds=4)
    with CameraFarm([CameraSpec(name, clip, SENT_FPS) for name in ("a", "b", "c")]) as cameras:
        yield cameras


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with host(tmp_path_factory.mktemp("server"), {"max_streams": 2}) as server:
        yield server


@pytest.fixture
def watcher(running: Host) -> Iterator[Watcher]:
    with Watcher(running.client) as watching:
        yield watching
    for view in running.client.list():
        running.client.delete(view.config.stream_id)


def cameras(farm: CameraFarm, fps: float) -> list[Camera]:
    return [Camera(name, SourceUrl(farm.url(name)), fps) for name in ("a", "b", "c")]


@pytest.mark.long
def test_cameras_come_and_go_at_one_server(
    farm: CameraFarm, running: Host, watcher: Watcher
) -> None:
    stand = Stand(running, cameras(farm, SENT_FPS), farm, watcher)
    for asked, there in ((1, ["a"]), (2, ["a", "b"]), (1, ["a"]), (0, [])):
        stand.give(asked)
        assert [view.config.stream_id for view in running.client.list()] == there


@pytest.mark.long
def test_a_camera_that_the_server_refuses_is_told_in_its_words(
    farm: CameraFarm, running: Host, watcher: Watcher
) -> None:
    run = Stand(running, cameras(farm, SENT_FPS), farm, watcher).run(3, SECONDS)
    assert (run.cameras, run.refused, run.silent) == (3, 1, 0)
    assert "max_streams" in run.refusal
    [told] = complaints(run, 1.0)
    assert told.startswith("the server refused 1 of 3: ")


@pytest.mark.long
def test_frames_that_do_not_come_are_missed_although_latency_is_low(
    farm: CameraFarm, running: Host, watcher: Watcher
) -> None:
    # It sends a sixth less than it says, as a decoder would lack that is too slow.
    run = Stand(running, cameras(farm, 30.0), farm, watcher).run(1, SECONDS)
    assert run.latency is not None
    assert run.latency.p99 < 1
    assert run.behind_seconds > 0.3
    assert any("behind in" in one for one in complaints(run, 1.0))


def test_counters_are_read_from_what_prometheus_reads() -> None:
    text = """# TYPE gvvad_frames_decoded_total counter
gvvad_frames_decoded_total{stream="a"} 3.0
gvvad_frames_decoded_total{stream="b"} 4.0
# TYPE gvvad_stage_duration_seconds histogram
gvvad_stage_duration_seconds_bucket{stage="decode",le="+Inf"} 2.0
gvvad_stage_duration_seconds_count{stage="decode"} 2.0
gvvad_stage_duration_seconds_sum{stage="decode"} 0.5
"""
    found = read_counters(text)
    assert (found.frames, found.decode, found.preprocess) == (7.0, (0.5, 2.0), (0.0, 0.0))


def test_a_server_of_the_benchmark_hears_nothing_of_the_operator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It would be refused at the start: there is no such setting.
    monkeypatch.setenv("GVVAD_NO_SUCH_SETTING", "1")
    with host(tmp_path, {}) as server:
        assert server.client.list() == []
        assert server.pss_bytes() > 50e6
        assert server.counters().frames == 0
