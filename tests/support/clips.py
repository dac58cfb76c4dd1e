"""Clips encoded by PyAV whose content is known to the frame."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a clip is encoded.

    Attributes:
        codec: FFmpeg's name of the encoder.
        pix_fmt: FFmpeg's name of the pixel format; "gray" is luma in the limited range.
        options: of the encoder.
        turn_degrees: counter-clockwise, what the file asks a player to do; 0, 90, 180, 270.
        mirrored: the file asks to mirror left and right, after turning.
        first_index: write the index before the pictures, so that a cut file still opens.
    """

    codec: str = "libx264"
    pix_fmt: str = "yuv420p"
    options: dict[str, str] = field(default_factory=dict)
    turn_degrees: int = 0
    mirrored: bool = False
    first_index: bool = False


def write_clip(
    path: Path, images: Iterable[np.ndarray], *, fps: int = 10, codec: str = "libx264"
) -> Path:
    """Encode (H, W, 3) uint8 RGB images; even sizes."""
    clock = Fraction(1, fps)
    timed = ((index * clock, image) for index, image in enumerate(images))
    return write_timed_clip(path, timed, Encoding(codec), clock)


def write_timed_clip(
    path: Path,
    timed_images: Iterable[tuple[Fraction, np.ndarray]],
    encoding: Encoding,
    clock: Fraction,
) -> Path:
    """Encode (H, W, 3) uint8 RGB images, each with its time in seconds, a multiple of `clock`."""
    flags = {"movflags": "faststart"} if encoding.first_index else {}
    with av.open(str(path), "w", options=flags) as container:
        stream = None
        for seconds, image in timed_images:
            if stream is None:
                rate = min(round(1 / clock), 120)
                stream = container.add_stream(encoding.codec, rate=rate, options=encoding.options)
                stream.height, stream.width = image.shape[:2]
                stream.pix_fmt = encoding.pix_fmt
                stream.codec_context.time_base = clock
                if encoding.turn_degrees or encoding.mirrored:
                    stream.set_display_rotation(encoding.turn_degrees, hflip=encoding.mirrored)
            frame = _frame(image, encoding.pix_fmt)
            frame.pts, frame.time_base = round(seconds / clock), clock
            container.mux(stream.encode(frame))
        if stream is not None:
            container.mux(stream.encode())
    return path


def _frame(image: np.ndarray, pix_fmt: str) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    if pix_fmt != "gray":
        return frame
    luma = frame.reformat(format="yuv420p").to_ndarray()[: image.shape[0]]
    return av.VideoFrame.from_ndarray(luma, format="gray")


def grey_clip(path: Path, levels: Iterable[int], *, fps: int = 10) -> Path:
    """A clip of flat grey frames, one level in 0..255 a frame."""
    return write_clip(path, (np.full((48, 64, 3), level, np.uint8) for level in levels), fps=fps)
