"""Faults of cameras, workers, the server and its watchers, each with the real thing.

What is promised stands in tests/RELIABILITY.md. Every test prints what it measured.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from server.rpc.client import Client, ClientError
from server.scoring import WindowScore
from server.streams import Reason, StreamState
from tests.support.cameras import (
    RtspServer,
    join_units,
    mute_server,
    render_clip,
    spoil_units,
    units_of,
)
from tests.support.serving import ServerProcess
from tests.support.watching import Scores, add, assert_unbroken, is_in, wait_for

pytestmark = pytest.mark.rtsp

Tell = Callable[[str], None]

BACK_SECONDS = 5
SETTLED_SECONDS = 10
NORMAL_LATENCY_SECONDS = 0.5
LONGEST_WINDOW_SECONDS = 1.5
"""16 frames at 25 fps are 0.6 s; a window over a gap of these tests would be longer."""


def decode_workers(server: ServerProcess) -> list[psutil.Process]:
    return [p for p in server.processes() if "server.ingest.worker" in p.cmdline()]


def ended_after(scores: list[WindowScore], utc_seconds: float) -> list[WindowScore]:
    return [score for score in scores if score.span.end_capture_seconds > utc_seconds]


def assert_no_window_over_a_gap(scores: list[WindowScore]) -> None:
    for score in scores:
        span = score.span
        assert span.end_capture_seconds - span.start_capture_seconds < LONGEST_WINDOW_SECONDS


def seconds_until_window(scores: Scores, stream_id: str, after_utc_seconds: float) -> float:
    """How long after that moment the first window that begins later was scored."""
    while True:
        got = scores.of(stream_id)
        late = [s for s in got if s.span.start_capture_seconds > after_utc_seconds]
        if late:
            return time.time() - after_utc_seconds
        scores.wait(stream_id, len(got) + 1)


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP])
def test_streams_of_a_lost_worker_are_back_and_the_others_notice_nothing(
    blow: signal.Signals, clip: Path, bundle: Path, tell: Tell
) -> None:
    with (
        RtspServer({"/a": clip, "/b": clip}) as camera,
        ServerProcess(bundle=bundle, ingest__workers=2) as server,
    ):
        client = server.client()
        scores = Scores(client)
        add(client, "a", camera.url("/a"))
        add(client, "b", camera.url("/b"))
        scores.wait("a", 2)
        scores.wait("b", 2)
        workers = decode_workers(server)
        assert len(workers) == 2
        struck_seconds = time.time()
        os.kill(min(workers, key=lambda worker: worker.pid).pid, blow)
        lost, other = struck_stream(client)
        back_seconds = seconds_until_window(scores, lost, struck_seconds)
        tell(f"worker lost by {blow.name}: stream back after {back_seconds:.1f} s")
        assert back_seconds < BACK_SECONDS
        assert_unbroken(scores.of(lost))
        assert_no_window_over_a_gap(scores.of(lost))
        assert ended_after(scores.of(lost), struck_seconds)
        untouched = scores.wait(other, len(scores.of(other)) + 2)
        assert_unbroken(untouched)
        assert [s.span.number for s in untouched] == list(range(len(untouched)))
        assert max(s.latency_seconds for s in untouched) < NORMAL_LATENCY_SECONDS
        scores.close()


def struck_stream(client: Client) -> tuple[str, str]:
    """The stream whose worker is gone, and the other one."""
    end_seconds = time.monotonic() + SETTLED_SECONDS
    while time.monotonic() < end_seconds:
        for view in client.list():
            lost = view.status.reason is Reason.WORKER_LOST or view.status.reconnects
            if lost:
                return ("a", "b") if view.config.stream_id == "a" else ("b", "a")
        time.sleep(0.05)
    raise AssertionError(f"no stream lost its worker: {client.list()}")


def test_a_frozen_camera_is_stale_and_comes_back(
    clip: Path, client: Client, scores: Scores, tell: Tell
) -> None:
    with RtspServer({"/cam": clip}) as camera:
        add(client, "cam", camera.url("/cam"))
        scores.wait("cam", 2)
        camera.freeze()
        wait_for(client, "cam", is_in(StreamState.BACKING_OFF, Reason.STALE))
        thawed_seconds = time.time()
        camera.thaw()
        back_seconds = seconds_until_window(scores, "cam", thawed_seconds)
        tell(f"camera thawed: stream back after {back_seconds:.1f} s")
        assert back_seconds < SETTLED_SECONDS
        assert_unbroken(scores.of("cam"))
        assert_no_window_over_a_gap(scores.of("cam"))


@pytest.mark.long
def test_a_camera_that_sends_garbage_harms_nobody(
    clip: Path, tmp_path: Path, bundle: Path, tell: Tell
) -> None:
    spoiled = spoil_units(units_of(clip), tmp_path / "spoiled.units", seed=4)
    with (
        RtspServer({"/bad": spoiled, "/good": clip}) as camera,
        ServerProcess(bundle=bundle, ingest__workers=1) as server,
    ):
        client = server.client()
        scores = Scores(client)
        add(client, "bad", camera.url("/bad"))
        add(client, "good", camera.url("/good"))
        wait_for(client, "bad", lambda view: view.status.frames_decoded > 0)
        workers = [worker.pid for worker in decode_workers(server)]
        good = scores.wait("good", 12)
        status = client.get("bad").status
        tell(f"garbage: {status.frames_decoded} frames decoded, {len(scores.of('bad'))} windows")
        assert_unbroken(good)
        assert [s.span.number for s in good] == list(range(len(good)))
        assert [s.sequence for s in scores.of("bad")] == list(range(len(scores.of("bad"))))
        assert_no_window_over_a_gap(scores.of("bad"))
        assert [worker.pid for worker in decode_workers(server)] == workers
        scores.close()


@pytest.mark.long
def test_a_camera_that_changes_its_resolution_is_scored_on(
    clip: Path, tmp_path: Path, client: Client, scores: Scores
) -> None:
    larger = render_clip(tmp_path / "larger.mp4", seconds=2, size=(352, 288))
    changing = join_units([units_of(clip), units_of(larger)], tmp_path / "changing.units")
    with RtspServer({"/cam": changing}) as camera:
        add(client, "cam", camera.url("/cam"))
        # Six seconds: small, large and small again.
        got = scores.wait("cam", 14)
        assert_unbroken(got)
        assert_no_window_over_a_gap(got)
        assert client.get("cam").status.reconnects == 0


@pytest.mark.long
def test_a_camera_ten_times_as_fast_as_it_says_keeps_its_windows(
    clip: Path, client: Client, scores: Scores, tell: Tell
) -> None:
    with RtspServer({"/cam": clip}, fps=250) as camera:
        add(client, "cam", camera.url("/cam"))
        got = scores.wait("cam", 6)
        assert_unbroken(got)
        # Windows are cut by time, so that a camera's rate does not change what they hold.
        spans = [s.span.end_capture_seconds - s.span.start_capture_seconds for s in got]
        tell(f"250 fps: windows of {min(spans):.2f} to {max(spans):.2f} s")
        assert 0.4 < min(spans) <= max(spans) < 0.8


def test_a_server_that_was_stopped_for_seconds_catches_up(
    clip: Path, server: ServerProcess, client: Client, scores: Scores, tell: Tell
) -> None:
    with RtspServer({"/cam": clip}) as camera:
        add(client, "cam", camera.url("/cam"))
        scores.wait("cam", 2)
        everything = server.processes()
        for process in everything:
            process.suspend()
        time.sleep(3)
        for process in everything:
            process.resume()
        resumed_seconds = time.time()
        late = first_normal(scores, resumed_seconds)
        tell(f"server resumed: latency normal after {late - resumed_seconds:.1f} s")
        assert late - resumed_seconds < SETTLED_SECONDS
        got = scores.of("cam")
        assert [s.sequence for s in got] == list(range(len(got)))
        assert client.get("cam").status.state is StreamState.RUNNING


def first_normal(scores: Scores, after_utc_seconds: float) -> float:
    """When, in UTC, a window that ended after that moment was scored with normal latency."""
    while True:
        got = scores.of("cam")
        for score in ended_after(got, after_utc_seconds):
            if score.latency_seconds < NORMAL_LATENCY_SECONDS:
                return score.span.end_capture_seconds + score.latency_seconds
        scores.wait("cam", len(got) + 1)


@pytest.mark.long
def test_watchers_that_are_many_mute_or_gone_slow_nobody(
    clip: Path, bundle: Path, tell: Tell
) -> None:
    with (
        RtspServer({"/cam": clip}) as camera,
        ServerProcess(bundle=bundle, grpc__max_watchers=300) as server,
    ):
        client = server.client()
        scores = Scores(client)
        add(client, "cam", camera.url("/cam"))
        scores.wait("cam", 2)
        before = Holdings.of(server)
        clients = [server.client() for _ in range(8)]
        watches = [clients[n % 8].watch_scores("cam") for n in range(200)]
        got = scores.wait("cam", len(scores.of("cam")) + 4)
        threads = [threading.Thread(target=next, args=(watch,)) for watch in watches[:20]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SETTLED_SECONDS)
            assert not thread.is_alive()
        latest = [s.latency_seconds for s in got[-4:]]
        tell(f"200 watchers: latency up to {max(latest) * 1000:.0f} ms")
        assert max(latest) < NORMAL_LATENCY_SECONDS
        for watch in watches:
            watch.cancel()
        for one in clients:
            one.close()
        before.assert_again(server, tell)
        assert_unbroken(scores.wait("cam", len(scores.of("cam")) + 2))
        scores.close()


@dataclass(frozen=True)
class Holdings:
    """What a server holds of its machine."""

    processes: int
    threads: int
    descriptors: int
    bytes: int

    @classmethod
    def of(cls, server: ServerProcess) -> Holdings:
        everything = server.processes()
        return cls(
            len(everything),
            sum(process.num_threads() for process in everything),
            sum(process.num_fds() for process in everything),
            server.pss_bytes(),
        )

    def assert_again(self, server: ServerProcess, tell: Tell) -> None:
        """Within ten seconds as it was: a few threads of gRPC's own pool and 30 MB aside."""
        end_seconds = time.monotonic() + SETTLED_SECONDS
        while True:
            now = Holdings.of(server)
            grown = (
                now.processes > self.processes
                or now.threads > self.threads + 8
                or now.descriptors > self.descriptors + 4
                or now.bytes > self.bytes + 30_000_000
            )
            if not grown:
                tell(f"before {self}, after {now}")
                return
            assert time.monotonic() < end_seconds, f"before {self}, now {now}"
            time.sleep(0.5)


@contextmanager
def places(clip: Path) -> Iterator[list[str]]:
    """URLs of a camera, of a path that is not there and of a camera that never answers."""
    with RtspServer({"/cam": clip}) as camera, mute_server() as port:
        yield [camera.url("/cam"), camera.url("/none"), f"rtsp://127.0.0.1:{port}/cam"]


def churn(client: Client, urls: list[str], streams: int, seed: int) -> None:
    """Create and delete streams at random, up to twelve at a time."""
    dice, alive, made = random.Random(seed), [], 0
    while made < streams or alive:
        if made < streams and (not alive or (len(alive) < 12 and dice.random() < 0.5)):
            alive.append(f"stream-{made}")
            add(client, alive[-1], dice.choice(urls))
            made += 1
        else:
            client.delete(alive.pop(dice.randrange(len(alive))))
        time.sleep(dice.random() * 0.2)


@pytest.mark.long
def test_streams_that_come_and_go_leave_nothing(
    clip: Path, server: ServerProcess, client: Client, tell: Tell
) -> None:
    come_and_go(30, (clip, server, client), tell)


@pytest.mark.long
def test_two_hundred_streams_that_come_and_go_leave_nothing(
    clip: Path, server: ServerProcess, client: Client, tell: Tell
) -> None:
    come_and_go(200, (clip, server, client), tell)


def come_and_go(streams: int, real: tuple[Path, ServerProcess, Client], tell: Tell) -> None:
    clip, server, client = real
    with places(clip) as urls:
        churn(client, urls, 12, seed=1)
        before = Holdings.of(server)
        churn(client, urls, streams, seed=2)
        before.assert_again(server, tell)
    assert client.list() == []
    series = httpx.get(f"{server.http}/metrics", trust_env=False).text
    assert "stream-" not in series
    with pytest.raises(ClientError):
        client.get("stream-0")
