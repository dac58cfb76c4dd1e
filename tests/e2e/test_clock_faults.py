"""A system clock that is set while streams run.

What is promised stands in tests/RELIABILITY.md. Every test prints what it measured.
"""

from __future__ import annotations

import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from server.streams import StreamState
from tests.support.cameras import RtspServer
from tests.support.clips import Encoding, write_timed_clip
from tests.support.clock import Clock
from tests.support.faults import (
    NORMAL_LATENCY_SECONDS,
    SETTLED_SECONDS,
    Tell,
    assert_no_window_over_a_gap,
)
from tests.support.serving import ServerProcess
from tests.support.watching import Scores, add, assert_unbroken

pytestmark = [pytest.mark.rtsp, pytest.mark.faketime, pytest.mark.long]

FPS = 25
HOUR = 3600


@pytest.fixture(scope="module")
def bright(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip that is one long event to the tiny bundle."""
    images = [np.full((96, 160, 3), 250, np.uint8)] * 2 * FPS
    timed = ((Fraction(index, FPS), image) for index, image in enumerate(images))
    options = {"preset": "veryfast", "tune": "zerolatency", "g": str(FPS)}
    path = tmp_path_factory.mktemp("clips") / "bright.mp4"
    return write_timed_clip(path, timed, Encoding(options=options), Fraction(1, FPS))


def test_a_clock_that_is_set_breaks_no_stream_and_stretches_no_alert(
    clip: Path, bright: Path, bundle: Path, tmp_path: Path, tell: Tell
) -> None:
    clock = Clock(tmp_path)
    with (
        RtspServer({"/calm": clip, "/loud": bright}) as camera,
        ServerProcess(bundle=bundle, environment=clock.variables) as server,
    ):
        client = server.client()
        scores, alerts = Scores(client), client.watch_alerts()
        began_seconds = time.monotonic()
        add(client, "calm", camera.url("/calm"))
        add(client, "loud", camera.url("/loud"))
        scores.wait("calm", 2)
        opened = next(alerts)[1].alert
        for ahead_seconds in (HOUR, -HOUR, 0):
            clock.set(ahead_seconds)
            set_seconds = time.monotonic()
            closed = next(alerts)[1].alert
            assert closed.is_closed
            assert closed.alert_id == opened.alert_id
            lasted_seconds = closed.end_seconds - closed.start_seconds
            assert 0 <= lasted_seconds < time.monotonic() - began_seconds
            opened = next(alerts)[1].alert
            assert not opened.is_closed
            again_seconds = time.monotonic() - set_seconds
            newest = scores.of("loud")[-1].span.end_capture_seconds
            tell(
                f"clock set to {ahead_seconds:+d} s: alert of {lasted_seconds:.1f} s closed, "
                f"the next one open after {again_seconds:.1f} s"
            )
            assert again_seconds < SETTLED_SECONDS
            assert abs(newest - time.time() - ahead_seconds) < SETTLED_SECONDS
        client.delete("loud")
        closed = next(alerts)[1].alert
        assert 0 <= closed.end_seconds - closed.start_seconds < time.monotonic() - began_seconds
        status = client.get("calm").status
        assert (status.state, status.reconnects) == (StreamState.RUNNING, 0)
        for stream_id in ("calm", "loud"):
            got = scores.of(stream_id)
            assert_unbroken(got)
            assert [s.span.number for s in got] == list(range(len(got)))
            assert_no_window_over_a_gap(got)
            assert all(s.span.end_capture_seconds > s.span.start_capture_seconds for s in got)
            assert max(s.latency_seconds for s in got) < NORMAL_LATENCY_SECONDS
        alerts.cancel()
        scores.close()
