"""Faults of clients, each with real ones.

What is promised stands in tests/RELIABILITY.md. Every test prints what it measured.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from gvvad.v1 import score_pb2, score_pb2_grpc

from server.rpc.client import Client, ClientError, StreamChange
from server.store.database import Database
from server.store.streams import StreamStore
from server.streams import SourceUrl, StreamConfig, StreamState
from tests.support.cameras import RtspServer, render_clip
from tests.support.faults import (
    BACK_SECONDS,
    NORMAL_LATENCY_SECONDS,
    SETTLED_SECONDS,
    Tell,
    unharmed,
)
from tests.support.hasty import HastyClient
from tests.support.serving import ServerProcess
from tests.support.watching import Scores, add, assert_unbroken, is_in, wait_for

pytestmark = pytest.mark.rtsp

HASTY_SECONDS = 30
HASTY_ANSWERS = {"OK", "CANCELLED", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS"}
BACKLOG = 16
FILES = 30


@pytest.mark.long
def test_watchers_that_are_many_mute_or_gone_slow_nobody(
    clip: Path, bundle: Path, tell: Tell
) -> None:
    with (
        RtspServer({"/cam": clip}) as camera,
        ServerProcess(bundle=bundle, grpc__max_watchers=300) as server,
    ):
        client = server.client()
        scores = Scores(client)
        add(client, "cam", camera.url("/cam"))
        scores.wait("cam", 2)
        with unharmed(server, tell):
            clients = [server.client() for _ in range(8)]
            watches = [clients[n % 8].watch_scores("cam") for n in range(200)]
            got = scores.wait("cam", len(scores.of("cam")) + 4)
            threads = [threading.Thread(target=next, args=(watch,)) for watch in watches[:20]]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(SETTLED_SECONDS)
                assert not thread.is_alive()
            latest = [s.latency_seconds for s in got[-4:]]
            tell(f"200 watchers: latency up to {max(latest) * 1000:.0f} ms")
            assert max(latest) < NORMAL_LATENCY_SECONDS
            for watch in watches:
                watch.cancel()
            for one in clients:
                one.close()
        assert_unbroken(scores.wait("cam", len(scores.of("cam")) + 2))
        scores.close()


@pytest.mark.long
@pytest.mark.timeout(180)
def test_calls_broken_off_at_random_leave_nothing_half_made(
    clip: Path, bundle: Path, tmp_path: Path, tell: Tell
) -> None:
    store = tmp_path / "streams.db"
    with RtspServer({"/cam": clip}) as camera:
        # They make hundreds of streams, and none is to be refused for want of capacity.
        with ServerProcess(bundle=bundle, store=store, capacity__admission="off") as server:
            client = server.client()
            scores = Scores(client)
            add(client, "cam", camera.url("/cam"))
            scores.wait("cam", 3)
            with unharmed(server, tell):
                answers = break_calls_off(server)
                tell(f"{answers.total()} calls: {dict(answers.most_common())}")
                assert set(answers) <= HASTY_ANSWERS
                # A change whose client hung up goes on; one that comes after it ends after it.
                client.update("cam", StreamChange(bundle_threshold=True))
                made = [view.config for view in client.list()]
                assert made == stored(store)
                assert len(made) > 2
                for stream_id in {config.stream_id for config in made} - {"cam"}:
                    assert client.get(stream_id).config in made
                    client.delete(stream_id)
            got = scores.wait("cam", len(scores.of("cam")) + 2)
            assert_unbroken(got)
            assert [score.span.number for score in got] == list(range(len(got)))
            latest = max(score.latency_seconds for score in got)
            tell(f"latency of the camera meanwhile up to {latest * 1000:.0f} ms")
            assert latest < NORMAL_LATENCY_SECONDS
            assert [view.config.stream_id for view in client.list()] == ["cam"]
            assert own_errors(server.log) == []
            add(client, "after", camera.url("/cam"))
            wait_for(client, "after", is_in(StreamState.RUNNING))
            made = [view.config for view in client.list()]
            scores.close()
        with ServerProcess(bundle=bundle, store=store) as server:  # the first one was killed
            assert [view.config for view in server.client().list()] == made


def break_calls_off(server: ServerProcess) -> Counter[str]:
    """Twelve hasty clients at once; how their calls ended."""
    clients = [HastyClient(server.address, seed) for seed in range(12)]
    threads = [threading.Thread(target=client.run, args=(HASTY_SECONDS,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum((client.answers for client in clients), Counter())


def own_errors(log: list[str]) -> list[str]:
    """Errors, but for gRPC's own word for an answer whose client has just hung up."""
    signs = (" ERROR ", "never retrieved", "Error:")
    lines = [line for line in log if any(sign in line for sign in signs)]
    return [line for line in lines if "ExecuteBatchError" not in line]


def stored(store: Path) -> list[StreamConfig]:
    """What a server that started now would take up."""
    reader = StreamStore(Database(f"sqlite:///{store}"))
    configs = [stream.config for stream in reader.load()]
    reader.database.close()
    return configs


@pytest.mark.long
@pytest.mark.parametrize(
    ("blow", "given_back_seconds"), [(signal.SIGKILL, BACK_SECONDS), (signal.SIGSTOP, 42)]
)
def test_a_watcher_that_vanishes_gives_its_place_back(
    blow: signal.Signals, given_back_seconds: float, clip: Path, bundle: Path, tell: Tell
) -> None:
    with (
        RtspServer({"/cam": clip}) as camera,
        ServerProcess(bundle=bundle, grpc__max_watchers=1) as server,
        server.client() as client,
    ):
        add(client, "cam", camera.url("/cam"))
        wait_for(client, "cam", is_in(StreamState.RUNNING))
        with watcher_process(server) as watcher:
            assert no_place_is_free(client)
            with unharmed(server, tell):
                watcher.send_signal(blow)
                gone_seconds = time.monotonic()
                while no_place_is_free(client):
                    waited_seconds = time.monotonic() - gone_seconds
                    assert waited_seconds < given_back_seconds, f"taken for {waited_seconds:.1f} s"
                    time.sleep(0.2)
                waited_seconds = time.monotonic() - gone_seconds
                tell(f"watcher gone by {blow.name}: its place is free after {waited_seconds:.1f} s")


@contextmanager
def watcher_process(server: ServerProcess) -> Iterator[subprocess.Popen[str]]:
    """A watcher of all scores in a process of its own, once it has its place."""
    watch = (
        "import sys; from server.rpc.client import Client\n"
        "for score in Client(sys.argv[1]).watch_scores(): print('scored', flush=True)"
    )
    command = [sys.executable, "-c", watch, server.address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "scored\n"
            yield process
        finally:
            process.kill()


def no_place_is_free(client: Client) -> bool:
    with client.watch_scores() as watch:
        try:
            next(watch)
        except ClientError as error:
            return error.code == "RESOURCE_EXHAUSTED"
        return False


@pytest.mark.long
def test_a_watcher_that_reads_nothing_is_told_what_it_missed(
    bundle: Path, tmp_path: Path, tell: Tell
) -> None:
    clip = render_clip(tmp_path / "clip.mp4", seconds=60, size=(64, 48))
    settings = {"access__file_roots": tmp_path, "grpc__watch_backlog": BACKLOG}
    with (
        ServerProcess(bundle=bundle, **settings) as server,
        server.client() as client,
    ):
        play_files(client, clip)  # once, so that the workers are up and warm
        delete_all(client)
        with unharmed(server, tell), mute_watch(server) as watch:
            scored = play_files(client, clip)
            seen = []
            while sum(1 + answer.missed for answer in seen) < scored:
                seen.append(next(watch))  # its deadline ends the wait for what never comes
            delete_all(client)
        assert sum(1 + answer.missed for answer in seen) == scored
        missed = sum(answer.missed for answer in seen)
        assert missed > 0
        last = max(n for n, answer in enumerate(seen) if answer.missed)
        tell(f"{scored} scores, none read: {missed} missed, {len(seen) - last} came after them")
        # What came before was under way in sockets; what waits in the hub are the newest ones.
        assert len(seen) - last <= BACKLOG


@contextmanager
def mute_watch(server: ServerProcess) -> Iterator[Iterator[score_pb2.WatchScoresResponse]]:
    """A watch whose messages nobody takes from gRPC until the caller does."""
    options = (("grpc.http2.bdp_probe", 0), ("grpc.enable_http_proxy", 0))
    with grpc.insecure_channel(server.address, options=options) as channel:
        stub = score_pb2_grpc.ScoreServiceStub(channel)
        watch = stub.WatchScores(score_pb2.WatchScoresRequest(), timeout=100)
        watch.initial_metadata()
        yield watch
        watch.cancel()


def play_files(client: Client, clip: Path) -> int:
    """Play the clip on many streams as fast as it goes; how many windows they had."""
    names = [f"file-{number}" for number in range(FILES)]
    url = SourceUrl(f"file://{clip}")
    # An id that comes back goes on where it was.
    begun = sum(client.create(StreamConfig(name, url)).next_sequence for name in names)
    for name in names:
        wait_for(client, name, is_in(StreamState.ENDED))
    return sum(view.next_sequence for view in client.list()) - begun


def delete_all(client: Client) -> None:
    for view in client.list():
        client.delete(view.config.stream_id)
