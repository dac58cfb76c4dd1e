"""Recorded clips to frames and windows, and where capture times come from."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Generator
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.container
import numpy as np
import pytest

from server.ingest.turns import Turns
from server.ingest.video import (
    CaptureClock,
    capture_utc_seconds,
    decode,
    decode_file,
    file_windows,
    open_file,
    video_stream,
)
from server.streams import Reason, SourceError
from tests.support.cameras import render_clip
from tests.support.pools import PREPROCESS, WINDOW

NOW = 1_800_000_000.0


def decode_all(
    container: av.container.InputContainer, name: str, on_packet: None, turns: Turns
) -> Generator[object, None, None]:
    return decode(container, video_stream(container, name), on_packet, turns)


def test_every_frame_comes_in_order_with_its_times(tmp_path: Path) -> None:
    started = time.monotonic()
    clip = render_clip(tmp_path / "a.mp4", seconds=1.0)
    with open_file(clip) as container:
        frames = list(decode(container, video_stream(container, str(clip))))
    assert [frame.index for frame in frames] == list(range(25))
    assert [frame.pts_seconds for frame in frames] == pytest.approx([i / 25 for i in range(25)])
    assert all(started < frame.arrival_seconds < time.monotonic() for frame in frames)
    assert all(abs(time.time() - frame.capture_seconds) < 60 for frame in frames)


def test_each_packet_is_told_and_may_end_the_reading(tmp_path: Path) -> None:
    clip = render_clip(tmp_path / "a.mp4", seconds=1.0)
    took: list[float] = []

    def tell(packet: av.Packet[Any], capture_seconds: float, decode_seconds: float) -> None:
        took.append(decode_seconds)
        if len(took) == 5:
            raise SourceError(Reason.STALE, "enough")

    with open_file(clip) as container, pytest.raises(SourceError, match="enough"):
        for _ in decode(container, video_stream(container, str(clip)), tell):
            pass
    assert len(took) == 5
    assert all(seconds >= 0 for seconds in took)


@pytest.mark.parametrize("read", [decode_all, decode_file])
def test_a_turn_lasts_until_the_frames_of_a_packet_were_taken(
    tmp_path: Path, read: Callable[..., Generator[object, None, None]]
) -> None:
    clip, turns = render_clip(tmp_path / "a.mp4", seconds=1.0), Turns()
    with open_file(clip) as container, closing(read(container, "a.mp4", None, turns)) as frames:
        next(frames)
        assert turns.held_seconds > 0.0
        frames.close()
        assert turns.held_seconds == 0.0
    with open_file(clip) as container:
        assert sum(1 for _ in read(container, "a.mp4", None, turns)) == 25
    assert turns.held_seconds == 0.0


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg4"])
def test_a_clip_is_cut_into_windows_whatever_its_codec(tmp_path: Path, codec: str) -> None:
    clip = render_clip(tmp_path / "a.mp4", seconds=2.0, codec=codec)
    windows = list(file_windows(clip, WINDOW, PREPROCESS))
    assert [(window.first_frame, window.end_frame) for window in windows] == [
        (0, 16),
        (16, 32),
        (32, 48),
    ]
    assert windows[0].images.std() > 10


def test_what_is_no_video_is_refused_with_its_reason(tmp_path: Path) -> None:
    text = tmp_path / "notes.mp4"
    text.write_text("not a video")
    for path, reason, words in (
        (tmp_path / "missing.mp4", Reason.NOT_FOUND, "is not a file"),
        (tmp_path, Reason.NOT_FOUND, "is not a file"),
        (text, Reason.CODEC_UNSUPPORTED, "is not a video"),
        (_sound(tmp_path / "sound.wav"), Reason.NO_VIDEO, "has no video stream"),
    ):
        with pytest.raises(SourceError, match=words) as refused:
            open_file(path)
        assert refused.value.reason is reason
        assert str(path) in refused.value.sentence


def test_a_clip_that_breaks_off_gives_the_windows_before(tmp_path: Path) -> None:
    clip = render_clip(tmp_path / "a.ts", seconds=2.0)
    whole = list(file_windows(clip, WINDOW, PREPROCESS))
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size * 2 // 3])
    part = list(file_windows(clip, WINDOW, PREPROCESS))
    assert 0 < len(part) < len(whole)
    assert np.array_equal(part[0].images, whole[0].images)


@pytest.mark.parametrize(
    ("camera_clock_ahead", "expected"),
    [(-0.2, NOW - 0.2), (30.0, NOW + 30.0), (-3600.0, NOW), (7200.0, NOW), (-NOW, NOW)],
)
def test_a_camera_clock_counts_unless_it_was_never_set(
    camera_clock_ahead: float, expected: float
) -> None:
    reference = struct.pack("=qi4x", round((NOW + camera_clock_ahead) * 1e6), 24)
    assert capture_utc_seconds(reference, NOW) == pytest.approx(expected, abs=1e-6)


def test_arrival_is_the_capture_utc_seconds_where_nothing_better_is_known() -> None:
    assert capture_utc_seconds(None, NOW) == NOW


@pytest.mark.parametrize("jump_seconds", [60.0, -30.0])
def test_arrival_is_the_capture_time_from_a_jump_to_the_next_report(jump_seconds: float) -> None:
    clock = CaptureClock()

    def told(pts_seconds: float, mapping_seconds: float, after_seconds: float) -> float:
        captured = struct.pack("=q", round((pts_seconds + mapping_seconds) * 1e6))
        return clock.utc_seconds(pts_seconds, captured, after_seconds, NOW + after_seconds) - NOW

    assert told(1.0, NOW, 1.1) == pytest.approx(1.0)
    assert told(2.0 + jump_seconds, NOW, 2.1) == pytest.approx(2.1)
    assert told(3.0 + jump_seconds, NOW, 3.1) == pytest.approx(3.1)
    assert told(4.0 + jump_seconds, NOW - jump_seconds, 4.1) == pytest.approx(4.0)


def _sound(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        frame.sample_rate, frame.pts, frame.time_base = 8000, 0, Fraction(1, 8000)
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
