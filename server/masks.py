"""Regions painted out of a picture; pure.

They become black, as the bars of a letterbox are: the encoder knows black as a
place where nothing is. A mean of the picture would move with it, and would tell
something of what it hides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from server.contract import Image
from server.tuning import Mask

_FRACTION_BITS = 8
_BLACK = (0, 0, 0)


@dataclass(frozen=True, slots=True)
class Place:
    """Where in an image the camera's picture stands, in pixels."""

    top: int
    left: int
    height: int
    width: int


class MaskPainter:
    """Paints the same regions out of one picture after the other.

    Args:
        masks: the regions; each is filled by itself, so that they may overlap.
    """

    def __init__(self, masks: Sequence[Mask]) -> None:
        self._masks = tuple(masks)
        self._drawn: tuple[tuple[int, ...], Place] | None = None
        self._kept: Image | None = None

    def paint(self, image: Image, place: Place) -> None:
        """Paint the regions, and a pixel or two around them, out of an image (H, W, 3) in place."""
        if not self._masks:
            return
        if self._drawn != (image.shape, place):
            self._drawn, self._kept = (image.shape, place), self._draw(image.shape, place)
        assert self._kept is not None
        np.bitwise_and(image, self._kept, out=image)

    def _draw(self, shape: tuple[int, ...], place: Place) -> Image:
        """255 where a pixel stays and 0 where it goes, in the image's shape."""
        # Only where there are masks: a decode worker would carry it for nothing.
        import cv2

        kept = np.full(shape, 255, np.uint8)
        scale = np.array([place.width, place.height])
        for mask in self._masks:
            # A pixel's centre has whole numbers, its left edge half of one less.
            corners = np.array(mask.corners) * scale + (place.left - 0.5, place.top - 0.5)
            fixed = np.rint(corners * (1 << _FRACTION_BITS)).astype(np.int32)
            cv2.fillPoly(kept, [fixed], _BLACK, shift=_FRACTION_BITS)
            # Filling alone leaves pixels at the outline that lie within for the most part.
            cv2.polylines(kept, [fixed], True, _BLACK, 2, shift=_FRACTION_BITS)
        return kept
