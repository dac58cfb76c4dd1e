"""The farm's cameras through the readers that users have: FFmpeg by PyAV, and OpenCV."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from pathlib import Path
from urllib.parse import urlsplit

import av
import av.container
import av.error
import cv2
import numpy as np
import psutil
import pytest

from server.bench.farm import CameraFarm, CameraSpec, FarmError, FarmStats
from server.bench.rtp import CLOCK_HZ
from server.ingest.video import capture_utc_seconds
from tests.support.cameras import render_clip
from tests.support.draining import Drain, ask, play, read_reply

FPS = 25
SLOW_FPS = 10
CLIP_FRAMES = 20
DEADLINE_SECONDS = 20

PARENT = """
import sys, time
from pathlib import Path
from server.bench.farm import CameraFarm, CameraSpec
with CameraFarm([CameraSpec("cam", Path(sys.argv[1]), 25)]) as farm:
    print(farm.pid, flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Less than a second, so that every test goes over the seam."""
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    return render_clip(path, seconds=CLIP_FRAMES / FPS, fps=FPS)


@pytest.fixture(scope="module")
def heavy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A camera whose frames fill a socket soon: 25 kB each, noise all over."""
    path = tmp_path_factory.mktemp("clips") / "heavy.mp4"
    return render_noise(path)


def render_noise(path: Path) -> Path:
    dice = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        stream.codec_context.gop_size = 10
        stream.options = {"preset": "ultrafast", "bf": "0", "sc_threshold": "0", "qp": "28"}
        for _ in range(CLIP_FRAMES):
            picture = dice.integers(0, 255, (240, 320), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="gray")))
        container.mux(stream.encode(None))
    return path


def farm_of(clip: Path) -> CameraFarm:
    """One camera of that clip, `cam`."""
    return CameraFarm([CameraSpec("cam", clip, FPS)])


def open_live(url: str) -> av.container.InputContainer:
    options = {"rtsp_transport": "tcp", "probesize": "32", "analyzeduration": "1"}
    return av.open(url, format="rtsp", options=options, timeout=(10, 10))


def pts_seconds(url: str, frames: int) -> list[float]:
    """Times of so many decoded frames; the first of a session has none."""
    times: list[float] = []
    with open_live(url) as container:
        for frame in container.decode(video=0):
            if frame.time is not None:
                times.append(frame.time)
            if len(times) == frames:
                break
    return times


def taken_seconds(packet: av.Packet) -> float:
    """UTC at which the camera says that it took the frame."""
    assert packet.has_sidedata("prft")
    return capture_utc_seconds(bytes(packet.get_sidedata("prft")), time.time())


def until(holds: Callable[[FarmStats], bool], farm: CameraFarm) -> FarmStats:
    """The farm's figures once something holds of them."""
    deadline_seconds = time.monotonic() + DEADLINE_SECONDS
    while not holds(stats := farm.stats()):
        assert time.monotonic() < deadline_seconds, stats
        time.sleep(0.02)
    return stats


def test_every_frame_arrives_and_times_rise_evenly_over_the_seam(clip: Path) -> None:
    with farm_of(clip) as farm:
        times = pts_seconds(farm.url("cam"), 3 * CLIP_FRAMES)
        steps = [later - earlier for earlier, later in pairwise(times)]
        assert steps == pytest.approx([1 / FPS] * len(steps), abs=1e-4)
        stats = until(lambda stats: not stats.readers, farm)
    assert stats.frames_sent >= len(times)
    assert stats.frames_refused == 0


def test_frames_come_in_real_time_at_the_rate_asked_for(clip: Path) -> None:
    with CameraFarm([CameraSpec("slow", clip, 10), CameraSpec("fast", clip, 50)]) as farm:
        for path, fps in (("slow", 10), ("fast", 50)):
            with open_live(farm.url(path)) as container:
                packets = container.demux(video=0)
                next(packets)
                started_seconds = time.monotonic()
                for _ in range(fps):
                    next(packets)
                # What a busy machine makes late comes in a burst and makes no pace.
                assert 0.8 < time.monotonic() - started_seconds < 2


def test_a_reader_learns_when_each_frame_was_taken(clip: Path) -> None:
    with farm_of(clip) as farm, open_live(farm.url("cam")) as container:
        packets = islice(container.demux(video=0), 2 * CLIP_FRAMES)
        captured = [taken_seconds(packet) for packet in packets]
        assert 0 <= time.time() - captured[-1] < 5
    steps = [later - earlier for earlier, later in pairwise(captured)]
    assert sum(steps) == pytest.approx(len(steps) / FPS, abs=0.05)


def test_opencv_reads_a_camera_as_a_naive_program_would(clip: Path) -> None:
    with CameraFarm([CameraSpec("/yard/cam/", clip, FPS)]) as farm:
        capture = cv2.VideoCapture(farm.url("yard/cam"))
        shapes = {capture.read()[1].shape for _ in range(2 * CLIP_FRAMES)}
        capture.release()
    assert shapes == {(96, 160, 3)}


def test_readers_that_prefer_udp_come_to_tcp(clip: Path) -> None:
    with farm_of(clip) as farm, av.open(farm.url("cam"), timeout=(10, 10)) as container:
        assert next(container.decode(video=0)).width == 160


def test_two_readers_of_one_camera_see_the_same(clip: Path) -> None:
    seen: list[dict[int, bytes]] = []
    with (
        farm_of(clip) as farm,
        open_live(farm.url("cam")) as first,
        open_live(farm.url("cam")) as second,
    ):
        assert until(lambda stats: stats.readers == 2, farm).frames_refused == 0
        for container in (first, second):
            packets = islice(container.demux(video=0), 2 * CLIP_FRAMES)
            seen.append({round(taken_seconds(packet) * FPS): bytes(packet) for packet in packets})
    common = seen[0].keys() & seen[1].keys()
    assert len(common) >= CLIP_FRAMES
    assert all(seen[0][number] == seen[1][number] for number in common)


def test_a_reader_that_never_reads_loses_frames_and_no_other_notices(heavy: Path) -> None:
    with (
        CameraFarm([CameraSpec("cam", heavy, SLOW_FPS)]) as farm,
        play(farm.url("cam")),
        open_live(farm.url("cam")) as container,
    ):
        packets = islice(container.demux(video=0), 5 * SLOW_FPS)
        times = [packet.pts for packet in packets if packet.pts is not None]
        steps = {later - earlier for earlier, later in pairwise(times)}
        assert steps == {CLOCK_HZ // SLOW_FPS}
        refused = until(lambda stats: stats.frames_refused > 0, farm).frames_refused
        until(lambda stats: stats.frames_refused > refused, farm)


def test_a_reader_that_fell_behind_goes_on_with_whole_frames_from_a_key_frame(
    heavy: Path,
) -> None:
    with farm_of(heavy) as farm, open_live(farm.url("cam")) as container:
        packets = (packet for packet in container.demux(video=0) if packet.pts is not None)
        until(lambda stats: stats.frames_refused > CLIP_FRAMES, farm)
        steps = pairwise(packets)
        after = next(new for old, new in steps if new.pts - old.pts > 2 * CLOCK_HZ / FPS)
        assert after.is_keyframe
        assert not after.is_corrupt
        assert len(after.decode()) == 1


def test_the_seed_places_cameras_apart_and_always_in_the_same_way(clip: Path) -> None:
    def descriptions(seed: int) -> list[str]:
        specs = [CameraSpec(f"cam-{number}", clip, FPS) for number in range(3)]
        found = []
        with CameraFarm(specs, seed=seed) as farm:
            for spec in specs:
                with connected(farm) as connection:
                    ask(connection, f"DESCRIBE {farm.url(spec.path)} RTSP/1.0")
                    read_reply(connection)
                    found.append(connection.recv(60).decode())
        return found

    first, again, other = descriptions(1), descriptions(1), descriptions(2)
    assert len(set(first)) == 3
    assert first == again
    assert first != other


def connected(farm: CameraFarm) -> socket.socket:
    port = urlsplit(farm.url("cam")).port
    return socket.create_connection(("127.0.0.1", port or 0), timeout=10)


@pytest.mark.parametrize(
    ("line", "headers", "status"),
    [
        ("OPTIONS * RTSP/1.0", (), 200),
        ("GET_PARAMETER * RTSP/1.0", (), 200),
        ("DESCRIBE rtsp://h/other RTSP/1.0", (), 404),
        ("SETUP rtsp://h/other/track RTSP/1.0", (), 404),
        ("SETUP rtsp://h/cam/track RTSP/1.0", ("Transport: RTP/AVP;client_port=5-6",), 461),
        ("PLAY rtsp://h/cam RTSP/1.0", ("Session: 1",), 454),
        ("TEARDOWN rtsp://h/cam RTSP/1.0", (), 454),
        ("RECORD rtsp://h/cam RTSP/1.0", (), 501),
        ("DESCRIBE rtsp://[/cam RTSP/1.0", (), 400),
        ("GET / HTTP/1.1", (), 400),
    ],
)
def test_requests_are_answered_as_cameras_answer_them(
    farm_of_one: CameraFarm, line: str, headers: tuple[str, ...], status: int
) -> None:
    with connected(farm_of_one) as connection:
        ask(connection, line, *headers)
        assert read_reply(connection).startswith(f"RTSP/1.0 {status} ")


@pytest.fixture(scope="module")
def farm_of_one(clip: Path) -> Iterator[CameraFarm]:
    with farm_of(clip) as farm:
        yield farm


def test_many_cameras_are_on_time_and_cheap(clip: Path) -> None:
    specs = [CameraSpec(f"cam-{number}", clip, FPS) for number in range(40)]
    with CameraFarm(specs) as farm:
        with Drain([farm.url(spec.path) for spec in specs]):
            until(lambda stats: stats.frames_sent > 1000, farm)
            before = farm.stats()
            after = until(lambda stats: stats.frames_sent > before.frames_sent + 2000, farm)
        until(lambda stats: stats.readers == 0, farm)
    frames = after.frames_sent - before.frames_sent
    # Ten times what it takes where nothing else runs: only a blunder is that dear.
    assert (after.cpu_seconds - before.cpu_seconds) / frames < 300e-6
    assert after.frames_refused == 0
    assert 0 < after.lateness_p99_seconds < 2


def test_nothing_is_left_behind_and_nothing_is_said(
    clip: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with farm_of(clip) as farm:
        connection = play(farm.url("cam"))
        until(lambda stats: stats.frames_sent > 0, farm)
        pid = farm.pid
    connection.close()
    assert not psutil.pid_exists(pid)
    assert capfd.readouterr() == ("", "")
    with pytest.raises(FarmError, match="has ended"):
        farm.stats()


def test_the_cameras_go_when_their_parent_is_killed(clip: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(clip)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    gone, _ = psutil.wait_procs([child], timeout=15)
    assert [process.pid for process in gone] == [child.pid]


def test_cameras_that_are_gone_are_told_of(clip: Path) -> None:
    with farm_of(clip) as farm:
        os.kill(farm.pid, signal.SIGKILL)
        os.waitid(os.P_PID, farm.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(FarmError, match=f"pid {farm.pid}"):
            farm.stats()


def test_bad_input_is_refused_with_a_sentence(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="fps \\(0\\) must be over 0"):
        CameraSpec("cam", clip, 0)
    with pytest.raises(ValueError, match="path \\('/'\\) must have a name"):
        CameraSpec("/", clip, 25)
    with pytest.raises(ValueError, match="path cam is given twice"):
        CameraFarm([CameraSpec("cam", clip, 25), CameraSpec("/cam", clip, 25)])
    farm = CameraFarm([CameraSpec("cam", tmp_path / "none.mp4", 25)])
    with pytest.raises(FarmError, match=r"none\.mp4 is not a file"):
        farm.__enter__()
    assert not psutil.pid_exists(farm.pid)
