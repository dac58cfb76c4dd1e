"""A server that is full: it refuses with its figures, thins what allows it, and recovers."""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from server.capacity import CapacitySummary
from server.contract import WindowSpec
from server.rpc.client import Client, ClientError
from server.sampling import EveryNth
from server.scoring import DropReason
from server.streams import StreamState
from tests.support.cameras import RtspServer, render_clip
from tests.support.heavy_bundle import make_heavy_bundle
from tests.support.serving import ServerProcess
from tests.support.watching import Scores, add, is_in, wait_for

pytestmark = [
    pytest.mark.long,
    pytest.mark.rtsp,
    pytest.mark.timeout(400),
]

SENTENCE = re.compile(
    r"this server holds about (\d+) streams like the (\d+) it has \([\d.]+ of [\d.]+ cores in use, "
    r"one takes [\d.]+\); delete one, let it be thinned \(sampling_when_full\), or raise "
    r"capacity\.share"
)
MEASURED_SECONDS = 120
KEPT_LATENCY_SECONDS = 1.0


@pytest.fixture(scope="module")
def heavy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heavy") / "bundle"
    return make_heavy_bundle(folder, window=WindowSpec(4, 25.0)).directory


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    clip = render_clip(tmp_path_factory.mktemp("clips") / "camera.mp4", seconds=4)
    with RtspServer({"/camera": clip}) as cameras:
        yield cameras.url("/camera")


@pytest.fixture(scope="module")
def pilot(heavy: Path, url: str) -> CapacitySummary:
    """What two such cameras take here."""
    with full_server(heavy, cores=64.0) as server:
        client = server.client()
        for stream_id in ("a", "b"):
            add(client, stream_id, url)
            measured(server, stream_id)
        scores = Scores(client)
        scores.wait("b", 40)
        scores.close()
        return client.capacity()


def full_server(bundle: Path, cores: float) -> ServerProcess:
    return ServerProcess(bundle=bundle, capacity__cores=f"{cores:.4f}", capacity__share=1)


def measured(server: ServerProcess, stream_id: str) -> None:
    """Wait until it is known what the stream takes, and the server beside it."""
    until(lambda: f'gvvad_stream_cores{{stream="{stream_id}"}}' in metrics(server), stream_id)
    until(lambda: 'gvvad_load_cores{stage="rest"} 0.0\n' not in metrics(server), "the rest")


def metrics(server: ServerProcess) -> str:
    with urllib.request.urlopen(f"{server.http}/metrics") as answer:
        return str(answer.read().decode())


def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + MEASURED_SECONDS
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def fill(server: ServerProcess, client: Client, url: str) -> tuple[list[str], str]:
    """The streams that got in, one after the other, and what the first that did not was told."""
    admitted: list[str] = []
    while len(admitted) < 6:
        stream_id = f"s{len(admitted)}"
        try:
            add(client, stream_id, url)
        except ClientError as error:
            return admitted, error.sentence
        admitted.append(stream_id)
        measured(server, stream_id)
    raise AssertionError(f"none was refused: {client.capacity()}")


def gets_in(client: Client, stream_id: str, url: str) -> bool:
    try:
        add(client, stream_id, url)
    except ClientError as error:
        if error.code != "RESOURCE_EXHAUSTED":
            raise
        return False
    return True


def refused(client: Client, stream_id: str, url: str, **options: object) -> str:
    with pytest.raises(ClientError) as caught:
        add(client, stream_id, url, **options)
    assert caught.value.code == "RESOURCE_EXHAUSTED"
    return caught.value.sentence


def test_what_no_longer_fits_is_refused_and_the_admitted_keep_their_latency(
    heavy: Path, url: str, pilot: CapacitySummary
) -> None:
    own = (pilot.decode_cores + pilot.encode_cores) / 2
    with full_server(heavy, cores=3.5 * own + pilot.rest_cores) as server:
        client = server.client()
        admitted, sentence = fill(server, client, url)
        found = SENTENCE.fullmatch(sentence)
        assert found, sentence
        assert int(found[2]) == len(admitted) >= 2
        assert len(admitted) - 1 <= int(found[1]) <= len(admitted)
        scores = Scores(client)
        before = [s for stream_id in admitted for s in scores.wait(stream_id, 10)]
        # Twice as many as it holds ask: none gets in, and nobody inside notices.
        for number in range(len(admitted)):
            assert SENTENCE.fullmatch(refused(client, f"more{number}", url))
        after = [s for stream_id in admitted for s in scores.wait(stream_id, 30)[-15:]]
        scores.close()
        slowest_before = max(s.latency_seconds for s in before)
        slowest = max(s.latency_seconds for s in after)
        assert slowest < max(KEPT_LATENCY_SECONDS, 2 * slowest_before)
        count = f'gvvad_streams_refused_total{{reason="capacity"}} {1.0 + len(admitted)}'
        assert count in metrics(server)
        for gone in admitted[1:]:
            client.delete(gone)
        until(lambda: gets_in(client, "next", url), "there is room again")
        wait_for(client, "next", is_in(StreamState.RUNNING))


def test_the_least_important_is_thinned_for_others_and_comes_back_once_there_is_room(
    heavy: Path, url: str, pilot: CapacitySummary
) -> None:
    own = (pilot.decode_cores + pilot.encode_cores) / 2
    with full_server(heavy, cores=3.5 * own + pilot.rest_cores) as server:
        client = server.client()
        scores = Scores(client)
        names = [f"rank{number}" for number in range(8)]
        for number, stream_id in enumerate(names):
            # Each may count on the thinning of all before it, so that none is refused.
            add(client, stream_id, url, priority=number, sampling_when_full=EveryNth(8))
            measured(server, stream_id)
            if client.capacity().thinned:
                break
        assert client.get("rank0").thinned
        assert not client.get(stream_id).thinned
        so_far = len(scores.of("rank0"))
        got = scores.wait("rank0", so_far + 17)[-9:]
        assert {s.drop_reason for s in got} >= {DropReason.THINNED}
        assert 'gvvad_stream_thinned{stream="rank0"} 1.0' in metrics(server)
        for other in names[1 : number + 1]:
            client.delete(other)
        wait_for(client, "rank0", lambda view: not view.thinned)
        until(
            lambda: DropReason.THINNED not in {s.drop_reason for s in scores.of("rank0")[-9:]},
            "all windows of rank0 are scored again",
        )
        scores.close()
