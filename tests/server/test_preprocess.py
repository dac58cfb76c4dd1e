"""Frame to model image: colours, views, and the same bytes every time."""

from __future__ import annotations

import gc
from dataclasses import replace

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange

from server.preprocess import Preprocessor, PreprocessSpec

SPEC = PreprocessSpec(24, 32, "squash", "area", "bt601", "declared")


def flat_frame(height: int, width: int, rgb: tuple[int, int, int]) -> av.VideoFrame:
    image = np.empty((height, width, 3), np.uint8)
    image[:] = rgb
    return av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")


@pytest.mark.parametrize("rgb", [(0, 0, 0), (255, 255, 255), (200, 40, 40), (40, 40, 200)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "area"])
def test_flat_colours_survive(rgb: tuple[int, int, int], interpolation: str) -> None:
    spec = replace(SPEC, interpolation=interpolation)
    image = Preprocessor(spec)(flat_frame(480, 640, rgb))
    assert image.shape == (24, 32, 3)
    # Limited-range YUV has 219 steps for 255: two levels at most, there and back.
    assert np.abs(image.astype(int) - rgb).max() <= 2


def test_letterbox_keeps_the_aspect_ratio_on_black() -> None:
    spec = replace(SPEC, view="letterbox", height=32)
    image = Preprocessor(spec)(flat_frame(240, 480, (255, 255, 255)))
    assert image[:8].max() == 0
    assert image[24:].max() == 0
    assert image[8:24].min() >= 250


def test_a_frame_gives_the_same_bytes_from_any_preprocessor() -> None:
    noise = np.random.default_rng(5).integers(0, 256, (270, 480, 3), np.uint8)
    frame = av.VideoFrame.from_ndarray(noise, format="rgb24").reformat(format="yuv420p")
    once = Preprocessor(SPEC)
    once(flat_frame(48, 48, (9, 9, 9)))
    assert np.array_equal(once(frame), Preprocessor(SPEC)(frame))


def test_the_range_follows_the_frame_or_is_overruled() -> None:
    planes = np.full((72, 48), 128, np.uint8)  # Y, U and V of a 48x48 yuv420p frame
    planes[:48] = 126
    frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
    as_limited = pytest.approx((126 - 16) * 255 / 219, abs=1)

    def level(colour_range: str) -> int:
        image = Preprocessor(replace(SPEC, colour_range=colour_range))(frame)
        return int(image[0, 0, 0])

    assert level("declared") == as_limited
    assert level("full") == 126
    frame.color_range = ColorRange.JPEG
    assert level("declared") == 126
    assert level("limited") == as_limited


@pytest.mark.parametrize("pix_fmt", ["gray", "gray10le"])
def test_the_range_of_a_frame_without_colour_is_read_as_that_of_any_other(pix_fmt: str) -> None:
    depth = 4 if pix_fmt == "gray10le" else 1
    luma = np.full((48, 48), 126 * depth, np.uint16 if depth > 1 else np.uint8)
    frame = av.VideoFrame.from_ndarray(luma, format=pix_fmt)
    as_limited = pytest.approx((126 - 16) * 255 / 219, abs=1)

    def level(colour_range: str) -> int:
        return int(Preprocessor(replace(SPEC, colour_range=colour_range))(frame)[0, 0, 1])

    assert level("declared") == as_limited
    assert level("full") == 126
    frame.color_range = ColorRange.JPEG
    assert level("declared") == 126
    assert level("limited") == as_limited


@pytest.mark.parametrize(
    ("field", "value"),
    [("height", 4), ("width", 9999), ("view", "crop"), ("colour_matrix", "bt2020")],
)
def test_a_spec_that_makes_no_sense_is_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        replace(SPEC, **{field: value})


def test_a_frame_is_freed_as_soon_as_nobody_needs_it() -> None:
    def frames() -> int:
        # Not isinstance: it would ask lazy proxies of other libraries for their class.
        return sum(type(thing) is av.VideoFrame for thing in gc.get_objects())

    preprocess = Preprocessor(PreprocessSpec(24, 32, "squash", "area", "bt601", "declared"))
    before = frames()
    gc.disable()
    try:
        for _ in range(20):
            preprocess(av.VideoFrame(64, 48, "yuv420p"))
        # Pictures of a camera are megabytes: they cannot wait for the collector.
        assert frames() <= before + 1
    finally:
        gc.enable()
