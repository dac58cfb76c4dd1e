"""Faults of the engine while it serves, each with a real bundle that ONNX Runtime really fails on.

What is promised stands in tests/RELIABILITY.md. Every test prints what it measured.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest

from server.contract import WindowSpec
from server.rpc.client import Client
from server.scoring import DropReason, WindowScore
from server.streams import StreamState
from tests.support.cameras import RtspServer
from tests.support.clips import Encoding, write_timed_clip
from tests.support.faults import (
    NORMAL_LATENCY_SECONDS,
    SETTLED_SECONDS,
    Tell,
    assert_no_window_over_a_gap,
)
from tests.support.serving import ServerProcess
from tests.support.tiny_bundle import BRIGHT, HUNGER_BYTES, Fault, make_tiny_bundle
from tests.support.watching import Scores, add, assert_unbroken

pytestmark = [pytest.mark.rtsp, pytest.mark.long]

FPS = 25
DARK_LEVEL, BRIGHT_LEVEL = 40, 250
DARK_SCORE = DARK_LEVEL / 255


@pytest.fixture(scope="module")
def blinking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two dark seconds, two bright ones."""
    path = tmp_path_factory.mktemp("clips") / "blinking.mp4"
    levels = [DARK_LEVEL] * 2 * FPS + [BRIGHT_LEVEL] * 2 * FPS
    images = (np.full((96, 160, 3), level, np.uint8) for level in levels)
    timed = ((Fraction(index, FPS), image) for index, image in enumerate(images))
    options = {"preset": "veryfast", "tune": "zerolatency", "g": str(FPS)}
    return write_timed_clip(path, timed, Encoding(options=options), Fraction(1, FPS))


@contextmanager
def serving(directory: Path, fault: Fault) -> Iterator[tuple[ServerProcess, Client, Scores]]:
    """A server whose engine has that fault, and a watch of its scores."""
    window = WindowSpec(4, float(FPS))
    bundle = make_tiny_bundle(directory / "faulty", window=window, fault=fault)
    with ServerProcess(bundle=bundle.directory) as server:
        client = server.client()
        scores = Scores(client)
        yield server, client, scores
        scores.close()


def assert_undisturbed(scores: list[WindowScore]) -> None:
    """Every window scored, without a gap and in time."""
    assert_unbroken(scores)
    assert [s.span.number for s in scores] == list(range(len(scores)))
    assert max(s.latency_seconds for s in scores) < NORMAL_LATENCY_SECONDS


def assert_healthy(server: ServerProcess, client: Client) -> None:
    assert httpx.get(f"{server.http}/healthz", trust_env=False).status_code == 200
    assert {view.status.state for view in client.list()} == {StreamState.RUNNING}


def until_dropped(scores: Scores, stream_id: str, count: int) -> list[WindowScore]:
    """All scores of a stream once so many of its windows were dropped."""
    while True:
        got = scores.of(stream_id)
        if sum(s.score is None for s in got) >= count:
            return got
        scores.wait(stream_id, len(got) + 1)


@pytest.mark.parametrize("fault", [Fault.RAISES, Fault.NAN])
def test_windows_that_the_engine_fails_on_are_dropped_and_nothing_else(
    fault: Fault, clip: Path, blinking: Path, tmp_path: Path, tell: Tell
) -> None:
    with (
        RtspServer({"/good": clip, "/bad": blinking}) as camera,
        serving(tmp_path, fault) as (server, client, scores),
    ):
        add(client, "good", camera.url("/good"))
        add(client, "bad", camera.url("/bad"))
        until_dropped(scores, "bad", 3)
        assert_healthy(server, client)
        # Through a dark half into the next bright one.
        got = until_dropped(scores, "bad", 7)
        drops = [s for s in got if s.score is None]
        tell(f"engine {fault.name}: {len(drops)} of {len(got)} windows dropped, the rest scored")
        assert {s.drop_reason for s in drops} == {DropReason.ENGINE}
        assert [s.sequence for s in got] == list(range(len(got)))
        assert [s.span.number for s in got] == list(range(len(got)))
        assert_no_window_over_a_gap(got)
        settled = [s.score for s in got[6:] if s.score is not None]
        assert settled
        # Half of it would be a memory that was lost, more than BRIGHT one that was spoiled.
        assert all(0.8 * DARK_SCORE < score < BRIGHT for score in settled)
        assert_undisturbed(scores.of("good"))
        told = [line for line in server.log if "engine failed" in line]
        assert all("stream bad" in line for line in told)
        assert len(told) <= 4  # once for each bright half, not once for each window
        metrics = httpx.get(f"{server.http}/metrics", trust_env=False).text
        assert 'gvvad_windows_dropped_total{reason="engine",stream="bad"}' in metrics


def test_an_engine_without_memory_drops_and_scores_again_once_there_is_some(
    clip: Path, blinking: Path, tmp_path: Path, tell: Tell
) -> None:
    with (
        RtspServer({"/good": clip, "/hungry": blinking}) as camera,
        serving(tmp_path, Fault.HUNGRY) as (server, client, scores),
    ):
        add(client, "good", camera.url("/good"))
        scores.wait("good", 2)
        process = psutil.Process(server.process.pid)
        spare = process.memory_info().vms + HUNGER_BYTES // 2
        process.rlimit(resource.RLIMIT_AS, (spare, resource.RLIM_INFINITY))
        add(client, "hungry", camera.url("/hungry"))
        starved = until_dropped(scores, "hungry", 5)
        assert_healthy(server, client)
        assert {s.drop_reason for s in starved} == {None, DropReason.ENGINE}
        assert not [s for s in starved if s.score is not None and s.score > BRIGHT]
        process.rlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        lifted_seconds = time.time()
        first = until_bright(scores, lifted_seconds)
        back_seconds = first.span.end_capture_seconds + first.latency_seconds - lifted_seconds
        tell(f"engine without memory: scores again after {back_seconds:.1f} s with some")
        assert back_seconds < SETTLED_SECONDS
        got = scores.of("hungry")
        assert [s.sequence for s in got] == list(range(len(got)))
        assert [s.span.number for s in got] == list(range(len(got)))
        assert got[-1].latency_seconds < NORMAL_LATENCY_SECONDS
        assert_undisturbed(scores.of("good"))
        assert_healthy(server, client)


def until_bright(scores: Scores, after_utc_seconds: float) -> WindowScore:
    """The first bright window after that moment that was scored."""
    while True:
        got = scores.of("hungry")
        for score in got:
            # Half of it is the memory's: two bright windows in a row lift it that high.
            late = score.span.start_capture_seconds > after_utc_seconds
            if late and score.score is not None and score.score > 0.6:
                return score
        scores.wait("hungry", len(got) + 1)
