"""Saturated replay against a real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from server.bench.crew import BenchError
from server.bench.replay import measure_replay
from tests.support.clips import grey_clip
from tests.support.serving import ServerProcess
from tests.support.tiny_bundle import make_tiny_bundle

FRAMES = 480
WINDOWS = FRAMES // 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("replay")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[ServerProcess]:
    bundle = make_tiny_bundle(folder / "tiny").directory
    with ServerProcess(bundle=bundle, access__file_roots=folder) as running:
        yield running


def test_files_follow_each_other_and_leave_nothing_behind(
    server: ServerProcess, folder: Path
) -> None:
    clip = grey_clip(folder / "clip.mp4", [40] * FRAMES)
    found = measure_replay(server.address, clip, seconds=1.5, warm_up_seconds=0.1, files=2)
    # Two files have 60 windows, which take a fraction of a second.
    assert found.windows > 2 * WINDOWS
    assert found.seconds >= 1.5
    assert found.windows_per_second == found.windows / found.seconds
    assert server.client().list() == []


def test_what_cannot_be_replayed_is_one_sentence(
    server: ServerProcess, folder: Path, tmp_path: Path
) -> None:
    short = grey_clip(folder / "short.mp4", [40] * 8)
    elsewhere = grey_clip(tmp_path / "elsewhere.mp4", [40] * FRAMES)
    text = folder / "text.mp4"
    text.write_text("no video")
    for words, address, clip in [
        ("too short to fill a window", server.address, short),
        ("not a video", server.address, text),
        ("settings allow files from", server.address, elsewhere),
        ("no server answers", "127.0.0.1:1", short),
    ]:
        with pytest.raises(BenchError, match=words) as raised:
            measure_replay(address, clip, 0.1, files=1)
        assert "\n" not in str(raised.value)
    with pytest.raises(BenchError, match="files"):
        measure_replay(server.address, short, 0.1, files=0)
    assert server.client().list() == []
