"""Faults of cameras, each with a real one.

What is promised stands in tests/RELIABILITY.md. Every test prints what it measured.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from server.rpc.client import Client
from server.streams import Reason
from tests.support.cameras import (
    RtspServer,
    join_units,
    render_clip,
    spoil_units,
    units_of,
)
from tests.support.faults import (
    SETTLED_SECONDS,
    Holdings,
    Tell,
    assert_no_window_over_a_gap,
    decode_workers,
    seconds_until_window,
    unharmed,
)
from tests.support.programs import Part, film
from tests.support.serving import ServerProcess
from tests.support.watching import Scores, add, assert_unbroken, interrupted, wait_for

pytestmark = pytest.mark.rtsp


@pytest.mark.long
def test_a_frozen_camera_is_stale_and_comes_back(
    clip: Path, server: ServerProcess, client: Client, scores: Scores, tell: Tell
) -> None:
    with RtspServer({"/cam": clip}) as camera:
        add(client, "cam", camera.url("/cam"))
        scores.wait("cam", 2)
        with unharmed(server, tell):
            camera.freeze()
            wait_for(client, "cam", interrupted(Reason.STALE))
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
        with unharmed(server, tell):
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
    clip: Path, tmp_path: Path, server: ServerProcess, scores: Scores, tell: Tell
) -> None:
    client = server.client()
    larger = render_clip(tmp_path / "larger.mp4", seconds=2, size=(352, 288))
    changing = join_units([units_of(clip), units_of(larger)], tmp_path / "changing.units")
    with RtspServer({"/cam": changing}) as camera:
        add(client, "cam", camera.url("/cam"))
        scores.wait("cam", 2)
        # Six seconds: small, large and small again.
        with unharmed(server, tell):
            got = scores.wait("cam", 14)
        assert_unbroken(got)
        assert_no_window_over_a_gap(got)
        assert client.get("cam").status.reconnects == 0


@pytest.mark.usefixtures("neighbour")
@pytest.mark.long
def test_a_camera_ten_times_as_fast_as_it_says_keeps_its_windows(
    clip: Path, server: ServerProcess, client: Client, scores: Scores, tell: Tell
) -> None:
    with RtspServer({"/cam": clip}, fps=250) as camera:
        add(client, "cam", camera.url("/cam"))
        scores.wait("cam", 2)
        with unharmed(server, tell):
            got = scores.wait("cam", 6)
        assert_unbroken(got)
        # Windows are cut by time, so that a camera's rate does not change what they hold.
        spans = [s.span.end_capture_seconds - s.span.start_capture_seconds for s in got]
        tell(f"250 fps: windows of {min(spans):.2f} to {max(spans):.2f} s")
        assert 0.4 < min(spans) <= max(spans) < 0.8


@pytest.mark.long
def test_a_camera_that_reboots_is_scored_again_soon_after_its_return(
    clip: Path, server: ServerProcess, client: Client, scores: Scores, tell: Tell
) -> None:
    with RtspServer({"/cam": clip}) as camera, RtspServer({"/good": clip}) as other:
        add(client, "cam", camera.url("/cam"))
        add(client, "good", other.url("/good"))
        first = len(scores.wait("cam", 3))
        before = Holdings.of(server)
        camera.kill()
        wait_for(client, "cam", interrupted(Reason.UNREACHABLE))
        scores.wait("good", len(scores.of("good")) + 6)  # some four seconds without power
        camera.start()
        returned_seconds = time.time()
        back_seconds = seconds_until_window(scores, "cam", returned_seconds)
        tell(f"camera rebooted: scored {back_seconds:.1f} s after its return")
        assert back_seconds < SETTLED_SECONDS
        got = scores.wait("cam", first + 4)
        assert_unbroken(got)
        assert_no_window_over_a_gap(got)
        assert sum(s.span.number == 0 for s in got) == 2
        assert client.get("cam").status.reconnects == 1
        assert [s.span.number for s in scores.of("good")] == list(range(len(scores.of("good"))))
        before.assert_again(server, tell)


@pytest.mark.usefixtures("neighbour")
@pytest.mark.long
@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_a_camera_that_stops_sending_key_frames_is_right_again_with_the_next(
    codec: str, tmp_path: Path, client: Client, scores: Scores, tell: Tell
) -> None:
    whole = film(tmp_path / "whole.units", codec)
    # Pictures that refer to others than those that came: what a lost key frame leaves.
    endless = film(tmp_path / "endless.units", codec, seconds=8, key_frames=False)
    program = [Part(whole, 4), Part(endless, 8), Part(whole)]
    with RtspServer({}, programs={"/cam": program}) as camera:
        add(client, "cam", camera.url("/cam"))
        scores.wait("cam", 3)
        key_frames_seconds = time.time() + 4 + 8 - 3 * 0.64
        back_seconds = seconds_until_window(scores, "cam", key_frames_seconds)
        meanwhile = len(scores.of("cam")) - 3
        tell(
            f"{codec}, no key frame for 8 s: {meanwhile} windows, then back in {back_seconds:.1f} s"
        )
        assert back_seconds < SETTLED_SECONDS
        got = scores.of("cam")
        assert [s.sequence for s in got] == list(range(len(got)))
        assert_no_window_over_a_gap(got)


@pytest.mark.usefixtures("neighbour")
@pytest.mark.long
@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_nothing_is_scored_before_the_first_key_frame(
    codec: str, tmp_path: Path, client: Client, scores: Scores, tell: Tell
) -> None:
    whole = film(tmp_path / "whole.units", codec)
    endless = film(tmp_path / "endless.units", codec, seconds=44, key_frames=False)
    with RtspServer({}, programs={"/cam": [Part(endless, 42), Part(whole)]}) as camera:
        add(client, "cam", camera.url("/cam"))
        began_seconds = time.monotonic()
        stale = wait_for(client, "cam", interrupted(Reason.STALE), seconds=40)
        stale_seconds = time.monotonic() - began_seconds
        assert "no frame could be decoded for 30 s" in stale.status.message
        assert scores.of("cam") == []
        told_seconds = time.time()
        back_seconds = seconds_until_window(scores, "cam", told_seconds)
        tell(
            f"{codec} without key frames: stale after {stale_seconds:.1f} s, "
            f"scored {back_seconds:.1f} s later, key frames came 12 s later"
        )
        assert back_seconds < SETTLED_SECONDS + 12
        assert_unbroken(scores.of("cam"))
