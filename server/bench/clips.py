"""Clips for measuring: the demo's scene as a camera of any size would send it.

A benchmark is as honest as its pictures, so bit rate, texture, grain and motion
are a camera's: about 0.5 Mbit/s at 320x240, 1.3 at 768x432 and 4 at 1920x1080,
25 frames a second, a key frame every two seconds, no B-frames. Real surveillance
footage that is encoded in the same way takes less to decode: what a frame costs
here is 1.30, 1.20, 1.13 and 1.13 times as much at 320x240, 640x360, 768x432 and
1280x720 (medians of seven interleaved runs). So figures err on the safe side.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track

from server.contract import Image
from server.demo.scene import MIN_SECONDS, Scene, SceneTruth, scene_truth

_VERSION = 1  # of what is rendered; a change makes clips in a cache worthless
_SEED = 1
_KEY_SECONDS = 2
_GRAIN = 2.0  # standard deviation of the luma noise
_GRAIN_FRAMES = 8

# Cameras spend fewer bits a pixel the larger their picture.
_REFERENCE_PIXELS, _REFERENCE_BITS = 320 * 240, 500_000
_BITS_EXPONENT = 0.63
_REFERENCE_FPS = 25


@dataclass(frozen=True, slots=True)
class _Take:
    """What is rendered: (width, height) in pixels, frames a second, and frames in all."""

    size: tuple[int, int]
    fps: int
    frames: int

    @property
    def name(self) -> str:
        width, height = self.size
        return f"scene-{width}x{height}-{self.fps}fps-{self.frames}-v{_VERSION}.mp4"

    @property
    def bits_per_second(self) -> int:
        """Fewer frames hold more news each, so the rate falls with the square root."""
        relative = self.size[0] * self.size[1] / _REFERENCE_PIXELS
        thinned = math.sqrt(self.fps / _REFERENCE_FPS)
        return round(_REFERENCE_BITS * math.pow(relative, _BITS_EXPONENT) * thinned)


def render(folder: Path, size: tuple[int, int], fps: int, seconds: float) -> Path:
    """A clip of the scene, made where the folder has none like it.

    The same arguments give the same pictures and the same bytes, whatever the number
    of cores. Progress is shown on a terminal.

    Args:
        folder: where clips are kept; made where it is missing.
        size: (width, height) in pixels, both even.
        fps: frames a second.
        seconds: of the clip, up to two minutes.

    Returns:
        The clip, H.264 in an MP4 file.

    Raises:
        ValueError: a size, rate or length that cannot be rendered.
    """
    width, height = size
    if min(size) < 32 or width % 2 or height % 2:
        raise ValueError(f"size ({width}x{height}) must be even and 32x32 at least")
    if fps < 1 or round(seconds * fps) < 1:
        raise ValueError(f"a clip of {seconds:g} s at {fps} fps has no frame; give a longer one")
    take = _Take(size, fps, round(seconds * fps))
    truth = scene_truth(max(MIN_SECONDS, seconds))
    path = folder / take.name
    if not path.exists():
        pictures = _pictures(take, truth)
        folder.mkdir(parents=True, exist_ok=True)
        scratch = folder / f".{os.getpid()}-{take.name}"
        try:
            _encode(scratch, take, pictures)
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)
    return path


def _encode(path: Path, take: _Take, pictures: Iterable[Image]) -> None:
    rate = take.bits_per_second
    console = Console(stderr=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(take.fps))
        stream.width, stream.height = take.size
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = rate
        stream.codec_context.gop_size = _KEY_SECONDS * take.fps
        stream.options = {
            "preset": "veryfast",
            "bf": "0",
            "sc_threshold": "0",
            "maxrate": str(rate),
            "bufsize": str(2 * rate),
            "threads": "1",  # the number of threads shows in the bytes
        }
        what = f"rendering {take.size[0]}x{take.size[1]}"
        shown = track(
            pictures,
            what,
            take.frames,
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        for picture in shown:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="yuv420p")))
        container.mux(stream.encode(None))


def _pictures(take: _Take, truth: SceneTruth) -> Iterator[npt.NDArray[np.uint8]]:
    """(height * 3 / 2, width) uint8 YUV of 4:2:0 each, grain in the luma."""
    width, height = take.size
    rng = np.random.default_rng(_SEED)
    duration_seconds = max(MIN_SECONDS, take.frames / take.fps)
    scene = Scene(rng, duration_seconds, truth)
    noise = rng.normal(0, _GRAIN, (_GRAIN_FRAMES, height, width))
    grain = np.rint(noise).astype(np.int16)
    for index in range(take.frames):
        picture = _fitted(scene.canvas(index / take.fps), take.size)
        planes = cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_I420).astype(np.uint8, copy=False)
        # A few noise frames, shifted at random, never repeat in a way that shows.
        shifted = np.roll(grain[index % _GRAIN_FRAMES], int(rng.integers(width)), axis=1)
        cv2.add(planes[:height], shifted, dst=planes[:height], dtype=cv2.CV_8U)
        yield planes


def _fitted(canvas: Image, size: tuple[int, int]) -> Image:
    """The middle of a canvas that has the size's shape, scaled to it."""
    rows, columns = canvas.shape[:2]
    width, height = size
    kept_columns = min(columns, round(rows * width / height))
    kept_rows = min(rows, round(columns * height / width))
    top, left = (rows - kept_rows) // 2, (columns - kept_columns) // 2
    middle = canvas[top : top + kept_rows, left : left + kept_columns]
    how = cv2.INTER_AREA if width < kept_columns else cv2.INTER_CUBIC
    return cv2.resize(middle, size, interpolation=how).astype(np.uint8)
