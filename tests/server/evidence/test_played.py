"""Evidence of files and pushed video, where every time is exact."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from server.alert_records import EvidenceState
from server.evidence.files import EvidenceKind
from server.ingest.access import AccessPolicy
from server.ingest.settings import IngestSettings
from server.pushed import Codec, PushFormat
from server.streams import PUSHED, SourceUrl, StreamConfig
from server.tuning import Mask
from tests.support.cameras import render_clip
from tests.support.disk import largest_file
from tests.support.evidence import SETTLED, Rig, event_of, picture, played, rig, slices
from tests.support.pools import HASTY
from tests.support.pushing import grey_frames, raw, units_to_push

FPS = 25

Played = list[tuple[float, np.ndarray]]


def allowing(folder: Path) -> IngestSettings:
    return replace(HASTY, access=AccessPolicy(file_roots=(folder,)))


def of_file(clip: Path) -> StreamConfig:
    return StreamConfig("file", SourceUrl(f"file://{clip}"))


def assert_same_pictures(copied: Played, source: Played) -> None:
    """Every picture of the clip is the source's of that time; the last may lack some between."""
    by_frame = {round(at * FPS): image for at, image in source}
    assert copied
    for at, image in copied:
        assert abs(at * FPS - round(at * FPS)) < 0.05
        assert np.array_equal(image, by_frame[round(at * FPS)])


def play_two(one: Rig, config: StreamConfig) -> None:
    """Play a lossless stream until two windows wait to be scored."""
    one.pool.add(config)
    one.events.wait_windows(config.stream_id, 2)


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg4"])
def test_a_files_packets_become_a_clip_whatever_their_codec(tmp_path: Path, codec: str) -> None:
    clip = render_clip(tmp_path / "a.mp4", seconds=4.0, codec=codec)
    config = of_file(clip)
    with rig(tmp_path / "kept", allowing(tmp_path)) as one:
        play_two(one, config)
        windows = one.events.wait_windows("file", 2)
        alert = event_of("file", windows, windows[1])
        one.open(config, alert)
        for count in range(3, 7):
            one.pool.acknowledge("file")
            one.events.wait_windows("file", count)
        one.close(config, alert)
        one.pool.acknowledge("file")
        one.pool.acknowledge("file")
        evidence = one.log.wait(alert.alert_id, *SETTLED)
    assert evidence.state is EvidenceState.READY
    path = one.path(alert, EvidenceKind.CLIP)
    pictures, source = played(path), played(clip)
    assert evidence.clip_start_seconds == pytest.approx(windows[0].start_capture_seconds, abs=1e-6)
    assert_same_pictures(pictures, source)
    until = alert.end_seconds + 1.0 - windows[0].start_capture_seconds
    assert pictures[-1][0] >= until - 1.1 / FPS  # a file is read ahead of its scores
    with av.open(str(path)) as container:
        tag = container.streams.video[0].codec_context.codec_tag
    assert tag == {"libx264": "avc1", "libx265": "hvc1"}.get(codec, "mp4v")
    shown = picture(one.path(alert, EvidenceKind.SNAPSHOT)).astype(int)
    errors = [np.abs(shown - other).mean() for _, other in pictures]
    assert int(np.argmin(errors)) == windows[1].end_frame - 1


def test_an_alert_that_opens_after_the_end_of_a_file_has_its_clip(tmp_path: Path) -> None:
    clip = render_clip(tmp_path / "a.mp4", seconds=1.3)
    config = of_file(clip)
    with rig(tmp_path / "kept", allowing(tmp_path)) as one:
        play_two(one, config)
        windows = one.events.wait_windows("file", 2)
        alert = event_of("file", windows, windows[1])
        one.open(config, alert)
        one.close(config, alert)
        one.log.wait(alert.alert_id, *SETTLED)
    assert slices(one.path(alert, EvidenceKind.CLIP)) == slices(clip)


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_pushed_access_units_become_a_clip(tmp_path: Path, codec: str) -> None:
    clip = render_clip(tmp_path / "a.mp4", seconds=2.0, codec=codec)
    frames = units_to_push(clip)
    push = PushFormat({"libx264": Codec.H264, "libx265": Codec.H265}[codec], lossless=False)
    config = StreamConfig("push", SourceUrl(PUSHED))
    with rig(tmp_path / "kept") as one:
        one.pool.add(config, push)
        for frame in frames:
            one.pool.feed("push", frame)
        windows = one.events.wait_windows("push", 1)
        alert = event_of("push", windows[-1:], windows[-1])
        one.open(config, alert)
        one.pool.feed("push", None)
        one.close(config, alert)
        one.pool.remove("push")
        evidence = one.log.wait(alert.alert_id, *SETTLED)
    assert evidence.state is EvidenceState.READY
    assert evidence.clip_start_seconds == frames[0].time_microseconds / 1e6
    pictures, source = played(one.path(alert, EvidenceKind.CLIP)), played(clip)
    assert len(pictures) >= windows[-1].end_frame
    assert_same_pictures(pictures, source)


def test_pushed_pixels_leave_a_snapshot_and_no_clip(tmp_path: Path) -> None:
    config = StreamConfig("push", SourceUrl(PUSHED))
    with rig(tmp_path / "kept") as one:
        one.pool.add(config, raw(Codec.RGB24))
        for frame in grey_frames([90] * 20):
            one.pool.feed("push", frame)
        windows = one.events.wait_windows("push", 1)
        alert = event_of("push", windows, windows[0])
        one.open(config, alert)
        one.close(config, alert)
        evidence = one.log.wait(alert.alert_id, *SETTLED)
    assert (evidence.state, evidence.clip_bytes) == (EvidenceState.READY, 0)
    shown = picture(one.path(alert, EvidenceKind.SNAPSHOT))
    assert abs(int(shown.mean()) - 90) <= 2


def test_a_full_disk_leaves_no_torn_file(tmp_path: Path) -> None:
    clip = render_clip(tmp_path / "a.mp4", seconds=4.0, size=(320, 192))
    config = of_file(clip)
    # The worker inherits the limit: its snapshot fits, its clip does not.
    with largest_file(24_000), rig(tmp_path / "kept", allowing(tmp_path)) as one:
        play_two(one, config)
        windows = one.events.wait_windows("file", 2)
        alert = event_of("file", windows, windows[1])
        one.open(config, alert)
        one.close(config, alert)
        for _ in range(6):
            one.pool.acknowledge("file")
        evidence = one.log.wait(alert.alert_id, *SETTLED)
    assert (evidence.state, evidence.clip_bytes) == (EvidenceState.READY, 0)
    assert evidence.snapshot_bytes > 0
    names = [path.name for path in (tmp_path / "kept" / "file").iterdir()]
    assert names == [f"{alert.alert_id}.jpg"]


def test_a_disk_with_no_room_at_all_is_a_failure(tmp_path: Path) -> None:
    clip = render_clip(tmp_path / "a.mp4", seconds=2.0)
    config = of_file(clip)
    with largest_file(1_500), rig(tmp_path / "kept", allowing(tmp_path)) as one:
        play_two(one, config)
        windows = one.events.wait_windows("file", 2)
        alert = event_of("file", windows, windows[1])
        one.open(config, alert)
        one.close(config, alert)
        for _ in range(6):
            one.pool.acknowledge("file")
        evidence = one.log.wait(alert.alert_id, *SETTLED)
    assert evidence.state is EvidenceState.FAILED
    assert list((tmp_path / "kept" / "file").iterdir()) == []
    assert 'gvvad_evidence_total{outcome="failed"} 1.0' in one.metrics()


def test_masks_of_a_pushed_stream_change_while_a_client_pushes(tmp_path: Path) -> None:
    config = StreamConfig("push", SourceUrl(PUSHED))
    everything = Mask(((0, 0), (1, 0), (1, 1), (0, 1)))
    frames = list(grey_frames([90] * 48))
    with rig(tmp_path / "kept") as one:
        one.pool.add(config, raw(Codec.RGB24))
        for frame in frames[:16]:
            one.pool.feed("push", frame)
        one.events.wait_windows("push", 1)
        one.pool.update(replace(config, masks=(everything,)))
        for frame in frames[16:]:
            one.pool.feed("push", frame)
        one.pool.acknowledge("push")
        windows = one.events.wait_windows("push", 3)
    assert windows[0].images.all()
    assert not windows[2].images.any()
    assert [window.number for window in windows] == [0, 1, 2]
