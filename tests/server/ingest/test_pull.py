"""Cameras that are pulled, against a real RTSP server in its own process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.ingest.events import FrameStats, IngestEvent, StatusChanged, WindowReady, WindowsSkipped
from server.ingest.settings import HEARTBEAT_SECONDS
from server.streams import Reason, StreamState, Transport
from tests.support.cameras import RtspServer, free_port, mute_server, render_clip
from tests.support.pools import Recorder, camera, running_pool

pytestmark = pytest.mark.rtsp


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_clip(tmp_path_factory.mktemp("clips") / "street.mp4")


SOUND = "( audiotestsrc is-live=true ! audioconvert ! rtpL16pay name=pay0 pt=97 )"
ODD = (
    "( videotestsrc is-live=true ! video/x-raw,width=32,height=32,format=I420 ! rtpvrawpay pt=96 "
    "! capssetter name=pay0 caps=application/x-rtp,encoding-name=ODD )"
)


@pytest.fixture
def server(clip: Path) -> Iterator[RtspServer]:
    launches = {"/sound": SOUND, "/odd": ODD}
    with RtspServer({"/cam": clip, "/other": clip}, launches=launches) as running:
        yield running


@pytest.fixture
def guarded(clip: Path) -> Iterator[RtspServer]:
    with RtspServer({"/cam": clip}, user="joe", password="p@ss word") as running:
        yield running


@pytest.fixture(scope="module")
def watched(clip: Path) -> Recorder:
    """What a pool said about one camera, read over TCP and UDP for some seconds."""
    recorder = Recorder()
    with RtspServer({"/cam": clip}) as running, running_pool(recorder) as pool:
        for transport in Transport:
            pool.add(camera(transport.value, running.url("/cam"), transport))
        for transport in Transport:
            recorder.wait_windows(transport.value, 7)
        recorder.wait(lambda: len(recorder.of("tcp", FrameStats)) >= 4, "four counts")
    return recorder


@pytest.mark.parametrize("stream_id", ["tcp", "udp"])
def test_frames_arrive_at_the_cameras_pace(watched: Recorder, stream_id: str) -> None:
    windows = [event.window for event in watched.of(stream_id, WindowReady)]
    assert [window.number for window in windows] == list(range(len(windows)))
    assert all(window.images.shape == (8, 112, 112, 3) for window in windows)
    starts = [window.start_pts_seconds for window in windows[:4]]
    assert starts[3] - starts[0] == pytest.approx(3 * 16 / 25, abs=0.01)
    arrivals = [window.arrival_seconds for window in windows[:4]]
    assert arrivals[3] - arrivals[0] == pytest.approx(3 * 16 / 25, abs=0.4)


def test_capture_time_follows_the_cameras_own_clock(watched: Recorder) -> None:
    # Once a sender report has come, capture times step exactly as the camera's do,
    # while arrivals jitter; both clocks are this machine's.
    before, after = (event.window for event in watched.of("tcp", WindowReady)[5:7])
    step = after.end_capture_seconds - before.end_capture_seconds
    assert step == pytest.approx(16 / 25, abs=0.002)
    arrived_seconds = after.arrival_seconds + time.time() - time.monotonic()
    assert arrived_seconds - 0.5 < after.end_capture_seconds < arrived_seconds


def test_frames_are_counted_with_every_heartbeat(watched: Recorder) -> None:
    first, *rest = watched.of("tcp", FrameStats)
    span_seconds = rest[-1].last_frame_seconds - first.last_frame_seconds
    # Opening brings a burst and a busy machine another: a third is the room for them.
    assert sum(one.frames for one in rest) / span_seconds == pytest.approx(25, rel=1 / 3)
    assert sum(one.windows for one in rest) >= 2
    assert all(one.decode_seconds + one.preprocess_seconds > 0 for one in rest)
    assert len(rest) <= span_seconds / HEARTBEAT_SECONDS + 1


def test_a_wrong_password_parks_the_stream_until_it_is_changed(guarded: RtspServer) -> None:
    recorder = Recorder()
    with running_pool(recorder) as pool:
        pool.add(camera("a", guarded.url("/cam", "joe", "guess")))
        parked = recorder.wait_state("a", StreamState.PARKED)
        assert parked.reason is Reason.AUTH_FAILED
        assert "guess" not in parked.message
        assert "user name or password" in parked.message
        changed = time.monotonic()
        pool.update(camera("a", guarded.url("/cam", "joe", "p%40ss%20word")))
        recorder.wait_state("a", StreamState.RUNNING, after=changed)
        recorder.wait_windows("a", 1, after=changed)
    assert not [e for e in recorder.of("a", StatusChanged) if e.state is StreamState.BACKING_OFF]


def test_each_failure_has_its_reason_and_sentence(server: RtspServer) -> None:
    recorder = Recorder()
    refused = free_port()
    with (
        mute_server() as mute,
        mute_server(b"HTTP/1.1 200 OK\r\n\r\n") as web,
        running_pool(recorder, workers=2) as pool,
    ):
        pool.add(camera("missing", server.url("/nowhere")))
        pool.add(camera("refused", f"rtsp://joe:secret@127.0.0.1:{refused}/cam"))
        pool.add(camera("unknown", "rtsp://joe:secret@no-such-host.invalid/cam"))
        pool.add(camera("mute", f"rtsp://joe:secret@127.0.0.1:{mute}/cam"))
        pool.add(camera("web", f"rtsp://joe:secret@127.0.0.1:{web}/cam"))
        pool.add(camera("plain", f"rtsps://joe:secret@127.0.0.1:{server.port}/cam"))
        pool.add(camera("sound", server.url("/sound")))
        pool.add(camera("odd", server.url("/odd")))
        expected = {
            "sound": (Reason.NO_VIDEO, "no video"),
            "odd": (Reason.CODEC_UNSUPPORTED, "decoder"),
            "missing": (Reason.NOT_FOUND, "/nowhere"),
            "refused": (Reason.UNREACHABLE, f"127.0.0.1:{refused}"),
            "unknown": (Reason.UNREACHABLE, "no-such-host.invalid"),
            "mute": (Reason.TIMEOUT, "did not answer"),
            "web": (Reason.TIMEOUT, "did not answer"),
            "plain": (Reason.TLS_FAILED, "TLS"),
        }
        for stream_id, (reason, words) in expected.items():
            failure = recorder.wait_state(stream_id, StreamState.BACKING_OFF)
            assert failure.reason is reason, failure
            assert words in failure.message
            assert "secret" not in failure.message


def test_a_stream_that_tries_again_says_why_the_last_try_failed() -> None:
    recorder = Recorder()
    with running_pool(recorder) as pool:
        pool.add(camera("refused", f"rtsp://127.0.0.1:{free_port()}/cam"))
        failure = recorder.wait_state("refused", StreamState.BACKING_OFF)

        def tries() -> list[str]:
            told = recorder.of("refused", StatusChanged)
            return [t.message for t in told if t.state is StreamState.CONNECTING and t.reason]

        recorder.wait(lambda: bool(tries()), "another try")
        assert tries()[0] == failure.message != ""


def test_a_killed_server_that_returns_gets_its_stream_back(server: RtspServer) -> None:
    recorder = Recorder()
    with running_pool(recorder) as pool:
        pool.add(camera("tcp", server.url("/cam")))
        pool.add(camera("udp", server.url("/cam"), Transport.UDP))
        recorder.wait_windows("tcp", 2)
        recorder.wait_windows("udp", 2)
        killed, killed_utc = time.monotonic(), time.time()
        server.kill()
        for stream_id in ("tcp", "udp"):
            lost = recorder.wait_state(stream_id, StreamState.BACKING_OFF, after=killed)
            assert lost.reason in (Reason.END_OF_STREAM, Reason.STALE, Reason.UNREACHABLE)
        restarted, restarted_utc = time.monotonic(), time.time()
        server.start()
        for stream_id in ("tcp", "udp"):
            recorder.wait_reconnected(stream_id, after=restarted)
            windows = recorder.wait_windows(stream_id, 2, after=restarted)
            assert [window.number for window in windows[:2]] == [0, 1]
            for event in recorder.of(stream_id, WindowReady):
                start, end = event.window.start_capture_seconds, event.window.end_capture_seconds
                assert end < killed_utc + 0.5 or start > restarted_utc


def test_a_frozen_server_is_stale_and_comes_back(server: RtspServer) -> None:
    recorder = Recorder()
    with running_pool(recorder) as pool:
        pool.add(camera("tcp", server.url("/cam")))
        pool.add(camera("udp", server.url("/cam"), Transport.UDP))
        recorder.wait_windows("tcp", 1)
        recorder.wait_windows("udp", 1)
        frozen = time.monotonic()
        server.freeze()
        for stream_id in ("tcp", "udp"):
            assert recorder.wait_reason(stream_id, Reason.STALE, after=frozen).message
            recorder.wait_reason(stream_id, Reason.TIMEOUT, after=frozen)
        thawed = time.monotonic()
        server.thaw()
        for stream_id in ("tcp", "udp"):
            recorder.wait_reconnected(stream_id, after=thawed)
            assert recorder.wait_windows(stream_id, 1, after=thawed)[0].number == 0


def test_one_cameras_death_leaves_the_other_alone(server: RtspServer, clip: Path) -> None:
    recorder = Recorder()
    with RtspServer({"/cam": clip}) as doomed, running_pool(recorder) as pool:
        pool.add(camera("lives", server.url("/cam")))
        pool.add(camera("dies", doomed.url("/cam")))
        recorder.wait_windows("lives", 1)
        recorder.wait_windows("dies", 1)
        killed = time.monotonic()
        doomed.kill()
        recorder.wait_state("dies", StreamState.BACKING_OFF, after=killed)
        windows = recorder.wait_windows("lives", 3, after=killed)
        numbers = [window.number for window in windows]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        assert not recorder.of("lives", StatusChanged, after=killed)


def test_editing_one_stream_never_restarts_another(server: RtspServer) -> None:
    recorder = Recorder()
    with running_pool(recorder) as pool:
        pool.add(camera("stays", server.url("/cam")))
        pool.add(camera("moves", server.url("/cam")))
        recorder.wait_windows("stays", 1)
        recorder.wait_windows("moves", 1)
        edited = time.monotonic()
        pool.update(camera("moves", server.url("/other")))
        assert recorder.wait_windows("moves", 1, after=edited)[0].number == 0
        pool.remove("moves")
        recorder.wait_windows("stays", 2, after=edited)
        assert not recorder.of("stays", StatusChanged, after=edited)


def test_a_stream_can_be_removed_while_it_connects(server: RtspServer) -> None:
    recorder = Recorder()
    with mute_server() as mute, running_pool(recorder) as pool:
        pool.add(camera("a", f"rtsp://127.0.0.1:{mute}/cam"))
        recorder.wait_state("a", StreamState.CONNECTING)
        asked = time.monotonic()
        pool.remove("a")
        removed = time.monotonic()
        assert removed - asked < 0.2
        pool.add(camera("b", server.url("/cam")))
        recorder.wait_windows("b", 3)  # outlasts the connection attempt
        assert not recorder.of("a", StatusChanged, after=removed)
        pool.add(camera("a", server.url("/cam")))
        recorder.wait_windows("a", 1, after=removed)


def test_a_parent_that_reads_too_late_gets_the_newest_window(server: RtspServer) -> None:
    recorder = Recorder()
    busy_seconds = iter([3.0])
    lags: list[float] = []

    def slow(event: IngestEvent) -> None:
        recorder(event)
        if isinstance(event, WindowReady):
            lags.append(time.monotonic() - event.window.arrival_seconds)
            threading.Event().wait(next(busy_seconds, 0.0))

    with running_pool(slow) as pool:
        pool.add(camera("a", server.url("/cam")))
        recorder.wait_windows("a", 5)
    ready = [event.window.number for event in recorder.of("a", WindowReady)]
    skipped = recorder.of("a", WindowsSkipped)
    told = [one.span.number for event in skipped for one in event.windows]
    assert sum(event.count for event in skipped) == len(told) >= 1
    assert sorted(ready + told) == list(range(len(ready) + len(told)))
    assert max(told) < ready[-1]
    assert lags[-1] < 0.5
