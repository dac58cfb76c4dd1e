"""Real cameras, a real server process, a real client: the good day and the bad ones."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from server.contract import WindowSpec
from server.preprocess import PreprocessSpec
from server.rpc.client import Client, ClientError, StreamChange
from server.scoring import WindowScore
from server.streams import Mode, Reason, SourceUrl, StreamConfig, StreamState, Transport
from server.views import StreamView
from tests.support.cameras import PushCamera, RtspServer, free_port, mute_server, render_clip
from tests.support.serving import ServerProcess
from tests.support.tiny_bundle import make_tiny_bundle

pytestmark = pytest.mark.rtsp

WAIT_SECONDS = 30
SIZE = PreprocessSpec(24, 32, "squash", "area", "bt601", "declared")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_clip(tmp_path_factory.mktemp("clips") / "camera.mp4", seconds=4)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("bundles") / "tiny"
    return make_tiny_bundle(directory, window=WindowSpec(4, 25.0), preprocess=SIZE).directory


@pytest.fixture
def server(bundle: Path) -> Iterator[ServerProcess]:
    hasty = {
        "ingest__open_timeout_seconds": 2,
        "ingest__read_timeout_seconds": 1.5,
        "ingest__backoff_first_seconds": 0.2,
        "ingest__backoff_max_seconds": 0.5,
    }
    with ServerProcess(bundle=bundle, **hasty) as process:
        yield process


@pytest.fixture
def client(server: ServerProcess) -> Client:
    return server.client()


class Scores:
    """Watches all scores of a server in the background."""

    def __init__(self, client: Client) -> None:
        self._watch = client.watch_scores()
        self._changed = threading.Condition()
        self._scores: list[WindowScore] = []
        self.ended_by = ""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            for missed, score in self._watch:
                assert missed == 0
                with self._changed:
                    self._scores.append(score)
                    self._changed.notify_all()
        except ClientError as error:
            self.ended_by = error.code

    def of(self, stream_id: str) -> list[WindowScore]:
        with self._changed:
            return [score for score in self._scores if score.stream_id == stream_id]

    def wait(self, stream_id: str, count: int) -> list[WindowScore]:
        with self._changed:
            assert self._changed.wait_for(
                lambda: sum(s.stream_id == stream_id for s in self._scores) >= count, WAIT_SECONDS
            ), f"{stream_id} has {len(self.of(stream_id))} scores, {count} were expected"
        return self.of(stream_id)

    def close(self) -> None:
        self._watch.cancel()
        self._thread.join(10)


@pytest.fixture
def scores(client: Client) -> Iterator[Scores]:
    watching = Scores(client)
    yield watching
    watching.close()


def wait_for(client: Client, stream_id: str, wanted: Callable[[StreamView], bool]) -> StreamView:
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        view = client.get(stream_id)
        if wanted(view):
            return view
        time.sleep(0.05)
    raise AssertionError(f"{stream_id} stayed {view.status}")


def is_in(state: StreamState, reason: Reason | None = None) -> Callable[[StreamView], bool]:
    return lambda view: view.status.state is state and reason in (None, view.status.reason)


def add(client: Client, stream_id: str, url: str, **options: object) -> None:
    client.create(StreamConfig(stream_id, SourceUrl(url), **options))


def assert_unbroken(scores: list[WindowScore]) -> None:
    """Sequence rises by one; numbers restart only at gaps; all was scored."""
    assert [s.sequence for s in scores] == list(range(len(scores)))
    for earlier, later in pairwise(scores):
        assert later.span.number in (0, earlier.span.number + 1)
    assert [s.drop_reason for s in scores if s.drop_reason] == []


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


def test_a_killed_camera_comes_back_and_no_window_spans_the_gap(
    clip: Path, client: Client, scores: Scores
) -> None:
    with RtspServer({"/cam": clip}) as camera:
        add(client, "cam", camera.url("/cam"))
        before = len(scores.wait("cam", 3))
        camera.kill()
        wait_for(client, "cam", is_in(StreamState.BACKING_OFF))
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


def test_one_dead_camera_does_not_disturb_the_other(
    clip: Path, client: Client, scores: Scores
) -> None:
    with RtspServer({"/a": clip}) as dying, RtspServer({"/b": clip}) as living:
        add(client, "dying", dying.url("/a"))
        add(client, "living", living.url("/b"))
        scores.wait("dying", 2)
        scores.wait("living", 2)
        dying.kill()
        wait_for(client, "dying", is_in(StreamState.BACKING_OFF))
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
