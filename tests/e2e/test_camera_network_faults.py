"""Faults of the network between a camera and the server: the kernel's own, in a namespace.

What is promised stands in tests/RELIABILITY.md. Every test prints what it measured.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from server.rpc.client import Client
from server.streams import Reason, Transport
from tests.support.cameras import RtspServer
from tests.support.faults import (
    NORMAL_LATENCY_SECONDS,
    SETTLED_SECONDS,
    Holdings,
    Tell,
    assert_no_window_over_a_gap,
    seconds_until_window,
)
from tests.support.networks import CameraNetwork
from tests.support.serving import ServerProcess
from tests.support.watching import Scores, add, assert_unbroken, interrupted, wait_for

pytestmark = [pytest.mark.rtsp, pytest.mark.network, pytest.mark.long]


@pytest.mark.usefixtures("neighbour")
def test_a_camera_whose_cable_is_pulled_is_stale_and_comes_back(
    clip: Path, server: ServerProcess, client: Client, scores: Scores, tell: Tell
) -> None:
    with CameraNetwork() as network, RtspServer({"/cam": clip}, network=network) as camera:
        add(client, "cam", camera.url("/cam"))
        scores.wait("cam", 3)
        before = Holdings.of(server)
        pulled_seconds = time.monotonic()
        network.pull()
        wait_for(client, "cam", interrupted(Reason.STALE))
        stale_seconds = time.monotonic() - pulled_seconds
        plugged_seconds = time.time()
        network.plug()
        back_seconds = seconds_until_window(scores, "cam", plugged_seconds)
        tell(f"cable pulled: stale after {stale_seconds:.1f} s, back after {back_seconds:.1f} s")
        assert stale_seconds < SETTLED_SECONDS
        assert back_seconds < SETTLED_SECONDS
        assert_unbroken(scores.of("cam"))
        assert_no_window_over_a_gap(scores.of("cam"))
        before.assert_again(server, tell)


@pytest.mark.usefixtures("neighbour")
@pytest.mark.parametrize("percent", [1, 5, 20])
def test_a_camera_that_loses_udp_packets_is_scored(
    percent: int, clip: Path, client: Client, scores: Scores, tell: Tell
) -> None:
    with CameraNetwork() as network, RtspServer({"/cam": clip}, network=network) as camera:
        add(client, "cam", camera.url("/cam"), transport=Transport.UDP)
        scores.wait("cam", 2)
        decoded = client.get("cam").status.frames_decoded
        network.lose(percent / 100)
        began_seconds = time.monotonic()
        got = scores.wait("cam", len(scores.of("cam")) + 14)
        took_seconds = time.monotonic() - began_seconds
        status = client.get("cam").status
        windows = [s for s in got if s.score is not None]
        latencies = sorted(s.latency_seconds for s in windows)
        tell(f"{percent} % lost: {len(windows)} of {len(got)} windows scored")
        tell(f"{status.frames_decoded - decoded} frames in {took_seconds:.1f} s")
        tell(f"{status.reconnects} reconnects, latency {latencies[len(latencies) // 2]:.3f} s")
        # Lost packets delay what follows, so windows may come two at a time; the newest wins.
        assert [s.sequence for s in got] == list(range(len(got)))
        assert len(windows) > len(got) / 2
        assert_no_window_over_a_gap(got)
        assert status.reconnects <= 1
        assert took_seconds < 2 * 14 * 0.64
        assert latencies[len(latencies) // 2] < NORMAL_LATENCY_SECONDS
