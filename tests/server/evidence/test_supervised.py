"""From scores to evidence with the real supervisor, engine and workers; no hand in between."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from server.alert_records import AlertChange, AlertRecord, ChangeKind, EvidenceState
from server.alerts import AlertDefaults
from server.app import model_info
from server.batcher import BatchSettings
from server.contract import WindowSpec
from server.desk import AlertDesk
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
from server.store.alerts import AlertLog
from server.store.database import Database
from server.store.streams import StreamStore
from server.streams import SourceUrl, StreamConfig
from server.supervision import SupervisorSettings
from server.supervisor import Supervisor
from server.telemetry import Telemetry
from server.tuning import EvidenceMode
from tests.support.clips import grey_clip
from tests.support.evidence import picture, played
from tests.support.tiny_bundle import make_tiny_bundle

DARK, BRIGHT, BRIGHTEST = 26, 180, 250


@dataclass
class Supervised:
    """A supervisor whose alerts are written down, with its evidence."""

    supervisor: Supervisor
    keeper: EvidenceKeeper
    desk: AlertDesk

    async def start(self) -> None:
        self.desk.start()
        self.keeper.start(self.desk, self.supervisor.direct)
        await self.supervisor.start()

    async def stop(self) -> None:
        await self.supervisor.stop()
        self.keeper.stop()
        self.desk.stop()


def supervised(tmp_path: Path, rules: EvidenceRules) -> Supervised:
    bundle = make_tiny_bundle(tmp_path / "bundle", window=WindowSpec(4, 10.0))
    access = AccessPolicy(file_roots=(tmp_path,))
    telemetry, database = Telemetry(), Database("sqlite://")
    keeper = EvidenceKeeper(rules, telemetry)
    desk = AlertDesk(AlertLog(database), telemetry, [keeper.committed])
    detector = OnnxDetector(bundle, EngineOptions(threads=1))
    supervisor = Supervisor(
        detector,
        model_info(bundle, detector),
        SupervisorSettings(
            BatchSettings(), AlertDefaults(merge_gap_seconds=0), 2, access, PushLimits()
        ),
        store=StreamStore(database),
        telemetry=telemetry,
        keeper=keeper,
        scores=Hub(),
        desk=desk,
        make_pool=lambda take: IngestPool(
            IngestSettings(workers=1, access=access, evidence=rules),
            bundle.manifest.window,
            bundle.manifest.preprocess,
            take,
        ),
    )
    return Supervised(supervisor, keeper, desk)


async def told(desk: AlertDesk, *kinds: ChangeKind) -> list[AlertChange]:
    """The log of changes, once it has these."""
    async with asyncio.timeout(20):
        while [change.kind for change in desk.log.changes(0, None, 9)] != [*kinds]:
            await asyncio.sleep(0.05)
    return desk.log.changes(0, None, 9)


def test_an_alert_of_a_file_gets_its_peaks_picture_and_its_clip(tmp_path: Path) -> None:
    levels = [DARK] * 48 + [BRIGHT] * 32 + [BRIGHTEST] * 32 + [DARK] * 64
    clip = grey_clip(tmp_path / "event.mp4", levels)
    rules = EvidenceRules(tmp_path / "kept", pre_roll_seconds=1, post_roll_seconds=1)
    running = supervised(tmp_path, rules)

    async def scenario() -> AlertRecord:
        await running.start()
        await running.supervisor.create(StreamConfig("file", SourceUrl(f"file://{clip}")))
        kinds = (ChangeKind.OPENED, ChangeKind.CLOSED, ChangeKind.EVIDENCE)
        changes = await told(running.desk, *kinds)
        await running.stop()
        return changes[-1].record

    record = asyncio.run(scenario())
    alert, evidence = record.alert, record.evidence
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
