"""Faults of a camera's clock, rate and codec, each with a real RTSP session.

What is promised stands in tests/RELIABILITY.md. Every test prints what it measured.
"""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

import pytest

from server.rpc.client import Client
from server.scoring import WindowScore
from server.streams import Reason
from tests.support.cameras import RtspServer
from tests.support.faults import (
    NORMAL_LATENCY_SECONDS,
    SETTLED_SECONDS,
    Holdings,
    Tell,
    assert_no_window_over_a_gap,
    seconds_until_window,
)
from tests.support.programs import Footage, Part, film
from tests.support.serving import ServerProcess
from tests.support.watching import Scores, add, assert_unbroken, interrupted, wait_for

pytestmark = [pytest.mark.rtsp, pytest.mark.long]

WINDOWS_A_MINUTE = 60 * 25 // 16


@pytest.fixture
def h264(tmp_path: Path) -> Footage:
    return film(tmp_path / "h264.units")


@pytest.mark.usefixtures("neighbour")
def test_a_camera_whose_clock_jumps_begins_anew_without_a_reconnect(
    h264: Footage, server: ServerProcess, client: Client, scores: Scores, tell: Tell
) -> None:
    program = [Part(h264, 3), Part(h264, 3, jump_seconds=60), Part(h264, jump_seconds=-30)]
    with RtspServer({}, programs={"/cam": program}) as camera:
        add(client, "cam", camera.url("/cam"))
        scores.wait("cam", 2)
        before = Holdings.of(server)
        got = scores.wait("cam", 18)
        assert_unbroken(got)
        assert_no_window_over_a_gap(got)
        assert [s.sequence for s in got if s.span.number == 0] == [0, *begun_anew(got)]
        assert len(begun_anew(got)) == 2
        assert client.get("cam").status.reconnects == 0
        steps = [b.span.end_capture_seconds - a.span.end_capture_seconds for a, b in pairwise(got)]
        tell(f"clock jumps by 60 and -30 s: captures rise by {min(steps):.2f} to {max(steps):.2f}")
        assert 0 < min(steps) <= max(steps) < 3
        before.assert_again(server, tell)


@pytest.mark.usefixtures("neighbour")
def test_a_camera_whose_clock_stands_still_is_stale(
    h264: Footage, client: Client, scores: Scores, tell: Tell
) -> None:
    program = [Part(h264, 3), Part(h264, 4, still=True), Part(h264)]
    with RtspServer({}, programs={"/cam": program}) as camera:
        add(client, "cam", camera.url("/cam"))
        scores.wait("cam", 3)
        stale = wait_for(client, "cam", interrupted(Reason.STALE))
        assert "their times stood still for 1.5 s" in stale.status.message
        told_seconds = time.time()
        back_seconds = seconds_until_window(scores, "cam", told_seconds)
        tell(f"clock stood still for 4 s: scored {back_seconds:.1f} s after it was told")
        assert back_seconds < SETTLED_SECONDS
        assert_unbroken(scores.of("cam"))
        assert_no_window_over_a_gap(scores.of("cam"))


def test_a_clock_that_stands_still_for_less_than_the_timeout_is_a_gap(
    h264: Footage, bundle: Path, tell: Tell
) -> None:
    program = [Part(h264, 3), Part(h264, 4, still=True), Part(h264)]
    with RtspServer({}, programs={"/cam": program}) as camera, ServerProcess(bundle=bundle) as own:
        client = own.client()
        scores = Scores(client)
        add(client, "cam", camera.url("/cam"))
        got = scores.wait("cam", 8)
        assert_unbroken(got)
        assert_no_window_over_a_gap(got)
        assert len(begun_anew(got)) == 1
        assert client.get("cam").status.reconnects == 0
        tell(f"clock stood still for 4 of 5 s: anew at window {begun_anew(got)[0]}")
        scores.close()


@pytest.mark.usefixtures("neighbour")
def test_a_camera_that_changes_its_rate_keeps_its_windows(
    h264: Footage, client: Client, scores: Scores, tell: Tell
) -> None:
    program = [Part(h264, 3), Part(h264, 3, fps=5), Part(h264, 3, fps=50)]
    with RtspServer({}, programs={"/cam": program}) as camera:
        add(client, "cam", camera.url("/cam"))
        got = scores.wait("cam", 13)
        assert_unbroken(got)
        assert [s.span.number for s in got] == list(range(len(got)))
        assert client.get("cam").status.reconnects == 0
        spans = [s.span.end_capture_seconds - s.span.start_capture_seconds for s in got]
        tell(f"25, 5, 50 fps: windows of {min(spans):.2f} to {max(spans):.2f} s")
        assert 0.35 < min(spans) <= max(spans) < 1.0


@pytest.mark.parametrize("codec", ["h265", "mjpeg"])
def test_a_camera_that_changes_its_codec_within_a_session_is_scored_again(
    codec: str, h264: Footage, tmp_path: Path, client: Client, scores: Scores, tell: Tell
) -> None:
    other = film(tmp_path / "other.units", codec)
    programs = {"/cam": [Part(h264, 3), Part(other)], "/good": [Part(h264)]}
    with RtspServer({}, programs=programs) as camera:
        add(client, "cam", camera.url("/cam"))
        add(client, "good", camera.url("/good"))
        scores.wait("cam", 3)
        wait_for(client, "cam", interrupted())
        told = client.get("cam").status
        told_seconds = time.time()
        back_seconds = seconds_until_window(scores, "cam", told_seconds)
        tell(f"H.264 to {codec} ({told.message}): scored after {back_seconds:.1f} s")
        assert back_seconds < SETTLED_SECONDS
        assert_unbroken(scores.of("cam"))
        assert_no_window_over_a_gap(scores.of("cam"))
        assert [s.span.number for s in scores.of("good")] == list(range(len(scores.of("good"))))


@pytest.mark.timeout(400)
def test_one_frame_a_minute_is_scored_where_the_timeout_allows(
    tmp_path: Path, bundle: Path, tell: Tell
) -> None:
    key = film(tmp_path / "key.units", "mjpeg")
    with (
        RtspServer({}, programs={"/cam": [Part(key, fps=1 / 60)]}) as camera,
        ServerProcess(bundle=bundle, ingest__read_timeout_seconds=90) as own,
    ):
        client = own.client()
        scores = Scores(client)
        add(client, "cam", camera.url("/cam"))
        # A session's first frame has no time, the next interval is a gap: no rate is known yet.
        wait_for(client, "cam", lambda view: view.status.frames_decoded == 2, seconds=150)
        before = Holdings.of(own)
        wait_for(client, "cam", lambda view: view.next_sequence > 0, seconds=90)
        got = scores.wait("cam", WINDOWS_A_MINUTE)
        before.assert_again(own, tell)
        assert [s.sequence for s in got] == list(range(WINDOWS_A_MINUTE))
        assert [s.span.number for s in got] == list(range(WINDOWS_A_MINUTE))
        scored = [s for s in got if s.score is not None]
        tell(f"a frame a minute: {len(scored)} of {len(got)} windows scored, the rest told")
        assert scored
        # A picture stands until the next one comes: only then its windows are known to be whole.
        assert max(s.latency_seconds for s in scored) < 60 + NORMAL_LATENCY_SECONDS
        assert client.get("cam").status.reconnects == 0
        scores.close()


def begun_anew(scores: list[WindowScore]) -> list[int]:
    """Sequences whose window was the first after a gap."""
    return [s.sequence for s in scores[1:] if s.span.number == 0]
