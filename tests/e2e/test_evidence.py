"""Evidence of real cameras: clips copied from their packets, snapshots of their frames."""

from __future__ import annotations

import os
import signal
import stat
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from server.alert_records import EvidenceState
from server.evidence.files import EvidenceKind
from server.ingest.pictures import BLUR_CELLS
from server.streams import StreamConfig
from server.tuning import EvidenceMode, Mask
from server.windows import Window
from tests.support.cameras import RtspServer, render_clip
from tests.support.evidence import SETTLED, Rig, event_of, picture, played, rig, slices
from tests.support.pools import camera

pytestmark = pytest.mark.rtsp

FPS = 25
GROUP_SECONDS = 1.0
WINDOW_SECONDS = 16 / FPS


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_clip(tmp_path_factory.mktemp("live") / "a.mp4", seconds=7.0)


@pytest.fixture(scope="module")
def server(clip: Path) -> Iterator[RtspServer]:
    with RtspServer({"/cam": clip}) as running:
        yield running


def recorded(one: Rig, config: StreamConfig, before: int = 5) -> tuple[list[Window], Window]:
    """An alert from opening to close; its windows, and the one with the peak."""
    windows = one.events.wait_windows(config.stream_id, before)
    first = len(windows) - 1
    one.open(config, event_of(config.stream_id, windows[first:], windows[first]))
    windows = one.events.wait_windows(config.stream_id, first + 3)
    peak = windows[first + 2]
    alert = event_of(config.stream_id, windows[first : first + 3], peak)
    one.hold(config, alert)
    one.close(config, alert)
    return windows[first : first + 3], peak


def test_a_clip_is_the_cameras_own_packets_with_its_rolls(
    server: RtspServer, clip: Path, tmp_path: Path
) -> None:
    config = camera("cam", server.url("/cam"))
    with rig(tmp_path) as one:
        one.pool.add(config)
        windows, peak = recorded(one, config)
        alert = event_of("cam", windows, peak)
        evidence = one.log.wait(alert.alert_id, *SETTLED)
    path = one.path(alert, EvidenceKind.CLIP)
    assert evidence.state is EvidenceState.READY
    assert (evidence.snapshot_bytes, evidence.clip_bytes) == (
        one.path(alert, EvidenceKind.SNAPSHOT).stat().st_size,
        path.stat().st_size,
    )
    assert evidence.clip_start_seconds is not None
    assert evidence.clip_end_seconds is not None
    before = alert.start_seconds - evidence.clip_start_seconds
    after = evidence.clip_end_seconds - alert.end_seconds
    assert 2.0 <= before < 2.0 + GROUP_SECONDS + 0.1
    assert 1.0 - 0.1 <= after <= 1.0
    pictures = played(path)
    length = evidence.clip_end_seconds - evidence.clip_start_seconds
    assert len(pictures) == pytest.approx(length * FPS + 1, abs=4)
    assert pictures[0][0] == 0.0
    # The session's very first packet has no time of its own.
    assert np.allclose(np.diff([at for at, _ in pictures[1:]]), 1 / FPS, atol=2e-3)
    source = slices(clip)
    copied = slices(path)
    begin = source.index(copied[0])
    looped = (source + source)[begin : begin + len(copied)]
    assert copied == looped
    head = path.read_bytes()
    assert head.index(b"moov") < head.index(b"mdat")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_snapshot_shows_the_last_frame_of_the_peaks_window(
    server: RtspServer, tmp_path: Path
) -> None:
    config = camera("cam", server.url("/cam"))
    with rig(tmp_path) as one:
        one.pool.add(config)
        windows, peak = recorded(one, config)
        alert = event_of("cam", windows, peak)
        evidence = one.log.wait(alert.alert_id, *SETTLED)
    assert evidence.clip_start_seconds is not None
    shown = picture(one.path(alert, EvidenceKind.SNAPSHOT)).astype(int)
    pictures = played(one.path(alert, EvidenceKind.CLIP))
    place = peak.end_capture_seconds - evidence.clip_start_seconds
    # The block comes back to the same place every twenty frames, so only near ones are asked.
    near = [(at, other) for at, other in pictures if abs(at - place) < 9 / FPS]
    errors = [np.abs(shown - other).mean() for _, other in near]
    assert near[int(np.argmin(errors))][0] == pytest.approx(place, abs=0.1)
    # JPEG and the detector's own colours cost something; any other frame is further off.
    assert min(errors) + 2 < sorted(errors)[1]


def test_a_picture_can_be_looked_at_while_the_alert_goes_on(
    server: RtspServer, tmp_path: Path
) -> None:
    config = camera("cam", server.url("/cam"))
    with rig(tmp_path) as one:
        one.pool.add(config)
        windows = one.events.wait_windows("cam", 2)
        alert = event_of("cam", windows[-1:], windows[-1])
        one.open(config, alert)
        pending = one.log.wait(alert.alert_id, EvidenceState.PENDING)
        with one.keeper.reader.open(alert.alert_id, EvidenceKind.SNAPSHOT) as file:
            assert len(file.read()) == pending.snapshot_bytes > 0


def test_blur_keeps_squares_and_no_clip(server: RtspServer, tmp_path: Path) -> None:
    config = replace(camera("cam", server.url("/cam")), evidence_mode=EvidenceMode.BLUR)
    with rig(tmp_path) as one:
        one.pool.add(config)
        windows, peak = recorded(one, config, before=2)
        alert = event_of("cam", windows, peak)
        evidence = one.log.wait(alert.alert_id, *SETTLED)
    assert (evidence.state, evidence.clip_bytes) == (EvidenceState.READY, 0)
    assert not one.path(alert, EvidenceKind.CLIP).exists()
    shown = picture(one.path(alert, EvidenceKind.SNAPSHOT)).astype(int)
    # Within a square there is nothing: 160 pixels in 32 squares of 5, edges and JPEG aside.
    side = shown.shape[1] // BLUR_CELLS
    inner = shown[: shown.shape[0] // side * side].reshape(-1, side, BLUR_CELLS, side, 3)
    spread = inner[:, 1:-1, :, 1:-1].std(axis=(1, 3)).mean()
    assert spread < 4


def test_nothing_is_kept_of_a_stream_that_keeps_nothing(server: RtspServer, tmp_path: Path) -> None:
    config = replace(camera("cam", server.url("/cam")), evidence_mode=EvidenceMode.NONE)
    with rig(tmp_path) as one:
        one.pool.add(config)
        windows, peak = recorded(one, config, before=2)
        alert = event_of("cam", windows, peak)
        one.events.wait_windows("cam", 6)
    assert one.log.get(alert.alert_id).evidence.state is EvidenceState.NONE
    assert list(tmp_path.iterdir()) == []


def test_switching_evidence_off_deletes_what_an_open_alert_has(
    server: RtspServer, tmp_path: Path
) -> None:
    config = camera("cam", server.url("/cam"))
    with rig(tmp_path) as one:
        one.pool.add(config)
        windows = one.events.wait_windows("cam", 3)
        alert = event_of("cam", windows[-1:], windows[-1])
        one.open(config, alert)
        one.log.wait(alert.alert_id, EvidenceState.PENDING)
        off = replace(config, evidence_mode=EvidenceMode.NONE)
        one.pool.update(off)
        one.log.wait(alert.alert_id, EvidenceState.NONE)
        assert list((tmp_path / "cam").iterdir()) == []
        count = len(one.events.wait_windows("cam", 5))
        numbers = [window.number for window in one.events.wait_windows("cam", count)]
    assert numbers == list(range(count))  # the camera was never left


def test_masks_change_without_leaving_the_camera(server: RtspServer, tmp_path: Path) -> None:
    config = camera("cam", server.url("/cam"))
    everything = Mask(((0, 0), (1, 0), (1, 1), (0, 1)))
    with rig(tmp_path) as one:
        one.pool.add(config)
        count = len(one.events.wait_windows("cam", 2))
        one.pool.update(replace(config, masks=(everything,)))
        windows = one.events.wait_windows("cam", count + 3)
    assert windows[0].images.any()
    assert not windows[-1].images.any()
    assert [window.number for window in windows] == list(range(len(windows)))


def test_a_snapshot_has_the_masks_painted_out(server: RtspServer, tmp_path: Path) -> None:
    left = Mask(((0, 0), (0.5, 0), (0.5, 1), (0, 1)))
    config = replace(camera("cam", server.url("/cam")), masks=(left,))
    with rig(tmp_path) as one:
        one.pool.add(config)
        windows, peak = recorded(one, config, before=2)
        alert = event_of("cam", windows, peak)
        one.log.wait(alert.alert_id, *SETTLED)
    shown = picture(one.path(alert, EvidenceKind.SNAPSHOT))
    middle = shown.shape[1] // 2
    assert shown[:, : middle - 8].max() < 24
    assert shown[:, middle + 8 :].max() > 40


def test_a_camera_that_breaks_off_leaves_the_clip_so_far(clip: Path, tmp_path: Path) -> None:
    with RtspServer({"/cam": clip}) as server, rig(tmp_path) as one:
        config = camera("cam", server.url("/cam"))
        one.pool.add(config)
        windows = one.events.wait_windows("cam", 5)
        alert = event_of("cam", windows[-1:], windows[-1])
        one.open(config, alert)
        one.log.wait(alert.alert_id, EvidenceState.PENDING)
        one.events.wait_windows("cam", len(windows) + 1)
        server.kill()
        one.close(config, alert)
        evidence = one.log.wait(alert.alert_id, *SETTLED)
    assert evidence.state is EvidenceState.READY
    assert len(played(one.path(alert, EvidenceKind.CLIP))) > 2 * FPS


def test_a_worker_that_dies_leaves_what_was_whole(server: RtspServer, tmp_path: Path) -> None:
    config = camera("cam", server.url("/cam"))
    with rig(tmp_path) as one:
        one.pool.add(config)
        windows = one.events.wait_windows("cam", 3)
        alert = event_of("cam", windows[-1:], windows[-1])
        one.open(config, alert)
        one.log.wait(alert.alert_id, EvidenceState.PENDING)
        os.kill(one.pool.worker_pids()[0], signal.SIGKILL)
        evidence = one.log.wait(alert.alert_id, *SETTLED)
        assert (evidence.state, evidence.clip_bytes) == (EvidenceState.READY, 0)
        names = [path.name for path in (tmp_path / "cam").iterdir()]
        assert names == [f"{alert.alert_id}.jpg"]
        again = time.monotonic()
        one.events.wait_windows("cam", 2, after=again)


def test_an_alert_is_finished_with_the_server(server: RtspServer, tmp_path: Path) -> None:
    config = camera("cam", server.url("/cam"))
    with rig(tmp_path) as one:
        one.pool.add(config)
        windows = one.events.wait_windows("cam", 4)
        alert = event_of("cam", windows[-1:], windows[-1])
        one.open(config, alert)
        one.log.wait(alert.alert_id, EvidenceState.PENDING)
    evidence = one.log.wait(alert.alert_id, *SETTLED)
    assert evidence.state is EvidenceState.READY
    assert len(played(one.path(alert, EvidenceKind.CLIP))) > FPS


@pytest.mark.long
def test_pictures_before_an_event_are_held_until_it_is_an_alert(
    server: RtspServer, tmp_path: Path
) -> None:
    """However long an event must last, its clip begins before it."""
    config = camera("cam", server.url("/cam"))
    with rig(tmp_path, pre_roll_seconds=0.5) as one:
        one.pool.add(config)
        windows = one.events.wait_windows("cam", 3)
        first = windows[-1:]
        one.hold(config, event_of("cam", first, first[0]))
        late = one.events.wait_windows("cam", 13)
        alert = event_of("cam", [*first, late[-1]], first[0])
        one.open(config, alert)
        one.close(config, alert)
        evidence = one.log.wait(alert.alert_id, *SETTLED)
    assert evidence.clip_start_seconds is not None
    assert 0.5 <= alert.start_seconds - evidence.clip_start_seconds < 0.5 + GROUP_SECONDS + 0.1
