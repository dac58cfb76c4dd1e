"""Real cameras, a real server process, a real client: the good day and the bad ones."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest

from server.rpc.client import Client, StreamChange
from server.streams import Mode, Reason, SourceUrl, StreamState, Transport
from tests.support.cameras import PushCamera, RtspServer, free_port, mute_server
from tests.support.serving import ServerProcess
from tests.support.watching import Scores, add, assert_unbroken, interrupted, is_in, wait_for

pytestmark = pytest.mark.rtsp


@pytest.mark.parametrize("transport", list(Transport))
def test_a_camera_is_scored_window_by_window(
    transport: Transport, clip: Path, client: Client, scores: Scores
) -> None:
    with RtspServer({"/cam": clip}) as camera:
        add(client, "cam", camera.url("/cam"), transport=transport)
        got = scores.wait("cam", 5)
        assert_unbroken(got)
        assert [s.span.number for s in got[:5]] == [0, 1, 2, 3, 4]
        view = client.get("cam")
        assert view.status.state is StreamState.RUNNING
        assert view.status.frames_decoded > 0


def test_a_camera_that_pushes_is_scored(clip: Path, client: Client, scores: Scores) -> None:
    url = f"rtsp://127.0.0.1:{free_port()}/door"
    add(client, "door", url, mode=Mode.LISTEN)
    with PushCamera(clip, url):
        assert_unbroken(scores.wait("door", 4))


def test_a_login_is_needed_and_never_shown(
    clip: Path, server: ServerProcess, client: Client, scores: Scores
) -> None:
    with RtspServer({"/cam": clip}, user="joe", password="pa55word") as camera:
        add(client, "wrong", camera.url("/cam", "joe", "gue55ed"))
        parked = wait_for(client, "wrong", is_in(StreamState.PARKED))
        assert parked.status.reason is Reason.AUTH_FAILED
        assert "user name or password" in parked.status.message
        right = SourceUrl(camera.url("/cam", "joe", "pa55word"))
        shown = client.update("wrong", StreamChange(url=right))
        assert_unbroken(scores.wait("wrong", 2))
    everything = "".join(server.log) + repr(shown) + repr(client.list())
    assert "pa55word" not in everything
    assert "gue55ed" not in everything


@pytest.mark.long
def test_a_killed_camera_comes_back_and_no_window_spans_the_gap(
    clip: Path, client: Client, scores: Scores
) -> None:
    with RtspServer({"/cam": clip}) as camera:
        add(client, "cam", camera.url("/cam"))
        before = len(scores.wait("cam", 3))
        camera.kill()
        wait_for(client, "cam", interrupted())
        killed_seconds = time.time()
        camera.start()
        got = scores.wait("cam", before + 4)
        assert_unbroken(got)
        after = [s for s in got if s.span.end_capture_seconds > killed_seconds]
        assert after[0].span.number == 0
        for score in got:
            length = score.span.end_capture_seconds - score.span.start_capture_seconds
            assert length < 1.5  # 16 frames at 25 fps are 0.6 s
        assert client.get("cam").status.reconnects >= 1


@pytest.mark.long
def test_one_dead_camera_does_not_disturb_the_other(
    clip: Path, client: Client, scores: Scores
) -> None:
    with RtspServer({"/a": clip}) as dying, RtspServer({"/b": clip}) as living:
        add(client, "dying", dying.url("/a"))
        add(client, "living", living.url("/b"))
        scores.wait("dying", 2)
        scores.wait("living", 2)
        dying.kill()
        wait_for(client, "dying", interrupted())
        got = scores.wait("living", len(scores.of("living")) + 6)
        assert_unbroken(got)
        assert [s.span.number for s in got] == list(range(len(got)))
        assert max(s.latency_seconds for s in got) < 2


def test_a_stream_deleted_while_connecting_is_gone_at_once(
    server: ServerProcess, client: Client
) -> None:
    with mute_server() as port:
        add(client, "mute", f"rtsp://127.0.0.1:{port}/cam")
        started = time.monotonic()
        client.delete("mute")
        assert time.monotonic() - started < 1
        assert client.list() == []
        add(client, "mute", f"rtsp://127.0.0.1:{port}/other")
        assert [view.config.url.path for view in client.list()] == ["/other"]


@pytest.mark.long
def test_editing_the_threshold_does_not_reconnect(
    clip: Path, client: Client, scores: Scores
) -> None:
    with RtspServer({"/cam": clip}) as camera:
        add(client, "cam", camera.url("/cam"))
        scores.wait("cam", 2)
        client.update("cam", StreamChange(open_threshold=0.9))
        got = scores.wait("cam", 6)
        assert [s.span.number for s in got] == list(range(len(got)))


def test_sigterm_under_traffic_ends_everything_within_five_seconds(
    clip: Path, server: ServerProcess, client: Client, scores: Scores
) -> None:
    with RtspServer({"/a": clip, "/b": clip}) as camera:
        add(client, "a", camera.url("/a"))
        add(client, "b", camera.url("/b"), transport=Transport.UDP)
        scores.wait("a", 2)
        scores.wait("b", 2)
        processes = server.processes()
        assert len(processes) > 1
        code, seconds = server.terminate()
        assert code == 0
        assert seconds < 5
        _, alive = psutil.wait_procs(processes, timeout=1)
        assert alive == []
        scores.close()
        assert scores.ended_by == "UNAVAILABLE"


@pytest.mark.long
def test_streams_and_sequences_survive_a_restart(clip: Path, bundle: Path, tmp_path: Path) -> None:
    store = tmp_path / "streams.db"
    with RtspServer({"/cam": clip}) as camera:
        with ServerProcess(bundle=bundle, store=store) as server:
            client = server.client()
            scores = Scores(client)
            add(client, "cam", camera.url("/cam"), open_threshold=0.7)
            last = scores.wait("cam", 2)[-1].sequence
            assert server.terminate()[0] == 0
            scores.close()
        with ServerProcess(bundle=bundle, store=store) as server:
            client = server.client()
            scores = Scores(client)
            assert client.get("cam").config.open_threshold == 0.7
            # Windows between the last one seen and the stop had their sequences too.
            assert last < scores.wait("cam", 2)[0].sequence < last + 10
            scores.close()
