"""Snapshots: recent frames that were decoded anyway, and how one becomes a JPEG file."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import av

from server.contract import Image
from server.preprocess import Preprocessor, PreprocessSpec
from server.tuning import Mask

LONGEST_SIDE = 1920
QUALITY = 85

BLUR_CELLS = 32
"""Squares of one colour along the longer side of a blurred snapshot.

Someone as tall as a picture of 16:9 has a head of two squares. What people and
their networks still know faces by begins at about ten.
"""

MAX_FRAMES = 4
MAX_FRAME_BYTES = 12_000_000
"""Of all recent frames of a stream; the newest one stays whatever its size."""


@dataclass(frozen=True, slots=True)
class _Shown:
    window_end_seconds: float
    frame: av.VideoFrame
    size_bytes: int


class RecentFrames:
    """The last frame of each recent window, as the decoder gave it."""

    def __init__(self) -> None:
        self._shown: deque[_Shown] = deque(maxlen=MAX_FRAMES)

    def add(self, window_end_seconds: float, frame: av.VideoFrame) -> None:
        """Keep the last frame of the newest window, which ends at this UTC capture time."""
        size_bytes = sum(plane.buffer_size for plane in frame.planes)
        self._shown.append(_Shown(window_end_seconds, frame, size_bytes))
        while len(self._shown) > 1 and sum(one.size_bytes for one in self._shown) > MAX_FRAME_BYTES:
            self._shown.popleft()

    def nearest(self, window_end_seconds: float) -> av.VideoFrame | None:
        """The frame of the window that ends at this time, or of the nearest that is left."""

        def distance_seconds(one: _Shown) -> float:
            return abs(one.window_end_seconds - window_end_seconds)

        return min(self._shown, key=distance_seconds).frame if self._shown else None

    def clear(self) -> None:
        """Let go of all of them."""
        self._shown.clear()


class Photographer:
    """Makes JPEG files of frames. Keeps swscale's context, so use one a thread.

    Args:
        spec: the bundle's, for the colours that the detector sees.
    """

    def __init__(self, spec: PreprocessSpec) -> None:
        self._preprocess = Preprocessor(spec)

    def jpeg(self, frame: av.VideoFrame, masks: tuple[Mask, ...], *, blur: bool) -> bytes:
        """A frame, upright, with the masks painted out, as a JPEG file."""
        self._preprocess.set_masks(masks)
        image = self._preprocess.upright(frame, LONGEST_SIDE)
        return _encoded(coarse(image) if blur else image)


def coarse(image: Image) -> Image:
    """An image (H, W, 3) in squares of one colour, too few to know anybody by."""
    import cv2

    height, width = image.shape[:2]
    scale = min(1.0, BLUR_CELLS / max(height, width))
    cells = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(image, cells, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST).astype(image.dtype)


def _encoded(image: Image) -> bytes:
    # Imported with a worker's first snapshot: until then nothing needs it.
    import cv2

    _, data = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return data.tobytes()
