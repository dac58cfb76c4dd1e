"""What the server does about evidence: the log, the disk, retention, starts after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.alert_records import Evidence, EvidenceState
from server.alerts import Alert, AlertState
from server.evidence import keeper
from server.evidence.files import (
    EvidenceKind,
    KeptFiles,
    evidence_path,
    kept_files,
    new_file,
    prepare,
)
from server.evidence.keeper import EvidenceError, EvidenceKeeper
from server.evidence.retention import Expiry, expired
from server.evidence.rules import EvidenceRules
from server.ingest.orders import (
    DropEvidence,
    EvidenceOrder,
    EvidenceReport,
    FinishEvidence,
    HoldEvidence,
    KeepEvidence,
)
from server.store.database import StoreError
from server.streams import SourceUrl, StreamConfig
from server.telemetry import Telemetry
from server.tuning import EvidenceMode
from tests.support.backend import an_alert
from tests.support.cameras import render_clip
from tests.support.evidence import MemoryLog, played, until

CAM = StreamConfig("cam", SourceUrl("rtsp://127.0.0.1/cam"))
DAY = 86_400.0
IDS = ["0123456789abcdef", "1123456789abcdef", "2123456789abcdef", "3123456789abcdef"]


class Kept:
    """A keeper over a folder, and the orders that it gave."""

    def __init__(self, directory: Path, **rules: object) -> None:
        self.log = MemoryLog()
        self.orders: list[EvidenceOrder] = []
        self.telemetry = Telemetry()
        self.rules = replace(EvidenceRules(directory=directory), **rules)
        self.keeper = EvidenceKeeper(self.rules, self.telemetry)

    def start(self) -> None:
        self.keeper.start(self.log, self._take)

    def _take(self, stream_id: str, order: EvidenceOrder) -> bool:
        assert stream_id == "cam"
        self.orders.append(order)
        return True


def put(directory: Path, alert_id: str, size: int = 10, age_seconds: float = 0.0) -> None:
    for kind in EvidenceKind:
        path = evidence_path(directory, "cam", alert_id, kind)
        with new_file(path) as file:
            file.write(bytes(size))
        at = time.time() - age_seconds
        os.utime(path, (at, at))


def closed(alert: Alert) -> Alert:
    return replace(alert, state=AlertState.CLOSED)


def test_an_event_is_held_then_kept_then_finished(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    kept.start()
    event = an_alert("cam")
    one = kept.keeper
    one.watch(CAM, event)
    one.watch(CAM, event)  # no higher peak: nothing to say
    higher = replace(event, peak_seconds=event.peak_seconds + 1)
    one.watch(CAM, higher)
    one.changed(higher)
    one.watch(CAM, None)
    one.changed(closed(event))
    begin = event.start_seconds - 5.0
    assert kept.orders == [
        HoldEvidence(event.alert_id, begin, event.peak_seconds),
        HoldEvidence(event.alert_id, begin, higher.peak_seconds),
        KeepEvidence(event.alert_id, begin, higher.peak_seconds),
        FinishEvidence(event.alert_id, event.end_seconds + 5.0),
    ]
    one.stop()


def test_an_event_that_becomes_no_alert_is_dropped(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    kept.start()
    event = an_alert("cam")
    kept.keeper.watch(CAM, event)
    kept.keeper.watch(CAM, None)
    assert kept.orders[1:] == [DropEvidence(event.alert_id)]
    kept.keeper.stop()


def test_a_stream_that_keeps_nothing_gives_no_orders(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    kept.start()
    event = an_alert("cam")
    kept.keeper.watch(replace(CAM, evidence_mode=EvidenceMode.NONE), event)
    kept.keeper.changed(event)
    kept.keeper.changed(closed(event))
    assert kept.orders == []
    kept.keeper.stop()


def test_evidence_is_told_only_of_an_alert_that_was_written_down(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    kept.start()
    event = an_alert("cam")
    kept.keeper.watch(CAM, event)
    kept.keeper.changed(event)
    kept.keeper.report(EvidenceReport("cam", event.alert_id, False, snapshot_bytes=7))
    kept.keeper.report(EvidenceReport("cam", event.alert_id, True, 7, 9, 1.0, 2.0))
    kept.keeper.committed(kept.log.add(event))
    assert kept.log.wait(event.alert_id, EvidenceState.READY) == Evidence(
        EvidenceState.READY, 7, 9, 1.0, 2.0
    )
    kept.keeper.stop()


def test_a_worker_that_says_nothing_more_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "GRACE_SECONDS", 0.1)
    kept = Kept(tmp_path, post_roll_seconds=0.0)
    kept.start()
    event = an_alert("cam")
    kept.keeper.watch(CAM, event)
    kept.keeper.changed(event)
    kept.keeper.committed(kept.log.add(event))
    kept.keeper.watch(CAM, None)
    kept.keeper.changed(closed(event))
    kept.log.wait(event.alert_id, EvidenceState.FAILED)
    kept.keeper.stop()


class FailingLog(MemoryLog):
    """A log whose store cannot be written at first."""

    failures = 2

    def set_evidence(self, alert_id: str, evidence: Evidence) -> None:
        if self.failures:
            self.failures -= 1
            raise StoreError("the disk of the store is full")
        super().set_evidence(alert_id, evidence)


def test_what_the_store_does_not_take_is_said_again(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    kept.log = FailingLog()
    kept.start()
    event = an_alert("cam")
    kept.keeper.watch(CAM, event)
    kept.keeper.changed(event)
    kept.keeper.committed(kept.log.add(event))
    kept.keeper.report(EvidenceReport("cam", event.alert_id, True, 7, 9, 1.0, 2.0))
    kept.log.wait(event.alert_id, EvidenceState.READY)
    kept.keeper.stop()


def test_a_full_disk_keeps_nothing_new_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = Kept(tmp_path, min_free_mb=10**9)
    kept.start()
    until(lambda: "nothing new is kept" in caplog.text, "the disk was looked at")
    for number in IDS[:2]:
        alert = replace(an_alert("cam"), alert_id=number)
        kept.keeper.watch(CAM, alert)
        kept.keeper.changed(alert)
        kept.keeper.committed(kept.log.add(alert))
        kept.log.wait(number, EvidenceState.FAILED)
    assert kept.orders == []
    assert caplog.text.count("nothing new is kept") == 1
    kept.keeper.stop()


def test_what_a_killed_server_left_is_written_down_at_the_next_start(tmp_path: Path) -> None:
    put(tmp_path, IDS[0])
    scratch = tmp_path / "cam" / f".{IDS[1]}.mp4.part"
    scratch.write_bytes(b"half")
    kept = Kept(tmp_path)
    kept.log.add(replace(an_alert("cam"), alert_id=IDS[0]))
    kept.start()
    found = kept.log.wait(IDS[0], EvidenceState.READY)
    assert (found.snapshot_bytes, found.clip_bytes) == (10, 10)
    assert not scratch.exists()
    kept.keeper.stop()


def test_age_and_bytes_end_evidence_the_oldest_first(tmp_path: Path) -> None:
    for place, alert_id in enumerate(IDS):
        put(tmp_path, alert_id, size=400_000, age_seconds=(3 - place) * DAY)
    kept = Kept(tmp_path, max_days=2.5, max_mb=2)
    for alert_id in IDS:
        kept.log.add(replace(an_alert("cam"), alert_id=alert_id))
    kept.start()
    for alert_id in IDS[:2]:
        kept.log.wait(alert_id, EvidenceState.DELETED)
    for alert_id in IDS[2:]:
        kept.log.wait(alert_id, EvidenceState.READY)
    assert {files.alert_id for files in kept_files(tmp_path)} == set(IDS[2:])
    kept.keeper.stop()
    registry = kept.telemetry.registry
    for reason in ("age", "space"):
        labels = {"reason": reason}
        assert registry.get_sample_value("gvvad_evidence_deleted_total", labels) == 2.0
    assert registry.get_sample_value("gvvad_evidence_bytes") == 1_600_000


def test_a_directory_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    kept = Kept(tmp_path / "file" / "below")
    with pytest.raises(EvidenceError, match=r"evidence\.directory .*below cannot be used"):
        kept.start()


@pytest.mark.parametrize("alert_id", ["../../etc/passwd", "0123", "", "0123456789ABCDEF"])
def test_no_id_leads_out_of_the_directory(tmp_path: Path, alert_id: str) -> None:
    with pytest.raises(ValueError, match="must be ids"):
        evidence_path(tmp_path, "cam", alert_id, EvidenceKind.CLIP)
    with pytest.raises(ValueError, match="must be ids"):
        evidence_path(tmp_path, f"{alert_id}/..", IDS[0], EvidenceKind.CLIP)


def some_files(sizes: Sequence[tuple[int, float]]) -> list[KeptFiles]:
    return [
        KeptFiles("cam", f"{place:016x}", {EvidenceKind.CLIP: size}, written)
        for place, (size, written) in enumerate(sizes)
    ]


@given(
    st.lists(st.tuples(st.integers(1, 100), st.floats(0, 1000)), max_size=20),
    st.floats(1, 1000),
    st.integers(1, 1000),
)
def test_what_is_left_is_young_fits_and_is_the_newest(
    sizes: list[tuple[int, float]], max_seconds: float, max_bytes: int
) -> None:
    files = some_files(sizes)
    gone = expired(files, 1000.0, max_seconds, max_bytes)
    left = [one for one in files if one not in [entry.files for entry in gone]]
    assert sum(one.size_bytes for one in left) <= max_bytes
    assert all(1000.0 - one.written_seconds <= max_seconds for one in left)
    newest_gone = max((entry.files.written_seconds for entry in gone), default=0.0)
    assert all(one.written_seconds >= newest_gone for one in left)
    for entry in gone:
        assert (1000.0 - entry.files.written_seconds > max_seconds) == (entry.reason is Expiry.AGE)


WRITER = """
import sys
from pathlib import Path
import av
from server.evidence.files import EvidenceKind, evidence_path, new_file
from server.ingest.clip import ClipWriter
from server.ingest.packets import ClipFormat, Unit
directory, clip = Path(sys.argv[1]), sys.argv[2]
with av.open(clip) as container:
    stream = container.streams.video[0]
    form = ClipFormat.of(stream)
    units = [
        Unit(p, p.size, p.is_keyframe, p.pts, p.dts, 0.0) for p in container.demux(stream) if p.size
    ]
for number in range(10**6):
    for kind in EvidenceKind:
        path = evidence_path(directory, "cam", f"{number:016x}", kind)
        if kind is EvidenceKind.CLIP:
            writer = ClipWriter(path, form, 10**9)
            writer.add(units)
            writer.finish()
        else:
            with new_file(path) as file:
                file.write(bytes(100_000))
    print(number, flush=True)
"""


@pytest.mark.long
def test_whenever_a_writer_is_killed_its_files_are_whole_or_absent(tmp_path: Path) -> None:
    clip = render_clip(tmp_path / "a.mp4", seconds=2.0)
    frames = len(played(clip))
    directory = tmp_path / "kept"
    prepare(directory)
    for _ in range(8):
        command = [sys.executable, "-c", WRITER, str(directory), str(clip)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for _ in range(3):
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)
        newest = sorted(kept_files(directory), key=lambda files: files.alert_id)[-2:]
        for files in newest:
            for kind in files.sizes:
                path = evidence_path(directory, "cam", files.alert_id, kind)
                if kind is EvidenceKind.CLIP:
                    assert len(played(path)) == frames
                else:
                    assert path.stat().st_size == 100_000
        prepare(directory)
        assert list(directory.glob("*/.*")) == []
