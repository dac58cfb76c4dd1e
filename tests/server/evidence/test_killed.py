"""kill -9 of the server while it records: its workers notice and leave whole files."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
from pathlib import Path

from server.alert_records import EvidenceState
from server.alerts import Alert
from server.evidence.files import EvidenceKind, evidence_path
from server.evidence.keeper import EvidenceKeeper
from server.evidence.rules import EvidenceRules
from server.telemetry import Telemetry
from tests.support.cameras import render_clip
from tests.support.evidence import MemoryLog, picture, played, until

ROOT = Path(__file__).parents[3]
SERVER = """
import pickle, sys, time
from pathlib import Path
from server.alert_records import EvidenceState
from server.streams import SourceUrl, StreamConfig
from tests.server.evidence.test_played import allowing
from tests.support.evidence import event_of, rig
clip, directory = Path(sys.argv[1]), Path(sys.argv[2])
config = StreamConfig("file", SourceUrl(f"file://{clip}"))
with rig(directory, allowing(clip.parent)) as one:
    one.pool.add(config)
    windows = one.events.wait_windows("file", 2)
    alert = event_of("file", windows, windows[1])
    one.open(config, alert)
    one.log.wait(alert.alert_id, EvidenceState.PENDING)
    sys.stdout.buffer.write(pickle.dumps(alert))
    sys.stdout.buffer.flush()
    time.sleep(60)
"""


def test_a_killed_servers_alert_has_whole_files_and_is_taken_up(tmp_path: Path) -> None:
    clip = render_clip(tmp_path / "a.mp4", seconds=4.0)
    directory = tmp_path / "kept"
    command = [sys.executable, "-c", SERVER, str(clip), str(directory)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        alert: Alert = pickle.load(process.stdout)
        process.send_signal(signal.SIGKILL)
    snapshot, video = (
        evidence_path(directory, "file", alert.alert_id, kind) for kind in EvidenceKind
    )
    until(video.exists, "the worker finished its clip")
    assert len(played(video)) >= 32
    assert picture(snapshot).any()
    log = MemoryLog()
    log.add(alert)
    keeper = EvidenceKeeper(EvidenceRules(directory), Telemetry())
    keeper.start(log, lambda stream_id, order: False)
    evidence = log.wait(alert.alert_id, EvidenceState.READY)
    keeper.stop()
    assert (evidence.snapshot_bytes, evidence.clip_bytes) == (
        snapshot.stat().st_size,
        video.stat().st_size,
    )
