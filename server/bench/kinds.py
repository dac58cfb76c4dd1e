"""Which cameras a benchmark plays: what a user writes, and what becomes of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from server.streams import SourceUrl
from server.wording import one_line

DEFAULT_FPS = 25.0
LEAST_FPS, MOST_FPS = 0.1, 120.0
LEAST_PIXELS, MOST_PIXELS = 32, 7680
CLIP_SECONDS = 8.0

_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")
_NUMBER = re.compile(r"\d{1,4}(\.\d{1,4})?")
_EXPECTED = "expected SIZE@FPS such as 768x432@25, FILE@FPS or rtsp://HOST/PATH"


@dataclass(frozen=True, slots=True)
class CameraKind:
    """One kind of camera; exactly one of its three sources is set.

    Attributes:
        fps: frames a second; of a real camera what it is believed to send, None if unknown.
        size: (width, height) in pixels of a scene that is rendered.
        file: a video that is played over and over.
        url: a real camera.
    """

    fps: float | None
    size: tuple[int, int] | None = None
    file: Path | None = None
    url: SourceUrl | None = None

    def __str__(self) -> str:
        if self.url is not None:
            return str(self.url)
        what = f"{self.size[0]}x{self.size[1]}" if self.size is not None else str(self.file)
        return f"{what}@{self.fps:g}"


def camera_kind(text: str) -> CameraKind:
    """What `--camera` says.

    >>> str(camera_kind("768x432")), str(camera_kind("plaza.mp4@12.5"))
    ('768x432@25', 'plaza.mp4@12.5')
    >>> str(camera_kind("rtsp://joe:secret@10.0.0.5/cam"))
    'rtsp://***@10.0.0.5/cam'

    Raises:
        ValueError: this is no camera; the message is a sentence without credentials.
    """
    if "://" in text:
        url = SourceUrl(text)
        if url.scheme not in ("rtsp", "rtsps"):
            raise ValueError(f"camera {one_line(str(url))!r} is no rtsp:// URL; {_EXPECTED}")
        return CameraKind(None, url=url)
    name, at, rate = text.rpartition("@")
    if not at:
        name, rate = text, f"{DEFAULT_FPS:g}"
    fps = float(rate) if _NUMBER.fullmatch(rate) else 0.0
    if not name or not LEAST_FPS <= fps <= MOST_FPS:
        raise ValueError(
            f"camera {one_line(text)!r} has no rate of {LEAST_FPS:g} to {MOST_FPS:g} frames "
            f"a second; {_EXPECTED}"
        )
    found = _SIZE.fullmatch(name)
    if found is None:
        return CameraKind(fps, file=Path(name))
    return CameraKind(fps, size=_size(text, int(found[1]), int(found[2])))


def _size(text: str, width: int, height: int) -> tuple[int, int]:
    fits = all(LEAST_PIXELS <= side <= MOST_PIXELS and side % 2 == 0 for side in (width, height))
    if not fits:
        raise ValueError(
            f"camera {one_line(text)!r}: width and height must be even, "
            f"{LEAST_PIXELS} to {MOST_PIXELS} pixels"
        )
    return width, height
