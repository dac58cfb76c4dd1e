"""The supervisor with real workers, engine and store: streams in, scores and alerts out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from server.alerts import AlertState
from server.app import model_info
from server.batcher import BatchSettings
from server.bundle import Bundle
from server.contract import WindowSpec
from server.engine.onnxruntime import EngineOptions, OnnxDetector
from server.hub import Hub
from server.ingest.access import AccessPolicy
from server.ingest.pool import IngestPool
from server.ingest.settings import IngestSettings
from server.push import PushLimits
from server.store.database import Database
from server.store.streams import StreamStore
from server.streams import Mode, Reason, SourceError, SourceUrl, StreamConfig, StreamState
from server.supervision import SupervisorSettings
from server.supervisor import Supervisor
from server.telemetry import Telemetry
from server.views import CapacityError, StreamExistsError, StreamView, UnknownStreamError
from tests.support.cameras import free_port
from tests.support.clips import grey_clip
from tests.support.tiny_bundle import make_tiny_bundle

WAIT_SECONDS = 20
DARK, BRIGHT = 26, 250


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny", window=WindowSpec(4, 10.0))


class Running:
    """A supervisor under test, and where it counts."""

    def __init__(self, bundle: Bundle, files: Path) -> None:
        access = AccessPolicy(file_roots=(files,))
        self.telemetry = Telemetry()
        self.store = StreamStore(Database("sqlite://"))
        detector = OnnxDetector(bundle, EngineOptions(threads=1))
        self.supervisor = Supervisor(
            detector,
            model_info(bundle, detector),
            SupervisorSettings(
                BatchSettings(), 0.8, 0.0, max_streams=2, access=access, push=PushLimits()
            ),
            store=self.store,
            telemetry=self.telemetry,
            hubs=(Hub(), Hub()),
            make_pool=lambda take: IngestPool(
                IngestSettings(workers=1, access=access),
                bundle.manifest.window,
                bundle.manifest.preprocess,
                take,
            ),
        )

    def metrics(self) -> str:
        return generate_latest(self.telemetry.registry).decode()

    async def until(self, stream_id: str, wanted: Callable[[StreamView], bool]) -> StreamView:
        async with asyncio.timeout(WAIT_SECONDS):
            while not wanted(view := self.supervisor.get(stream_id)):
                await asyncio.sleep(0.02)
        return view


@asynccontextmanager
async def running(bundle: Bundle, files: Path) -> AsyncIterator[Running]:
    run = Running(bundle, files)
    await run.supervisor.start()
    try:
        yield run
    finally:
        await run.supervisor.stop()
        run.store.database.close()


def is_ended(view: StreamView) -> bool:
    return view.status.state is StreamState.ENDED


def listening(stream_id: str, port: int) -> StreamConfig:
    return StreamConfig(stream_id, SourceUrl(f"rtsp://127.0.0.1:{port}/x"), mode=Mode.LISTEN)


def test_an_event_becomes_one_alert_that_closes_with_the_source(
    bundle: Bundle, tmp_path: Path
) -> None:
    clip = grey_clip(tmp_path / "event.mp4", [DARK] * 32 + [BRIGHT] * 64)

    async def scenario() -> None:
        async with running(bundle, tmp_path) as run, run.supervisor.alerts.subscribe() as alerts:
            await run.supervisor.create(StreamConfig("file", SourceUrl(f"file://{clip}")))
            view = await run.until("file", is_ended)
            (_, opened), (_, closed) = [await anext(alerts) for _ in range(2)]
            assert (opened.state, closed.state) == (AlertState.OPEN, AlertState.CLOSED)
            assert opened.alert_id == closed.alert_id
            assert closed.last_sequence == view.next_sequence - 1 == 5
            assert closed.peak_score == view.last_score
            metrics = run.metrics()
            assert 'gvvad_alerts_total{stream="file"} 1.0' in metrics
            assert 'gvvad_alerts_open{stream="file"} 0.0' in metrics
            assert 'gvvad_windows_scored_total{stream="file"} 6.0' in metrics

    asyncio.run(scenario())


def test_a_stream_may_have_a_threshold_of_its_own(bundle: Bundle, tmp_path: Path) -> None:
    clip = grey_clip(tmp_path / "bright.mp4", [BRIGHT] * 64)

    async def scenario() -> None:
        async with running(bundle, tmp_path) as run:
            url = SourceUrl(f"file://{clip}")
            await run.supervisor.create(StreamConfig("deaf", url, open_threshold=1.0))
            await run.until("deaf", is_ended)
            assert 'gvvad_alerts_total{stream="deaf"} 0.0' in run.metrics()

    asyncio.run(scenario())


def test_a_deleted_stream_leaves_nothing_and_may_come_again(bundle: Bundle, tmp_path: Path) -> None:
    clip = grey_clip(tmp_path / "clip.mp4", [DARK] * 32)

    async def scenario() -> None:
        async with running(bundle, tmp_path) as run:
            config = StreamConfig("file", SourceUrl(f"file://{clip}"))
            await run.supervisor.create(config)
            await run.until("file", is_ended)
            await run.supervisor.delete("file")
            assert 'stream="file"' not in run.metrics()
            assert run.store.load() == []
            with pytest.raises(UnknownStreamError, match="'file'"):
                run.supervisor.get("file")
            with pytest.raises(UnknownStreamError):
                await run.supervisor.delete("file")
            await run.supervisor.create(config)
            assert (await run.until("file", is_ended)).next_sequence == 2

    asyncio.run(scenario())


def test_what_cannot_be_created_changes_nothing(bundle: Bundle, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(bundle, tmp_path) as run:
            port = free_port()
            create = run.supervisor.create
            await create(listening("a", port))
            with pytest.raises(StreamExistsError, match="'a' exists already"):
                await create(listening("a", free_port()))
            with pytest.raises(StreamExistsError, match=f"port {port} is listened on"):
                await create(listening("b", port))
            with pytest.raises(SourceError, match="do not allow to connect") as denied:
                await create(StreamConfig("c", SourceUrl("rtsp://169.254.169.254/meta")))
            assert denied.value.reason is Reason.ADDRESS_DENIED
            await create(listening("d", free_port()))
            with pytest.raises(CapacityError, match="takes 2 streams and has as many"):
                await create(listening("e", free_port()))
            assert [view.config.stream_id for view in run.supervisor.list()] == ["a", "d"]
            assert [stored.config.stream_id for stored in run.store.load()] == ["a", "d"]

    asyncio.run(scenario())


def test_an_update_plays_an_ended_file_again_and_sequences_go_on(
    bundle: Bundle, tmp_path: Path
) -> None:
    clip = grey_clip(tmp_path / "clip.mp4", [DARK] * 32)

    async def scenario() -> None:
        async with running(bundle, tmp_path) as run:
            config = StreamConfig("file", SourceUrl(f"file://{clip}"))
            await run.supervisor.create(config)
            await run.until("file", is_ended)
            await run.supervisor.update("file", lambda stored: stored)
            await run.until("file", lambda view: is_ended(view) and view.next_sequence == 4)

    asyncio.run(scenario())
