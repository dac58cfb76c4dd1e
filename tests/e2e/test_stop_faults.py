"""A server that is told to stop while it works, and while something is wrong.

What is promised stands in tests/RELIABILITY.md. Every test prints what it measured.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.support.cameras import RtspServer
from tests.support.faults import Tell, decode_workers
from tests.support.serving import ServerProcess
from tests.support.watching import Scores, add, assert_unbroken

pytestmark = [pytest.mark.rtsp, pytest.mark.long]

STOPPED_SECONDS = 5
NAMES = ("a", "b", "c", "d")


@contextmanager
def busy(server: ServerProcess, camera: RtspServer) -> Iterator[Scores]:
    """Four cameras and a watch of their scores."""
    client = server.client()
    scores = Scores(client)
    for name in NAMES:
        add(client, name, camera.url(f"/{name}"))
    for name in NAMES:
        scores.wait(name, 2)
    yield scores
    scores.close()


def cameras(clip: Path) -> RtspServer:
    return RtspServer({f"/{name}": clip for name in NAMES})


def assert_nothing_left(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=1)
    assert alive == []


def test_a_stop_ends_all_watches_and_the_next_start_goes_on_counting(
    clip: Path, bundle: Path, tmp_path: Path, tell: Tell
) -> None:
    store = tmp_path / "streams.db"
    with cameras(clip) as camera:
        with ServerProcess(bundle=bundle, store=store) as server, busy(server, camera) as scores:
            others = [Scores(server.client()) for _ in range(20)]
            newest = {name: len(scores.of(name)) for name in NAMES}
            for watcher in others:
                watcher.wait("a", 1)
            processes = server.processes()
            code, seconds = server.terminate()
            tell(f"SIGTERM with 4 cameras and 21 watchers: stopped after {seconds:.1f} s")
            assert code == 0
            assert seconds < STOPPED_SECONDS
            assert_nothing_left(processes)
            for watcher in (scores, *others):
                watcher.close()
            assert {watcher.ended_by for watcher in (scores, *others)} == {"UNAVAILABLE"}
            last = {name: scores.of(name)[-1].sequence for name in NAMES}
            assert all(last[name] >= newest[name] - 1 for name in NAMES)
            for name in NAMES:
                assert_unbroken(scores.of(name))
        with ServerProcess(bundle=bundle, store=store) as server:
            scores = Scores(server.client())
            for name in NAMES:
                first = scores.wait(name, 2)[0]
                # Windows that were cut while it stopped had their sequences too.
                assert last[name] < first.sequence < last[name] + 10
                assert first.span.number < 10
            scores.close()


def test_a_stop_that_is_asked_for_again_and_again_is_as_clean(
    clip: Path, bundle: Path, tell: Tell
) -> None:
    with (
        cameras(clip) as camera,
        ServerProcess(bundle=bundle) as server,
        busy(server, camera) as scores,
    ):
        processes = server.processes()
        started_seconds, asked = time.monotonic(), 0
        while server.process.poll() is None:
            server.process.send_signal((signal.SIGTERM, signal.SIGINT)[asked % 2])
            asked += 1
            time.sleep(0.002)
        seconds = time.monotonic() - started_seconds
        tell(f"SIGTERM and SIGINT {asked} times: stopped after {seconds:.1f} s")
        assert server.process.returncode == 0, "".join(server.log)
        assert seconds < STOPPED_SECONDS
        assert_nothing_left(processes)
        scores.close()
        assert scores.ended_by == "UNAVAILABLE"
        assert not [line for line in server.log if "Traceback" in line]


def test_a_stop_waits_for_no_worker_that_hangs_and_no_watcher_that_reads_nothing(
    clip: Path, bundle: Path, tell: Tell
) -> None:
    with (
        cameras(clip) as camera,
        ServerProcess(bundle=bundle) as server,
        busy(server, camera),
    ):
        mute = [server.client().watch_scores() for _ in range(5)]
        processes = server.processes()
        for worker in decode_workers(server):
            worker.suspend()
        code, seconds = server.terminate()
        tell(f"SIGTERM while both workers are stopped: ended after {seconds:.1f} s")
        assert code == 0
        assert seconds < STOPPED_SECONDS
        assert_nothing_left(processes)
        for watch in mute:
            watch.cancel()
