"""Regions painted out: nothing of them is left, and nothing else is touched."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.contract import WindowSpec
from server.ingest.video import file_windows
from server.masks import MaskPainter, Place
from server.preprocess import Preprocessor, PreprocessSpec
from server.tuning import Mask
from tests.support.clips import Encoding, write_timed_clip

SQUASH = PreprocessSpec(48, 64, "squash", "area", "bt601", "declared")
LETTERBOX = PreprocessSpec(64, 64, "letterbox", "area", "bt601", "declared")
LEFT_HALF = Mask(((0, 0), (0.5, 0), (0.5, 1), (0, 1)))
TOP_LEFT = Mask(((0, 0), (0.5, 0), (0.5, 0.5), (0, 0.5)))

unit = st.integers(0, 1000).map(lambda thousandth: thousandth / 1000)
masks = st.lists(
    st.lists(st.tuples(unit, unit), min_size=3, max_size=8).map(lambda c: Mask(tuple(c))),
    min_size=1,
    max_size=4,
)


def inside(mask: Mask, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether places lie within a polygon, by the even-odd rule, apart from OpenCV."""
    found = np.zeros(x.shape, bool)
    for (x1, y1), (x2, y2) in zip(mask.corners, (*mask.corners[1:], mask.corners[0]), strict=True):
        if y1 == y2:
            continue
        crosses = (y1 > y) != (y2 > y)
        found ^= crosses & (x < (x2 - x1) * (y - y1) / (y2 - y1) + x1)
    return found


def distance(mask: Mask, x: np.ndarray, y: np.ndarray, scale: tuple[float, float]) -> np.ndarray:
    """Distance of places to a polygon's outline, in pixels."""
    best = np.full(x.shape, np.inf)
    for a, b in zip(mask.corners, (*mask.corners[1:], mask.corners[0]), strict=True):
        ax, ay, bx, by = a[0] * scale[0], a[1] * scale[1], b[0] * scale[0], b[1] * scale[1]
        px, py, dx, dy = x * scale[0] - ax, y * scale[1] - ay, bx - ax, by - ay
        length = dx * dx + dy * dy
        along = np.clip((px * dx + py * dy) / length, 0, 1) if length else 0.0
        best = np.minimum(best, np.hypot(px - along * dx, py - along * dy))
    return best


@given(
    masks,
    st.builds(Place, st.integers(0, 6), st.integers(0, 6), st.integers(8, 40), st.integers(8, 40)),
    st.integers(0, 2**32 - 1),
)
@example([LEFT_HALF], Place(0, 0, 8, 8), 0)
@example([Mask(((0.0, 0.116), (0.0, 0.161), (0.21, 0.005)))], Place(0, 0, 26, 24), 0)
def test_nothing_inside_is_left_and_nothing_outside_is_touched(
    given_masks: list[Mask], place: Place, seed: int
) -> None:
    before = np.random.default_rng(seed).integers(1, 256, (48, 48, 3), np.uint8)
    image = before.copy()
    MaskPainter(given_masks).paint(image, place)
    rows, columns = np.mgrid[0:48, 0:48]
    x = (columns + 0.5 - place.left) / place.width
    y = (rows + 0.5 - place.top) / place.height
    scale = (place.width, place.height)
    away = np.min([distance(mask, x, y, scale) for mask in given_masks], axis=0)
    within = np.any([inside(mask, x, y) for mask in given_masks], axis=0)
    # What lies beside an outline goes as well: rather too much than too little.
    assert not image[within & (away > 0.01)].any()
    far = ~within & (away > 2.5)
    assert np.array_equal(image[far], before[far])
    changed = (image != before).any(axis=2)
    assert not image[changed].any()


def noise_frame(height: int, width: int, seed: int = 0) -> av.VideoFrame:
    image = np.random.default_rng(seed).integers(40, 220, (height, width, 3), np.uint8)
    return av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")


@pytest.mark.parametrize("spec", [SQUASH, LETTERBOX])
@pytest.mark.parametrize("size", [(96, 128), (128, 96), (90, 160)])
def test_what_the_detector_sees_lacks_the_mask_and_nothing_else(
    spec: PreprocessSpec, size: tuple[int, int]
) -> None:
    frame = noise_frame(*size)
    plain = Preprocessor(spec)(frame)
    masked = Preprocessor(spec, (LEFT_HALF,))(frame)
    lit = np.flatnonzero(plain.any(axis=(0, 2)))
    middle = (lit[0] + lit[-1] + 1) // 2
    assert not masked[:, :middle].any()
    assert np.array_equal(masked[:, middle + 2 :], plain[:, middle + 2 :])


def test_a_mask_follows_the_picture_as_it_is_turned(tmp_path: Path) -> None:
    """Corners count in the upright picture, which is what people draw them on."""
    images = np.full((4, 48, 64, 3), 200, np.uint8)
    clip = write_timed_clip(
        tmp_path / "turned.mp4",
        ((Fraction(number, 10), image) for number, image in enumerate(images)),
        Encoding(turn_degrees=90),
        Fraction(1, 10),
    )
    with av.open(str(clip)) as container:
        frame = next(container.decode(video=0))
        shown = Preprocessor(SQUASH, (TOP_LEFT,)).upright(frame, 1920)
        seen = Preprocessor(SQUASH, (TOP_LEFT,))(frame)
    assert shown.shape == (64, 48, 3)
    assert not shown[:31, :23].any()
    assert shown[34:].all()
    assert shown[:, 26:].all()
    assert not seen[:23, :31].any()
    assert seen[26:].all()


def test_recorded_clips_are_masked_alike(tmp_path: Path) -> None:
    images = np.random.default_rng(1).integers(30, 250, (20, 48, 64, 3), np.uint8)
    clip = write_timed_clip(
        tmp_path / "a.mp4",
        ((Fraction(number, 10), image) for number, image in enumerate(images)),
        Encoding(),
        Fraction(1, 10),
    )
    window = WindowSpec(4, None)
    (plain,) = file_windows(clip, window, SQUASH)
    (masked,) = file_windows(clip, window, SQUASH, (LEFT_HALF,))
    assert not masked.images[:, :, :32].any()
    assert np.array_equal(masked.images[:, :, 34:], plain.images[:, :, 34:])


def test_other_masks_hold_from_the_next_frame_on() -> None:
    render = Preprocessor(SQUASH)
    frame = noise_frame(48, 64)
    plain = render(frame)
    render.set_masks((LEFT_HALF,))
    masked = render(frame)
    render.set_masks(())
    assert not masked[:, :31].any()
    assert np.array_equal(render(frame), plain)
