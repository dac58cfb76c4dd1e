"""Clips encoded by PyAV whose content is known to the frame."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def write_clip(
    path: Path, images: Iterable[np.ndarray], *, fps: int = 10, codec: str = "libx264"
) -> Path:
    """Encode (H, W, 3) uint8 RGB images; even sizes."""
    with av.open(str(path), "w") as container:
        stream = None
        for index, image in enumerate(images):
            if stream is None:
                stream = container.add_stream(codec, rate=fps)
                stream.height, stream.width = image.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.codec_context.time_base = Fraction(1, fps)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            container.mux(stream.encode(frame))
        if stream is not None:
            container.mux(stream.encode())
    return path


def grey_clip(path: Path, levels: Iterable[int], *, fps: int = 10) -> Path:
    """A clip of flat grey frames, one level in 0..255 a frame."""
    return write_clip(path, (np.full((48, 64, 3), level, np.uint8) for level in levels), fps=fps)
