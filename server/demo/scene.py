"""Render the demo's own scene: a plaza, people who walk calmly, then a sudden fight.

The same seed gives the same pictures. The truth comes with the clip, so that
anybody can hold an alert against it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from server.contract import Image
from server.demo.cast import cast
from server.demo.figures import draw_body, draw_shadow
from server.demo.plaza import HEIGHT, WIDTH, background

FPS = 25
MIN_SECONDS = 10.0
MAX_SECONDS = 120.0
"""A longer demo plays the scene again."""

EVENT = (0.45, 0.7)
"""Where the event begins and ends, as parts of the duration."""

# A detector needs two or three windows of it; and nobody fights for minutes.
_EVENT_SECONDS_AT_LEAST, _EVENT_SECONDS_AT_MOST = 4.5, 15.0
_SHADE = 0.55
_NOISE_FRAMES = 8


@dataclass(frozen=True, slots=True)
class SceneTruth:
    """What the rendered clip holds.

    Attributes:
        event_start_seconds: from the first frame to the first rush.
        event_end_seconds: from the first frame until all is calm again.
    """

    event_start_seconds: float
    event_end_seconds: float


def scene_truth(duration_seconds: float) -> SceneTruth:
    """When the event of a scene of that length takes place.

    Raises:
        ValueError: the duration is outside MIN_SECONDS..MAX_SECONDS.
    """
    if not MIN_SECONDS <= duration_seconds <= MAX_SECONDS:
        raise ValueError(
            f"a scene lasts {MIN_SECONDS:g} to {MAX_SECONDS:g} seconds, not {duration_seconds:g}"
        )
    start, end = (part * duration_seconds for part in EVENT)
    length = min(max(end - start, _EVENT_SECONDS_AT_LEAST), _EVENT_SECONDS_AT_MOST)
    return SceneTruth(start, start + length)


def render_scene(
    path: Path,
    duration_seconds: float,
    *,
    seed: int = 1,
    progress: Callable[[float], None] | None = None,
) -> SceneTruth:
    """Write the scene as H.264 of 640x360 at 25 frames a second.

    Args:
        path: of the clip; its suffix chooses the container.
        duration_seconds: MIN_SECONDS to MAX_SECONDS.
        seed: fixes every detail.
        progress: told the finished part, 0 to 1, now and then.

    Raises:
        ValueError: the duration is out of range.
    """
    truth = scene_truth(duration_seconds)
    frames = round(duration_seconds * FPS)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(FPS))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.gop_size = FPS
        stream.options = {"preset": "superfast", "crf": "25", "bf": "0", "sc_threshold": "0"}
        for index, picture in enumerate(_pictures(frames, truth, seed)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            if progress is not None and index % FPS == FPS - 1:
                progress((index + 1) / frames)
        container.mux(stream.encode(None))
    return truth


class Scene:
    """The plaza and its people over time, without a camera's grain.

    Args:
        rng: fixes every detail.
        duration_seconds: of the whole scene.
        truth: when its event takes place.
    """

    def __init__(
        self, rng: np.random.Generator, duration_seconds: float, truth: SceneTruth
    ) -> None:
        self._lit = background(rng)
        self._shaded = (self._lit * _SHADE).astype(np.uint8)
        event = (truth.event_start_seconds, truth.event_end_seconds)
        self._people = cast(rng, duration_seconds, event)

    def canvas(self, at_seconds: float) -> Image:
        """The scene at a time.

        Returns:
            (SUPERSAMPLING * HEIGHT, SUPERSAMPLING * WIDTH, 3) uint8 RGB.
        """
        canvas = self._lit.copy()
        mask = np.zeros(canvas.shape[:2], np.uint8)
        bodies = [(person.body(at_seconds), person.look) for person in self._people]
        for body, _ in bodies:
            draw_shadow(mask, body)
        cv2.copyTo(self._shaded, mask, canvas)
        for body, look in sorted(bodies, key=lambda pair: -pair[0][0, 2]):
            draw_body(canvas, body, look)
        return canvas


def _pictures(frames: int, truth: SceneTruth, seed: int) -> Iterator[Image]:
    rng = np.random.default_rng(seed)
    scene = Scene(rng, frames / FPS, truth)
    noise = rng.normal(0, 2.0, (_NOISE_FRAMES, HEIGHT, WIDTH, 1)).repeat(3, axis=3)
    grain = np.rint(noise).astype(np.int16)
    for index in range(frames):
        small = _finished(scene.canvas(index / FPS)).astype(np.int16)
        # A few noise frames, shifted at random, never repeat in a way that shows.
        shift = int(rng.integers(WIDTH))
        small += np.roll(grain[index % _NOISE_FRAMES], shift, axis=1)
        yield np.clip(small, 0, 255).astype(np.uint8)


def _finished(canvas: Image) -> Image:
    """(HEIGHT, WIDTH, 3) uint8 RGB with the camera's label, without noise."""
    small = cv2.resize(canvas, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA).astype(np.uint8)
    label = "CAM 1  RENDERED SCENE"
    cv2.putText(
        small, label, (10, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (225, 225, 220), 1, cv2.LINE_AA
    )
    return small
