"""Faults of the server's own processes, each with the real thing.

What is promised stands in tests/RELIABILITY.md. Every test prints what it measured.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from server.rpc.client import Client, ClientError
from server.streams import Reason, StreamState
from tests.support.cameras import (
    RtspServer,
    mute_server,
)
from tests.support.faults import (
    BACK_SECONDS,
    NORMAL_LATENCY_SECONDS,
    SETTLED_SECONDS,
    Tell,
    assert_no_window_over_a_gap,
    decode_workers,
    ended_after,
    first_normal,
    seconds_until_window,
    unharmed,
)
from tests.support.serving import ServerProcess
from tests.support.watching import Scores, add, assert_unbroken

pytestmark = pytest.mark.rtsp


@pytest.mark.long
@pytest.mark.quiet
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
        with unharmed(server, tell):
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


@pytest.mark.long
def test_a_server_that_was_stopped_for_seconds_catches_up(
    clip: Path, server: ServerProcess, client: Client, scores: Scores, tell: Tell
) -> None:
    with RtspServer({"/cam": clip}) as camera:
        add(client, "cam", camera.url("/cam"))
        scores.wait("cam", 2)
        with unharmed(server, tell):
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


@contextmanager
def places(clip: Path) -> Iterator[list[str]]:
    """URLs of a camera, of a path that is not there and of a camera that never answers."""
    with RtspServer({"/cam": clip}) as camera, mute_server() as port:
        yield [camera.url("/cam"), camera.url("/none"), f"rtsp://127.0.0.1:{port}/cam"]


def churn(client: Client, urls: list[str], seconds: float, seed: int) -> int:
    """Create and delete streams at random, up to twelve at a time; how many there were."""
    dice, alive, made = random.Random(seed), [], 0
    end_seconds = time.monotonic() + seconds
    while alive or time.monotonic() < end_seconds:
        goes_on = time.monotonic() < end_seconds
        if goes_on and (not alive or (len(alive) < 12 and dice.random() < 0.5)):
            alive.append(f"stream-{made}")
            add(client, alive[-1], dice.choice(urls))
            made += 1
        else:
            client.delete(alive.pop(dice.randrange(len(alive))))
        time.sleep(dice.random() * 0.2)
    return made


@pytest.mark.long
@pytest.mark.timeout(300)
def test_streams_that_come_and_go_for_a_minute_leave_nothing(
    clip: Path, server: ServerProcess, client: Client, tell: Tell
) -> None:
    with places(clip) as urls:
        churn(client, urls, seconds=5, seed=1)
        with unharmed(server, tell):
            made = churn(client, urls, seconds=60, seed=2)
    tell(f"{made} streams created and deleted")
    assert made >= 100
    assert client.list() == []
    series = httpx.get(f"{server.http}/metrics", trust_env=False).text
    assert "stream-" not in series
    with pytest.raises(ClientError):
        client.get("stream-0")
