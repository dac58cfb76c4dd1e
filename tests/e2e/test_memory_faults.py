"""Decode workers that hold too much memory, with real leaks.

What is promised stands in tests/RELIABILITY.md. Every test prints what it measured.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

import httpx
import psutil
import pytest

from server.ingest.recycling import SPARED_FIRST_SECONDS
from server.rpc.client import Client
from server.streams import Reason
from tests.support.cameras import RtspServer
from tests.support.faults import (
    BACK_SECONDS,
    NORMAL_LATENCY_SECONDS,
    Holdings,
    Tell,
    assert_no_window_over_a_gap,
    decode_workers,
    seconds_until_window,
)
from tests.support.leak import Leak
from tests.support.relay import Relay
from tests.support.serving import ServerProcess
from tests.support.watching import Scores, add, assert_unbroken, interrupted, wait_for

pytestmark = [pytest.mark.rtsp, pytest.mark.long, pytest.mark.quiet]

BOUND_MB = 250
LEAKED_MB = 200
"""More than the leak's 100 MB between two looks at a worker, a second apart."""


def restarts(server: ServerProcess, reason: str) -> int:
    text = httpx.get(f"{server.http}/metrics", trust_env=False).text
    found = re.search(
        rf'^gvvad_decode_worker_restarts_total{{reason="{reason}"}} (\S+)$', text, re.MULTILINE
    )
    assert found is not None
    return int(float(found[1]))


def logged(server: ServerProcess, words: str) -> list[str]:
    return [line for line in server.log if words in line]


def test_a_worker_that_leaks_is_replaced_and_the_others_notice_nothing(
    clip: Path, bundle: Path, tmp_path: Path, tell: Tell
) -> None:
    leak = Leak(tmp_path / "leak")
    with (
        RtspServer({"/a": clip, "/b": clip}) as camera,
        Relay(camera.port) as relay,
        ServerProcess(
            bundle=bundle,
            environment=leak.variables,
            ingest__workers=2,
            ingest__worker_memory_mb=BOUND_MB,
        ) as server,
    ):
        client = server.client()
        scores = Scores(client)
        add(client, "a", f"rtsp://127.0.0.1:{relay.port}/a")
        scores.wait("a", 1)
        add(client, "b", camera.url("/b"))
        scores.wait("b", 2)
        before = Holdings.of(server)
        worker = worker_of(relay, server)
        leak.spoil(worker.pid)
        wait_for(client, "a", interrupted(Reason.WORKER_LOST))
        lost_seconds = time.time()
        back_seconds = seconds_until_window(scores, "a", lost_seconds)
        [line] = logged(server, "and is replaced")
        held = re.search(r"held (\d+) MB", line)
        assert held is not None
        tell(f"worker leaked {held[1]} MB of {BOUND_MB}: stream back after {back_seconds:.1f} s")
        assert back_seconds < BACK_SECONDS
        assert BOUND_MB < int(held[1]) < BOUND_MB + LEAKED_MB
        assert restarts(server, "memory") == 1
        assert relay.asked.count(b"TEARDOWN rtsp://") == 1
        assert not psutil.pid_exists(worker.pid)
        assert restarts(server, "ended") == restarts(server, "hung") == 0
        assert client.get("a").status.reconnects == 1
        assert_unbroken(scores.of("a"))
        assert_no_window_over_a_gap(scores.of("a"))
        untouched = scores.wait("b", len(scores.of("b")) + 2)
        assert_unbroken(untouched)
        assert [s.span.number for s in untouched] == list(range(len(untouched)))
        assert max(s.latency_seconds for s in untouched) < NORMAL_LATENCY_SECONDS
        before.assert_again(server, tell)
        scores.close()


def worker_of(relay: Relay, server: ServerProcess) -> psutil.Process:
    """The decode worker that has a session through the relay."""
    for worker in decode_workers(server):
        ports = {one.raddr.port for one in worker.net_connections("tcp") if one.raddr}
        if relay.port in ports:
            return worker
    raise AssertionError(f"no worker reads from port {relay.port}")


def test_streams_that_need_more_than_the_bound_are_not_interrupted_for_ever(
    clip: Path, bundle: Path, tell: Tell
) -> None:
    # No Python process is so small: every worker is over this bound from its start.
    with (
        RtspServer({"/cam": clip}) as camera,
        ServerProcess(bundle=bundle, ingest__workers=1, ingest__worker_memory_mb=20) as server,
    ):
        client: Client = server.client()
        scores = Scores(client)
        add(client, "cam", camera.url("/cam"))
        started_seconds = time.monotonic()
        # The first worker lives about a second, the next ones 10 and 20.
        while not logged(server, f"until it is {2 * SPARED_FIRST_SECONDS:.0f} s old"):
            scores.wait("cam", len(scores.of("cam")) + 1)
        watched_seconds = time.monotonic() - started_seconds
        tell(f"{restarts(server, 'memory')} restarts in {watched_seconds:.0f} s")
        assert restarts(server, "memory") == 2
        assert watched_seconds > SPARED_FIRST_SECONDS
        before = len(scores.of("cam"))
        got = scores.wait("cam", before + int(SPARED_FIRST_SECONDS))
        assert restarts(server, "memory") == 2
        assert_unbroken(got)
        assert_no_window_over_a_gap(got)
        scores.close()


def test_where_memory_runs_out_the_kernel_takes_a_worker_before_the_server(
    clip: Path, server: ServerProcess, client: Client, scores: Scores
) -> None:
    with RtspServer({"/cam": clip}) as camera:
        add(client, "cam", camera.url("/cam"))
        scores.wait("cam", 1)
        of_server = badness(psutil.Process(server.process.pid))
        assert all(badness(worker) > of_server for worker in decode_workers(server))


def badness(process: psutil.Process) -> int:
    """How readily the kernel ends a process when memory runs out; the highest goes first."""
    return int(Path(f"/proc/{process.pid}/oom_score").read_text())
