"""Whether something moves in a window, told from the images that the encoder would see; pure.

Frames are compared by the means of 8x8-pixel blocks: sensor noise averages out, and a
person a few pixels wide still changes some blocks by several levels. What a frame as a
whole gained or lost in light, by an auto exposure say, is taken off first. A window is
held against itself, against the last frame of the window before, and against that of the
last scored one, so that what creeps is seen as well. What is left of the light after all
that passes for motion once, and belongs to the scene as soon as the window is scored.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from server.contract import Image

Blocks = npt.NDArray[np.float32]

BLOCK_PIXELS = 8

LEAST_LEVELS = 2.0
"""A block whose mean changes by less, of 255, does not move, however calm the picture is."""

NOISE_FACTOR = 10.0
"""A block moves that changes by so many times the usual step between two frames.

Measured on rendered scenes with Gaussian noise of 1 to 5 levels a pixel: 8 called up to half
of the still windows moving, 10 one in forty, and both saw the same blocks of 8 pixels move.
"""

MOST_NOISE_LEVELS = 0.8
"""Of a block's mean: the usual step is never taken for more noise than this, or a picture
that moves all over would hide what moves in it."""

NOISE_GROWTH = 1.1
"""A window's usual step may exceed that of the one before by so much, for the same reason;
it may fall at once."""

_LEAST_NOISE_LEVELS = 0.02
# Blocks' means whose outer thirds lie closer together say nothing of a gain.
_LEAST_CONTRAST_LEVELS = 32.0
_CHANNELS = 3


class MotionDetector:
    """Follows one stream, window by window; its memory is two frames of block means."""

    def __init__(self) -> None:
        self._noise_levels: float | None = None
        self.reset()

    def reset(self) -> None:
        """What follows is no continuation: the next window counts as moving."""
        self._scored: Blocks | None = None
        self._last: Blocks | None = None

    def moves(self, images: Image) -> bool:
        """Whether something moved since the window before or the last scored one.

        Args:
            images: (S, H, W, 3) uint8 of the next window.
        """
        means = block_means(images)
        scored, last = self._scored, self._last
        self._last = means[-1]
        if scored is None or last is None:
            return True
        frames = np.concatenate([scored[None], last[None], means])
        frames -= relit(frames, scored)
        steps = np.abs(np.diff(frames[1:], axis=0))
        threshold_levels = max(LEAST_LEVELS, NOISE_FACTOR * self._learn_noise(steps))
        return bool(np.ptp(frames, axis=0).max() > threshold_levels)

    def scored(self) -> None:
        """The window that was just looked at is scored: others are held against it."""
        self._scored = self._last

    def _learn_noise(self, steps: Blocks) -> float:
        noise_levels = min(float(_medians(steps.reshape(1, -1))[0]), MOST_NOISE_LEVELS)
        if self._noise_levels is not None:
            before_levels = max(self._noise_levels, _LEAST_NOISE_LEVELS)
            noise_levels = min(noise_levels, NOISE_GROWTH * before_levels)
        self._noise_levels = noise_levels
        return noise_levels


def block_means(images: Image) -> Blocks:
    """Means of blocks of `BLOCK_PIXELS` squared over all channels.

    Args:
        images: (S, H, W, 3) uint8; a border that fills no block is repeated into one.

    Returns:
        (S, ceil(H / 8) * ceil(W / 8)) float32, 0 to 255.
    """
    size = BLOCK_PIXELS
    missing_rows, missing_columns = -images.shape[1] % size, -images.shape[2] % size
    if missing_rows or missing_columns:
        border = ((0, 0), (0, missing_rows), (0, missing_columns), (0, 0))
        images = np.pad(images, border, mode="edge")
    count, height, width, _ = images.shape
    # Rows first: sums along the memory are many times faster, and 16 bits hold 192 pixels.
    lines = images.reshape(count, height // size, size, width * _CHANNELS)
    rows = lines.sum(axis=2, dtype=np.uint16)
    cells = rows.reshape(count, height // size, width // size, size * _CHANNELS)
    sums = cells.sum(axis=-1, dtype=np.uint16).reshape(count, -1)
    means: Blocks = sums * np.float32(1 / (size * size * _CHANNELS))
    return means


def relit(frames: Blocks, reference: Blocks) -> Blocks:
    """What each frame would be if the reference alone had been lit otherwise.

    Args:
        frames: (F, K) block means.
        reference: (K,) block means.

    Returns:
        (F, K): gain times the reference plus an offset, both of each frame.

    Source: Tukey 1977, Exploratory Data Analysis, the resistant line: through medians of
    the outer thirds, so that what covers less than a sixth of the picture bends nothing.
    Deviation: a gain of 1 where the reference has too little contrast to tell one, and the
    offset is the median of what the gain leaves.
    """
    third = max(1, len(reference) // 3)
    order = np.argsort(reference)
    dark, bright = order[:third], order[-third:]
    contrast = float(_medians(reference[None, bright])[0] - _medians(reference[None, dark])[0])
    gains = np.ones((len(frames), 1), np.float32)
    if contrast >= _LEAST_CONTRAST_LEVELS:
        gains[:, 0] = (_medians(frames[:, bright]) - _medians(frames[:, dark])) / contrast
    scaled = gains * reference
    offsets = _medians(frames - scaled)
    return scaled + offsets[:, None]


def _medians(rows: Blocks) -> Blocks:
    # The upper of the two middle ones where there are two: np.median takes twice as long.
    middle = rows.shape[1] // 2
    medians: Blocks = np.partition(rows, middle, axis=1)[:, middle]
    return medians
