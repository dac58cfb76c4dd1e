"""What a camera plays that changes while it plays: its rate, its clock, its codec, key frames."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

_FPS = 25
_PARAMETER_SETS = {"h264": range(7, 9), "h265": range(32, 35)}
_OPTIONS = {
    "h264": {"preset": "veryfast", "tune": "zerolatency"},
    "h265": {"preset": "ultrafast", "tune": "zerolatency", "x265-params": "log-level=none"},
    "mjpeg": {"huffman": "default"},  # RTP carries no Huffman tables
}
_ENCODERS = {"h264": "libx264", "h265": "libx265", "mjpeg": "mjpeg"}


@dataclass(frozen=True)
class Footage:
    """Encoded frames in a file, each after its length in four bytes.

    Attributes:
        units: the file.
        codec: "h264", "h265" or "mjpeg".
        parameter_sets: what a decoder must know before any frame.
    """

    units: Path
    codec: str
    parameter_sets: bytes


@dataclass(frozen=True)
class Part:
    """A stretch of a camera's program.

    Attributes:
        footage: played over and over.
        seconds: how long; the last part of a program goes on for ever.
        fps: frames a second that are sent.
        jump_seconds: by how much the camera's clock jumps before the first frame.
        still: whether the camera's clock stands still meanwhile.
    """

    footage: Footage
    seconds: float = 1.0
    fps: float = _FPS
    jump_seconds: float = 0.0
    still: bool = False

    def plan(self) -> dict[str, object]:
        """The part as gst_program.py reads it."""
        return {
            "units": str(self.footage.units),
            "codec": self.footage.codec,
            "parameter_sets": self.footage.parameter_sets.hex(),
            "frames": max(1, round(self.seconds * self.fps)),
            "fps": self.fps,
            "jump_seconds": self.jump_seconds,
            "still": self.still,
        }


def film(
    units: Path, codec: str = "h264", *, seconds: float = 2.0, key_frames: bool = True
) -> Footage:
    """Encode a bright block that moves over dark noise, a key frame a second.

    Without key frames there is one at the beginning, which is left out.
    """
    context = av.CodecContext.create(_ENCODERS[codec], "w")
    context.width, context.height = 160, 96
    context.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    context.framerate, context.options = _FPS, _OPTIONS[codec]
    context.gop_size = _FPS if key_frames else 100_000
    background = np.random.default_rng(0).integers(0, 60, (96, 160, 3), np.uint8)
    sets = b""
    with units.open("wb") as file:
        for index in range(round(seconds * _FPS) + 1):
            image = background.copy()
            left = index * 7 % 140
            image[24:48, left : left + 20] = 220
            last = index == round(seconds * _FPS)
            frame = None if last else av.VideoFrame.from_ndarray(image, format="rgb24")
            for packet in context.encode(frame):
                if packet.is_keyframe and codec in _PARAMETER_SETS:
                    sets = _parameter_sets(bytes(packet), codec)
                if key_frames or not packet.is_keyframe:
                    file.write(struct.pack(">I", packet.size) + bytes(packet))
    return Footage(units, codec, sets)


def _parameter_sets(unit: bytes, codec: str) -> bytes:
    """Those network abstraction layer units of a key frame, behind start codes."""
    found = b""
    for part in re.split(rb"\x00\x00\x01", unit)[1:]:
        kind = part[0] & 31 if codec == "h264" else part[0] >> 1 & 63
        if kind in _PARAMETER_SETS[codec]:
            found += b"\x00\x00\x00\x01" + part.rstrip(b"\x00")
    return found
