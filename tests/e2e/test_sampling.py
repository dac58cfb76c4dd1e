"""Cameras of which not every window is scored: a real RTSP server, a real server process."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from server.rpc.client import Client, StreamChange
from server.sampling import EveryNth, OnMotion
from server.scoring import DropReason, WindowScore
from server.streams import StreamState
from tests.support.cameras import RtspServer
from tests.support.clips import write_clip
from tests.support.serving import ServerProcess
from tests.support.watching import Scores, add, is_in, wait_for

pytestmark = pytest.mark.rtsp

FPS = 25
WINDOW_SECONDS = 16 / FPS
STILL_SECONDS = 2.0


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty street, under the noise of a sensor."""
    dice = np.random.default_rng(0)
    street = dice.uniform(40, 200, (12, 20, 1)).repeat(8, 0).repeat(8, 1)
    images = (
        np.clip(street + dice.normal(0, 2, (96, 160, 3)), 0, 255).astype(np.uint8)
        for _ in range(4 * FPS)
    )
    return write_clip(tmp_path_factory.mktemp("still") / "still.mp4", images, fps=FPS)


@pytest.fixture
def cameras(still: Path, clip: Path) -> Iterator[RtspServer]:
    with RtspServer({"/still": still, "/moving": clip}) as running:
        yield running


def assert_all_told(scores: list[WindowScore]) -> None:
    """Every window has its sequence, and what has no score says why."""
    assert [s.sequence for s in scores] == list(range(len(scores)))
    assert [s.span.number for s in scores] == list(range(len(scores)))
    reasons = {s.drop_reason for s in scores}
    assert reasons <= {None, DropReason.STILL, DropReason.THINNED}


@pytest.mark.long
def test_a_still_scene_is_scored_now_and_then_and_a_moving_one_always(
    cameras: RtspServer, client: Client, server: ServerProcess, scores: Scores
) -> None:
    for name in ("still", "moving"):
        add(client, name, cameras.url(f"/{name}"), sampling=OnMotion(STILL_SECONDS))
    of_still, of_moving = scores.wait("still", 12), scores.wait("moving", 8)
    assert_all_told(of_still)
    assert_all_told(of_moving)
    assert {s.drop_reason for s in of_moving} == {None}
    scored = [s for s in of_still if s.score is not None]
    assert len(scored) < len(of_still) / 2
    for earlier, later in pairwise(scored):
        pause_seconds = later.span.end_capture_seconds - earlier.span.end_capture_seconds
        assert pause_seconds < STILL_SECONDS + WINDOW_SECONDS / 2  # arrival jitters
    with urllib.request.urlopen(f"{server.http}/metrics", timeout=10) as answer:
        metrics = answer.read().decode()
    assert 'gvvad_windows_dropped_total{reason="still",stream="still"}' in metrics
    assert 'gvvad_windows_dropped_total{reason="still",stream="moving"}' not in metrics


@pytest.mark.long
def test_a_change_of_sampling_reconnects_nothing_and_breaks_no_sequence(
    cameras: RtspServer, client: Client, scores: Scores
) -> None:
    add(client, "cam", cameras.url("/moving"), sampling=EveryNth(4))
    thinned = scores.wait("cam", 9)
    assert [s.sequence for s in thinned[:9] if s.score is not None] == [0, 4, 8]
    for rule in (OnMotion(STILL_SECONDS), EveryNth(2)):
        client.update("cam", StreamChange(sampling=rule))
        changed = len(scores.wait("cam", len(scores.of("cam")) + 2))
        scores.wait("cam", changed + 4)
    got = scores.of("cam")
    assert_all_told(got)
    assert [s.drop_reason for s in got[-4:]].count(None) == 2
    status = client.get("cam").status
    assert (status.state, status.reconnects) == (StreamState.RUNNING, 0)


@pytest.mark.long
def test_a_camera_that_comes_back_is_scored_at_once(
    still: Path, client: Client, scores: Scores
) -> None:
    with RtspServer({"/cam": still}) as camera:
        add(client, "cam", camera.url("/cam"), sampling=OnMotion(3600))
        before = len(scores.wait("cam", 5))
        camera.kill()
        killed_seconds = time.time()
        camera.start()
        wait_for(client, "cam", lambda view: view.status.reconnects == 1)
        wait_for(client, "cam", is_in(StreamState.RUNNING))
        got = scores.wait("cam", before + 4)
    after = [s for s in got if s.span.end_capture_seconds > killed_seconds]
    assert after[0].span.number == 0
    assert after[0].score is not None
    assert [s.sequence for s in got] == list(range(len(got)))
