"""Decode and render a clip over and over, with as little around it as possible."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import av.container
import av.error

from server.bench.crew import BenchError
from server.bundle import load_bundle
from server.contract import WINDOW_FRAMES, WindowSpec
from server.ingest.video import open_file, strerror, video_stream
from server.preprocess import Preprocessor

_GRID_TOLERANCE_SECONDS = 1e-3


@dataclass(frozen=True, slots=True)
class DecodeWork:
    """Frames of a clip, decoded on one thread; a unit is one frame.

    Attributes:
        clip: with an index, so that it can be begun again.
        bundle: whose windows say which frames are rendered, and how.
    """

    clip: Path
    bundle: Path

    def prepare(self) -> Callable[[], int]:
        """Open the clip and decode its first frame.

        Raises:
            BundleError: the bundle cannot be used.
            SourceError: the clip is no video.
            BenchError: it breaks off, or none of its frames has a time.
        """
        manifest = load_bundle(self.bundle).manifest
        container = open_file(self.clip)
        frames = _frames(container, str(self.clip))
        render, sampler = Preprocessor(manifest.preprocess), Sampler(manifest.window)

        def step() -> int:
            frame, seconds = next(frames)
            if sampler.wants(seconds):
                render(frame)
            return 1

        step()
        return step


def _frames(
    container: av.container.InputContainer, name: str
) -> Iterator[tuple[av.VideoFrame, float]]:
    """Frames with their times, for ever: after the last comes the first."""
    stream = video_stream(container, name)
    try:
        while True:
            count = 0
            for frame in container.decode(stream):
                if frame.time is not None:
                    count += 1
                    yield frame, frame.time
            if not count:
                raise BenchError(f"{name} has no frame that has a time; give another video")
            container.seek(0)
    except av.error.FFmpegError as error:
        raise BenchError(
            f"{name} broke off while decoding ({strerror(error)}); give a whole video file"
        ) from None


class Sampler:
    """Which frames a stream's windows need rendered: as many as `WindowAssembler` renders.

    It takes the first frame at or after a point of the grid where the server takes the one
    before, since only their number matters here; it is the same for every camera that is at
    least as fast as the grid.

    Args:
        window: the bundle's.
    """

    def __init__(self, window: WindowSpec) -> None:
        self._fps = window.fps
        self._sampled = frozenset(window.sampled_slots)
        self._origin_seconds = 0.0
        self._last_seconds = float("inf")
        self._taken = 0

    def wants(self, seconds: float) -> bool:
        """Whether the next frame is rendered; a time before the last one begins anew.

        Args:
            seconds: when it is shown.
        """
        if seconds < self._last_seconds:
            self._origin_seconds, self._taken = seconds, 0
        self._last_seconds = seconds
        filled = self._slots_filled(seconds)
        slots, self._taken = range(self._taken, filled), filled
        return any(slot % WINDOW_FRAMES in self._sampled for slot in slots)

    def _slots_filled(self, seconds: float) -> int:
        """Slots that there are once a frame of this time has come."""
        if self._fps is None:
            return self._taken + 1
        passed_seconds = seconds - self._origin_seconds + _GRID_TOLERANCE_SECONDS
        return int(passed_seconds * self._fps) + 1
