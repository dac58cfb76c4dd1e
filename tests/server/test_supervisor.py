"""The supervisor with real workers, engine and store: streams in, scores and alerts out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from server.alert_records import ChangeKind
from server.alerts import AlertDefaults, AlertState, PolicyError
from server.app import model_info
from server.batcher import BatchSettings
from server.bundle import Bundle
from server.contract import WindowSpec
from server.desk import AlertDesk
from server.engine.onnxruntime import EngineOptions, OnnxDetector
from server.evidence.keeper import EvidenceKeeper
from server.evidence.rules import EvidenceRules
from server.hub import Hub
from server.ingest.access import AccessPolicy
from server.ingest.pool import IngestPool
from server.ingest.settings import IngestSettings
from server.push import PushLimits
from server.sampling import EveryNth, OnMotion
from server.store.alerts import AlertLog
from server.store.database import Database
from server.store.streams import StreamStore
from server.streams import Mode, Reason, SourceError, SourceUrl, StreamConfig, StreamState
from server.supervision import SupervisorSettings
from server.supervisor import Supervisor
from server.telemetry import Telemetry
from server.tuning import AlertTuning
from server.views import CapacityError, StreamExistsError, StreamView, UnknownStreamError
from tests.support.backend import an_alert
from tests.support.cameras import PushCamera, free_port, render_clip
from tests.support.clips import grey_clip
from tests.support.pushing import TINY
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
        self.log = AlertLog(self.store.database)
        self.desk = AlertDesk(self.log, self.telemetry)
        detector = OnnxDetector(bundle, EngineOptions(threads=1))
        self.supervisor = Supervisor(
            detector,
            model_info(bundle, detector),
            SupervisorSettings(
                BatchSettings(),
                AlertDefaults(min_duration_seconds=0),
                max_streams=2,
                access=access,
                push=PushLimits(),
            ),
            store=self.store,
            telemetry=self.telemetry,
            keeper=EvidenceKeeper(EvidenceRules(), self.telemetry),
            scores=Hub(),
            desk=self.desk,
            make_pool=lambda take: IngestPool(
                IngestSettings(workers=1, access=access),
                bundle.manifest.window,
                bundle.manifest.preprocess,
                take,
            ),
        )

    def metrics(self) -> str:
        return generate_latest(self.telemetry.registry).decode()

    def count(self, metric: str) -> float:
        return self.telemetry.registry.get_sample_value(metric, {"stream": "door"}) or 0.0

    async def until(self, stream_id: str, wanted: Callable[[StreamView], bool]) -> StreamView:
        deadline_seconds = time.monotonic() + WAIT_SECONDS
        while not wanted(view := self.supervisor.get(stream_id)):
            assert time.monotonic() < deadline_seconds, (view, self.metrics())
            await asyncio.sleep(0.02)
        return view


@asynccontextmanager
async def running(bundle: Bundle, files: Path) -> AsyncIterator[Running]:
    run = Running(bundle, files)
    run.desk.start()
    await run.supervisor.start()
    try:
        yield run
    finally:
        await run.supervisor.stop()
        run.desk.stop()
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
        async with running(bundle, tmp_path) as run:
            await run.supervisor.create(StreamConfig("file", SourceUrl(f"file://{clip}")))
            view = await run.until("file", is_ended)
            async with asyncio.timeout(WAIT_SECONDS):
                while len(run.log.changes(0)) < 2:
                    await asyncio.sleep(0.02)
            opened, closed = [change.record.alert for change in run.log.changes(0)]
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
            # Sequences go on beyond those of before: an alert's id is made of one.
            assert (await run.until("file", is_ended)).next_sequence >= 4

    asyncio.run(scenario())


def test_a_temporary_id_that_comes_back_goes_on_after_its_alerts(
    bundle: Bundle, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with running(bundle, tmp_path) as run:
            run.log.append(ChangeKind.OPENED, an_alert("guest", first_sequence=40), 1.0)
            for stream_id, begins in (("guest", 43), ("other", 0)):
                async with run.supervisor.pushing(None, stream_id, TINY):
                    assert run.supervisor.get(stream_id).next_sequence == begins

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


# Tuning


def stepping(tmp_path: Path) -> Path:
    """Two bright stretches with a dark one between, 1.6 s a window."""
    return grey_clip(tmp_path / "steps.mp4", [BRIGHT] * 32 + [DARK] * 64 + [BRIGHT] * 32)


def closed_alerts(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the log tells of alerts that closed; the last windows are scored after the end."""
    return [line for line in caplog.messages if " closed" in line]


def test_alerts_that_reach_nobody_are_counted_by_reason(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    url = SourceUrl(f"file://{stepping(tmp_path)}")
    snoozed = AlertTuning(merge_gap_seconds=0, snooze_until_seconds=4e9)
    cooled = AlertTuning(merge_gap_seconds=0, cooldown_seconds=3600)

    async def scenario() -> None:
        async with running(bundle, tmp_path) as run:
            for number, (stream_id, tuning) in enumerate(
                {"snoozed": snoozed, "cooled": cooled}.items(), 1
            ):
                await run.supervisor.create(StreamConfig(stream_id, url, alerts=tuning))
                await run.until(stream_id, is_ended)
                await run.until(
                    stream_id, lambda _, least=2 * number: len(closed_alerts(caplog)) == least
                )
            metrics = run.metrics()
        suppressed = "gvvad_alerts_suppressed_total"
        assert 'gvvad_alerts_total{stream="snoozed"} 0.0' in metrics
        assert f'{suppressed}{{reason="snoozed",stream="snoozed"}} 2.0' in metrics
        assert 'gvvad_alerts_total{stream="cooled"} 1.0' in metrics
        assert f'{suppressed}{{reason="cooldown",stream="cooled"}} 1.0' in metrics
        assert f'{suppressed}{{reason="quiet_hours",stream="cooled"}} 0.0' in metrics
        for stream_id in ("snoozed", "cooled"):
            assert f'gvvad_alerts_open{{stream="{stream_id}"}} 0.0' in metrics

    asyncio.run(scenario())


def test_tuning_changes_without_a_reconnect_and_an_open_alert_stays_open(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    clip = grey_clip(tmp_path / "bright.mp4", [BRIGHT] * 600)
    tune = AlertTuning(close_threshold=0.1, merge_gap_seconds=60, cooldown_seconds=5)

    async def scenario() -> None:
        async with running(bundle, tmp_path) as run:
            await run.supervisor.create(StreamConfig("file", SourceUrl(f"file://{clip}")))
            await run.until("file", lambda _: " alert " in caplog.text)
            before = run.supervisor.get("file")
            change = partial(replace, alerts=tune)
            after = await run.supervisor.update("file", change)
            assert after.config.alerts == tune
            assert after.status.reconnects == before.status.reconnects == 0
            await run.until("file", is_ended)
            await run.until("file", lambda _: closed_alerts(caplog) != [])
            # It was not played from its start again.
            assert run.supervisor.get("file").next_sequence == 600 // 16
            assert 'gvvad_alerts_total{stream="file"} 1.0' in run.metrics()
            assert run.store.load()[0].config.alerts == tune

    asyncio.run(scenario())
    assert caplog.text.count(" open, peak") == caplog.text.count(" closed (gap), peak") == 1


def test_a_snooze_does_not_wake_a_stream_that_has_come_to_rest(
    bundle: Bundle, tmp_path: Path
) -> None:
    clip = grey_clip(tmp_path / "clip.mp4", [DARK] * 32)
    snoozed = AlertTuning(snooze_until_seconds=4e9)

    async def scenario() -> None:
        async with running(bundle, tmp_path) as run:
            await run.supervisor.create(StreamConfig("file", SourceUrl(f"file://{clip}")))
            ended = await run.until("file", is_ended)
            after = await run.supervisor.update("file", partial(replace, alerts=snoozed))
            assert (after.status, after.next_sequence) == (ended.status, ended.next_sequence)

    asyncio.run(scenario())


def test_a_sampling_or_priority_wakes_no_stream_that_has_come_to_rest(
    bundle: Bundle, tmp_path: Path
) -> None:
    clip = grey_clip(tmp_path / "clip.mp4", [DARK] * 32)
    changes = {"sampling": EveryNth(2), "sampling_when_full": EveryNth(4), "priority": 9}

    async def scenario() -> None:
        async with running(bundle, tmp_path) as run:
            await run.supervisor.create(StreamConfig("file", SourceUrl(f"file://{clip}")))
            ended = await run.until("file", is_ended)
            after = await run.supervisor.update("file", lambda config: replace(config, **changes))
            assert (after.status, after.next_sequence) == (ended.status, ended.next_sequence)

    asyncio.run(scenario())


def test_a_file_is_never_thinned(bundle: Bundle, tmp_path: Path) -> None:
    clip = grey_clip(tmp_path / "clip.mp4", [DARK] * 96)

    async def scenario() -> None:
        async with running(bundle, tmp_path) as run:
            url = SourceUrl(f"file://{clip}")
            config = StreamConfig("file", url, sampling=EveryNth(4), sampling_when_full=OnMotion())
            await run.supervisor.create(config)
            with pytest.raises(ValueError, match="'file' cannot be thinned: it is lossless"):
                run.supervisor.set_thinned("file", True)
            await run.until("file", is_ended)
            assert 'gvvad_windows_scored_total{stream="file"} 6.0' in run.metrics()

    asyncio.run(scenario())


def test_a_thinned_stream_is_seen_as_one_until_it_is_none_any_more(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    gauge = 'gvvad_stream_thinned{stream="door"}'

    async def scenario() -> None:
        async with running(bundle, tmp_path) as run:
            supervisor = run.supervisor
            config = replace(listening("door", free_port()), sampling_when_full=EveryNth(4))
            await supervisor.create(config)
            assert f"{gauge} 0.0" in run.metrics()
            for _ in range(2):
                supervisor.set_thinned("door", True)
            assert supervisor.get("door").thinned
            assert supervisor.get("door").config == config
            assert f"{gauge} 1.0" in run.metrics()
            await supervisor.update("door", partial(replace, sampling_when_full=None))
            assert not supervisor.get("door").thinned
            assert f"{gauge} 0.0" in run.metrics()
            supervisor.set_thinned("door", False)
            with pytest.raises(ValueError, match="cannot be thinned"):
                supervisor.set_thinned("door", True)
            with pytest.raises(UnknownStreamError):
                supervisor.set_thinned("yard", True)
            await supervisor.delete("door")
            assert gauge not in run.metrics()

    asyncio.run(scenario())
    assert caplog.text.count("thinned to nth:4: the server is full") == 1
    assert caplog.text.count("thinned no longer, sampled by every") == 1


def test_thinning_reaches_a_running_camera_without_a_reconnect(
    bundle: Bundle, tmp_path: Path
) -> None:
    clip = render_clip(tmp_path / "street.mp4")
    thinned = 'gvvad_windows_dropped_total{reason="thinned",stream="door"}'

    def is_thinned(run: Running) -> bool:
        # Again and again: the server, which has room, gives it its windows back.
        run.supervisor.set_thinned("door", True)
        return thinned in run.metrics()

    async def scenario() -> None:
        async with running(bundle, tmp_path) as run:
            config = replace(listening("door", free_port()), sampling_when_full=EveryNth(64))
            await run.supervisor.create(config)
            with PushCamera(clip, config.url.reveal()):
                await run.until("door", lambda view: view.last_score is not None)
                await run.until("door", lambda view: is_thinned(run))
                scored = run.count("gvvad_windows_scored_total")
                run.supervisor.set_thinned("door", False)
                wanted = scored + 2
                view = await run.until(
                    "door", lambda view: run.count("gvvad_windows_scored_total") >= wanted
                )
                assert view.status.reconnects == 0

    asyncio.run(scenario())


def test_a_stream_that_is_deleted_ends_its_alert_as_stopped(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    clip = grey_clip(tmp_path / "bright.mp4", [BRIGHT] * 6000)

    async def scenario(*, delete: bool) -> None:
        caplog.clear()
        async with running(bundle, tmp_path) as run:
            await run.supervisor.create(StreamConfig("file", SourceUrl(f"file://{clip}")))
            await run.until("file", lambda _: " open, peak" in caplog.text)
            if delete:
                await run.supervisor.delete("file")
        assert caplog.text.count("closed (stopped), peak") == 1

    asyncio.run(scenario(delete=True))
    asyncio.run(scenario(delete=False))


def test_a_policy_that_does_not_fit_changes_nothing(bundle: Bundle, tmp_path: Path) -> None:
    clip = grey_clip(tmp_path / "clip.mp4", [DARK] * 32)
    config = StreamConfig("file", SourceUrl(f"file://{clip}"))
    high = AlertTuning(close_threshold=0.95)

    async def scenario() -> None:
        async with running(bundle, tmp_path) as run:
            with pytest.raises(PolicyError, match=r"close_threshold \(0.95\) must be at most"):
                await run.supervisor.create(replace(config, alerts=high))
            assert run.supervisor.list() == run.store.load() == []
            await run.supervisor.create(config)
            with pytest.raises(PolicyError, match=r"open threshold, which is 0\.5 here"):
                await run.supervisor.update("file", partial(replace, alerts=high))
            assert run.supervisor.get("file").config == run.store.load()[0].config == config

    asyncio.run(scenario())


def test_a_stored_policy_that_todays_bundle_breaks_is_told_and_the_stream_starts(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clip = grey_clip(tmp_path / "bright.mp4", [BRIGHT] * 64)
    caplog.set_level("INFO")
    broken = StreamConfig(
        "file", SourceUrl(f"file://{clip}"), alerts=AlertTuning(0.95, snooze_until_seconds=4e9)
    )

    async def scenario() -> None:
        run = Running(bundle, tmp_path)
        run.store.save(broken, 1.0)
        await run.supervisor.start()
        await run.until("file", lambda _: closed_alerts(caplog) != [])
        metrics = run.metrics()
        await run.supervisor.stop()
        run.store.database.close()
        assert 'gvvad_alerts_suppressed_total{reason="snoozed",stream="file"} 1.0' in metrics

    asyncio.run(scenario())
    assert "close_threshold (0.95) must be at most" in caplog.text
    assert caplog.text.count("; the default stands in") == 1
