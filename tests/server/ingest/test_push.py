"""Pushed frames, decoded; and what is seen of them without decoding."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from server.ingest.bitstream import has_start_code, is_key_frame, jpeg_size
from server.ingest.push import PushDecoder
from server.preprocess import Preprocessor, PreprocessSpec
from server.pushed import Codec, PushedFrame, PushFormat
from server.streams import Reason, SourceError
from tests.support.cameras import render_clip
from tests.support.pushing import ENCODERS, HEIGHT, WIDTH, raw, units_to_push

SAME = PreprocessSpec(HEIGHT, WIDTH, "squash", "area", "bt601", "declared")
MAX_PIXELS = 10**6


@pytest.mark.parametrize("codec", list(ENCODERS), ids=lambda codec: codec.name)
@pytest.mark.parametrize("level", [0, 16, 128, 235, 255])
def test_a_picture_keeps_its_brightness(codec: Codec, level: int) -> None:
    picture = np.full((HEIGHT, WIDTH, 3), level, np.uint8)
    decoder = PushDecoder(raw(codec), MAX_PIXELS)
    (frame,) = decoder.decode(PushedFrame(ENCODERS[codec](picture), 7_000_000, 1.5))
    assert np.abs(Preprocessor(SAME)(frame.picture).astype(int) - level).max() <= 2
    assert (frame.index, frame.pts_seconds, frame.capture_seconds) == (0, 0.0, 7.0)
    assert frame.arrival_seconds == 1.5


@pytest.mark.parametrize(("codec", "swaps"), [(Codec.RGB24, False), (Codec.BGR24, True)])
def test_colours_have_the_order_that_their_codec_says(codec: Codec, swaps: bool) -> None:
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    picture[:, :, 2 if swaps else 0] = 200
    decoder = PushDecoder(raw(codec), MAX_PIXELS)
    (frame,) = decoder.decode(PushedFrame(picture.tobytes(), 0, 0.0))
    assert Preprocessor(SAME)(frame.picture)[0, 0].tolist() == [200, 0, 0]


@pytest.mark.parametrize("size", [(175, 97), (2, 1), (1, 3)])
@pytest.mark.parametrize("codec", [codec for codec in Codec if codec.is_raw])
def test_a_raw_frame_has_as_many_bytes_as_the_decoder_wants(
    codec: Codec, size: tuple[int, int]
) -> None:
    push = PushFormat(codec, *size)
    decoder = PushDecoder(push, MAX_PIXELS)
    assert len(decoder.decode(PushedFrame(bytes(push.frame_bytes), 0, 0.0))) == 1
    assert decoder.decode(PushedFrame(bytes(push.frame_bytes - 1), 1, 0.0)) == []
    assert decoder.was_damaged


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_access_units_out_of_order_come_out_in_the_order_of_their_times(
    codec: str, tmp_path: Path
) -> None:
    clip = tmp_path / "bframes.mp4"
    write_b_frames(clip, codec)
    units = units_to_push(clip)
    times = [unit.time_microseconds for unit in units]
    assert times != sorted(times)
    push = PushFormat(Codec.H264 if codec == "libx264" else Codec.H265)
    decoder = PushDecoder(push, MAX_PIXELS)
    frames = [frame for unit in units for frame in decoder.decode(unit)] + decoder.flush()
    assert [frame.index for frame in frames] == list(range(30))
    first = units[0].time_microseconds
    assert [round(frame.capture_seconds * 1e6) for frame in frames] == sorted(times)
    assert [frame.pts_seconds for frame in frames] == pytest.approx(
        [(time - first) / 1e6 for time in sorted(times)]
    )


def write_b_frames(clip: Path, codec: str) -> None:
    with av.open(str(clip), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        stream.options = {"bf": "3", "x265-params": "log-level=none:bframes=3:b-adapt=0"}
        for index in range(30):
            picture = np.full((96, 160, 3), index * 8, np.uint8)
            picture[:, index * 4 : index * 4 + 20] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def test_the_first_unit_alone_of_a_group_is_a_key_frame(tmp_path: Path) -> None:
    for codec, pushed in (("libx264", Codec.H264), ("libx265", Codec.H265)):
        units = units_to_push(render_clip(tmp_path / f"{codec}.mp4", seconds=2, codec=codec))
        keys = [index for index, unit in enumerate(units) if is_key_frame(pushed, unit.data)]
        assert keys[0] == 0
        assert len(keys) == 2
        assert 20 < keys[1] <= 25
        assert all(has_start_code(unit.data) for unit in units)
        # Anything may stand there.
        for length in range(60):
            is_key_frame(pushed, units[0].data[:length])


def test_a_jpeg_says_its_size_however_it_was_coded() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (97, 175, 3), np.uint8)
    for flags in ([], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1], [cv2.IMWRITE_JPEG_RST_INTERVAL, 4]):
        data = cv2.imencode(".jpg", picture, flags)[1].tobytes()
        assert jpeg_size(data) == (175, 97)
        header = data.index(b"\xff\xdb")
        assert jpeg_size(data[:header] + b"\xff\xff" + data[header:]) == (175, 97)


def test_what_is_no_jpeg_has_no_size() -> None:
    data = cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))[1].tobytes()
    for broken in (b"", b"\xff\xd8", data[:20], data[2:], bytes(1000), b"\xff" * 1000):
        assert jpeg_size(broken) == (0, 0)


def test_a_jpeg_that_grows_in_mid_call_is_refused() -> None:
    decoder = PushDecoder(PushFormat(Codec.JPEG), 100 * 100)
    small, large = (
        cv2.imencode(".jpg", np.zeros((side, side), np.uint8))[1].tobytes() for side in (100, 101)
    )
    assert len(decoder.decode(PushedFrame(small, 0, 0.0))) == 1
    with pytest.raises(SourceError, match="101x101 pixels is over the limit of 10000") as caught:
        decoder.decode(PushedFrame(large, 1, 0.0))
    assert caught.value.reason is Reason.PICTURE_TOO_LARGE


@pytest.mark.parametrize(
    ("push", "said"),
    [
        ((Codec.RGB24, 0, 48), "must be 1 or more for RGB24"),
        ((Codec.H264, 64, 48), "must be left out for H264"),
    ],
)
def test_a_format_that_makes_no_sense_is_refused(push: tuple[Codec, int, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        PushFormat(*push)
