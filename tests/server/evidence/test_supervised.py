"""From scores to evidence with the real supervisor, engine and workers; no hand in between."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from server.alert_records import EvidenceState
from server.alerts import Alert
from server.app import model_info
from server.batcher import BatchSettings
from server.contract import WindowSpec
from server.engine.onnxruntime import EngineOptions, OnnxDetector
from server.evidence.files import EvidenceKind, evidence_path
from server.evidence.keeper import EvidenceKeeper
from server.evidence.place import beside
from server.evidence.rules import EvidenceRules
from server.hub import Hub
from server.ingest.access import AccessPolicy
from server.ingest.pool import IngestPool
from server.ingest.settings import IngestSettings
from server.push import PushLimits
from server.settings import load_settings
from server.store.database import Database
from server.store.streams import StreamStore
from server.streams import SourceUrl, StreamConfig
from server.supervision import SupervisorSettings
from server.supervisor import Supervisor
from server.telemetry import Telemetry
from server.tuning import EvidenceMode
from tests.support.clips import grey_clip
from tests.support.evidence import SETTLED, MemoryLog, picture, played
from tests.support.tiny_bundle import make_tiny_bundle

DARK, BRIGHT, BRIGHTEST = 26, 180, 250


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


def supervised(tmp_path: Path, rules: EvidenceRules) -> tuple[Supervisor, EvidenceKeeper]:
    bundle = make_tiny_bundle(tmp_path / "bundle", window=WindowSpec(4, 10.0))
    access = AccessPolicy(file_roots=(tmp_path,))
    telemetry = Telemetry()
    keeper = EvidenceKeeper(rules, telemetry)
    detector = OnnxDetector(bundle, EngineOptions(threads=1))
    supervisor = Supervisor(
        detector,
        model_info(bundle, detector),
        SupervisorSettings(BatchSettings(), 0.8, 2.0, 2, access, PushLimits()),
        store=StreamStore(Database("sqlite://")),
        telemetry=telemetry,
        keeper=keeper,
        hubs=(Hub(), Hub()),
        make_pool=lambda take: IngestPool(
            IngestSettings(workers=1, access=access, evidence=rules),
            bundle.manifest.window,
            bundle.manifest.preprocess,
            take,
        ),
    )
    return supervisor, keeper


def test_an_alert_of_a_file_gets_its_peaks_picture_and_its_clip(
    tmp_path: Path, log: MemoryLog
) -> None:
    levels = [DARK] * 48 + [BRIGHT] * 32 + [BRIGHTEST] * 32 + [DARK] * 64
    clip = grey_clip(tmp_path / "event.mp4", levels)
    rules = EvidenceRules(tmp_path / "kept", pre_roll_seconds=1, post_roll_seconds=1)
    supervisor, keeper = supervised(tmp_path, rules)

    async def scenario() -> Alert:
        keeper.start(log, supervisor.direct)
        async with supervisor.alerts.subscribe() as alerts:
            await supervisor.start()
            await supervisor.create(StreamConfig("file", SourceUrl(f"file://{clip}")))
            async with asyncio.timeout(20):
                _, opened = await anext(alerts)
                keeper.committed(log.add(opened))
                _, closed = await anext(alerts)
            await asyncio.to_thread(log.wait, closed.alert_id, *SETTLED)
        await supervisor.stop()
        keeper.stop()
        return closed

    alert = asyncio.run(scenario())
    evidence = log.get(alert.alert_id).evidence
    assert evidence.state is EvidenceState.READY
    paths = {
        kind: evidence_path(tmp_path / "kept", "file", alert.alert_id, kind)
        for kind in EvidenceKind
    }
    # The peak comes after the opening; the picture is of the brightest.
    assert alert.peak_score > 0.8
    assert abs(int(picture(paths[EvidenceKind.SNAPSHOT]).mean()) - BRIGHTEST) <= 4
    assert evidence.clip_start_seconds is not None
    assert evidence.clip_start_seconds <= alert.start_seconds - 1
    means = [image.mean() for _, image in played(paths[EvidenceKind.CLIP])]
    assert min(means[:10]) < 60 < 240 < max(means)
    assert [what.state for _, what in log.history] == [EvidenceState.PENDING, EvidenceState.READY]


def test_evidence_lies_beside_the_store_unless_told_otherwise() -> None:
    assert beside("sqlite:///data/gvvad.db") == Path("data/gvvad-evidence")
    assert beside("sqlite://") is None
    assert beside("postgresql://joe@db/gvvad") == Path("gvvad-evidence")
    rules = load_settings(None, {"evidence.mode": "blur"}, {}).evidence.to_rules("sqlite://")
    assert (rules.mode, rules.directory) == (EvidenceMode.BLUR, None)
    given = load_settings(None, {"evidence.directory": "/mnt/kept"}, {}).evidence
    assert given.to_rules("sqlite://").directory == Path("/mnt/kept")


def test_without_a_directory_nothing_is_kept_whatever_a_stream_asks() -> None:
    config = StreamConfig("cam", SourceUrl("rtsp://a/b"), evidence_mode=EvidenceMode.KEEP)
    assert EvidenceRules().mode_of(config) is EvidenceMode.NONE
    assert EvidenceRules(Path("kept")).mode_of(config) is EvidenceMode.KEEP
