"""A real server on a tiny bundle, a clip for its cameras, and a watch of its scores."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.contract import WindowSpec
from server.preprocess import PreprocessSpec
from server.rpc.client import Client
from tests.support.cameras import RtspServer, render_clip
from tests.support.faults import NORMAL_LATENCY_SECONDS, Tell, unharmed
from tests.support.serving import ServerProcess
from tests.support.tiny_bundle import make_tiny_bundle
from tests.support.watching import Scores, add, assert_unbroken

SIZE = PreprocessSpec(24, 32, "squash", "area", "bt601", "declared")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_clip(tmp_path_factory.mktemp("clips") / "camera.mp4", seconds=4)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("bundles") / "tiny"
    return make_tiny_bundle(directory, window=WindowSpec(4, 25.0), preprocess=SIZE).directory


@pytest.fixture
def server(bundle: Path) -> Iterator[ServerProcess]:
    hasty = {
        "ingest__open_timeout_seconds": 2,
        "ingest__read_timeout_seconds": 1.5,
        "ingest__backoff_first_seconds": 0.2,
        "ingest__backoff_max_seconds": 0.5,
    }
    with ServerProcess(bundle=bundle, **hasty) as process:
        yield process


@pytest.fixture
def client(server: ServerProcess) -> Client:
    return server.client()


@pytest.fixture
def scores(client: Client) -> Iterator[Scores]:
    watching = Scores(client)
    yield watching
    watching.close()


@pytest.fixture
def neighbour(
    clip: Path, server: ServerProcess, client: Client, scores: Scores, tell: Tell
) -> Iterator[None]:
    """Another camera on the same server, which must notice nothing of what the test does."""
    with RtspServer({"/good": clip}) as camera:
        add(client, "good", camera.url("/good"))
        scores.wait("good", 2)
        with unharmed(server, tell):
            yield
            got = scores.wait("good", len(scores.of("good")) + 2)
            assert_unbroken(got)
            assert [s.span.number for s in got] == list(range(len(got)))
            assert max(s.latency_seconds for s in got) < NORMAL_LATENCY_SECONDS


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Tell:
    """Prints a figure that a test measured, whatever pytest captures."""

    def write(figure: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n  {figure} ")

    return write
