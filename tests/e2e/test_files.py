"""Files as sources: lossless, ended once, and never from where the settings forbid."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from server.contract import WindowSpec
from server.rpc.client import Client, StreamChange
from server.streams import Reason, SourceUrl, StreamConfig, StreamState
from server.views import StreamView
from tests.support.clips import grey_clip
from tests.support.serving import ServerProcess
from tests.support.tiny_bundle import make_tiny_bundle, trail_scores

WAIT_SECONDS = 20


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("bundles") / "tiny"
    return make_tiny_bundle(directory, window=WindowSpec(4, 10.0)).directory


def until(client: Client, wanted: Callable[[StreamView], bool]) -> StreamView:
    deadline = time.monotonic() + WAIT_SECONDS
    while not wanted(view := client.get("file")):
        assert time.monotonic() < deadline, view
        time.sleep(0.05)
    return view


def test_a_file_is_scored_whole_and_ends(bundle: Path, tmp_path: Path) -> None:
    levels = [20 + index // 16 for index in range(160)]
    clip = grey_clip(tmp_path / "clip.mp4", levels)
    with ServerProcess(bundle=bundle, access__file_roots=tmp_path) as server:
        client = server.client()
        with client.watch_scores() as watch:
            client.create(StreamConfig("file", SourceUrl(f"file://{clip}")))
            scores = [next(watch)[1] for _ in range(10)]
        # H.264 and the YUV matrix move a flat grey by up to two levels of 255.
        expected = trail_scores([(20 + window) / 255 for window in range(10)])
        assert [s.score for s in scores] == pytest.approx(expected, abs=0.01)
        assert [s.span.first_frame for s in scores] == list(range(0, 160, 16))
        for score in scores:
            length = score.span.end_capture_seconds - score.span.start_capture_seconds
            assert length == pytest.approx(1.5, abs=0.01)
        ended = until(client, lambda view: view.status.state is StreamState.ENDED)
        assert ended.status.reason is Reason.END_OF_STREAM
        assert ended.next_sequence == 10


def test_a_stored_stream_that_is_no_longer_allowed_waits_for_its_update(
    bundle: Path, tmp_path: Path
) -> None:
    roots = {name: tmp_path / name for name in ("old", "new")}
    clips = {}
    for name, root in roots.items():
        root.mkdir()
        clips[name] = grey_clip(root / "clip.mp4", [40] * 40)
    store = tmp_path / "streams.db"
    with ServerProcess(bundle=bundle, store=store, access__file_roots=roots["old"]) as server:
        server.client().create(StreamConfig("file", SourceUrl(f"file://{clips['old']}")))
        server.terminate()
    with ServerProcess(bundle=bundle, store=store, access__file_roots=roots["new"]) as server:
        client = server.client()
        parked = until(client, lambda view: view.status.state is StreamState.PARKED)
        assert parked.status.reason is Reason.ADDRESS_DENIED
        client.update("file", StreamChange(url=SourceUrl(f"file://{clips['new']}")))
        until(client, lambda view: view.status.state is StreamState.ENDED)
        until(client, lambda view: view.status.frames_decoded == 40)
