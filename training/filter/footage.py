"""What the filter measures of a video: its features over time, and how much moves.

Generated and real footage is resampled to one rate first: twice the frame rate is half the
change from frame to frame, and would tell them apart by itself.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from server.contract import WINDOW_FRAMES, Feature, Image
from server.ingest.video import decode_file, open_file
from server.preprocess import Preprocessor, PreprocessSpec
from server.windows import SourceFrame
from training.clips import TrainingError
from training.encoders import WindowEncoder

GREY_SIDE = 64
"""Pixels; the noise of sensors and codecs is averaged away at this size."""

_GREY = PreprocessSpec(GREY_SIDE, GREY_SIDE, "squash", "area", "bt601", "declared")
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_STRIDE_FRAMES = 4
_BATCH = 16
_TOLERANCE_SECONDS = 1e-3


@dataclass(frozen=True, slots=True)
class Sampling:
    """How footage is looked at.

    Attributes:
        fps: rate that it is resampled to, Hz; an encoder's own where it has one.
        seconds: of each video, from its beginning, that are looked at.
    """

    fps: float = 8.0
    seconds: float = 30.0

    def __post_init__(self) -> None:
        if not 0.5 <= self.fps <= 60:
            raise TrainingError(f"--fps ({self.fps:g}) must be 0.5 to 60 Hz")
        if not 1 <= self.seconds <= 3600:
            raise TrainingError(f"--seconds ({self.seconds:g}) must be 1 to 3600")


@dataclass(frozen=True, slots=True)
class Footage:
    """A video, measured.

    Attributes:
        features: (n, D) float32 unit vectors: of each resampled frame where the encoder sees
            single frames, else of windows that begin four frames after each other.
        motion: mean absolute difference of neighbouring resampled frames' grey values, in
            [0, 1].
    """

    features: Feature
    motion: float


def measure(path: Path, encoder: WindowEncoder, sampling: Sampling) -> Footage:
    """Measure a video.

    Raises:
        SourceError: it cannot be read as video, or breaks off.
        TrainingError: it is too short for an encoder's window, or for two frames.
    """
    window = encoder.window
    fps = sampling.fps if window.fps is None else window.fps
    render, grey = Preprocessor(encoder.preprocess), Preprocessor(_GREY)
    images, luma = [], []
    with open_file(path) as container:
        frames = resampled(decode_file(container, str(path)), fps)
        for frame in islice(frames, int(sampling.seconds * fps)):
            images.append(render(frame.picture))
            luma.append(grey(frame.picture) @ _LUMA)
    needed = 2 if window.sampled_frames == 1 else WINDOW_FRAMES
    if len(images) < needed:
        raise TrainingError(
            f"{path} has {len(images)} frames at {fps:g} Hz; at least {needed} are needed"
        )
    motion = float(np.abs(np.diff(np.stack(luma), axis=0)).mean()) / 255
    return Footage(_unit(_features(images, encoder)), motion)


def resampled(
    frames: Iterable[SourceFrame[av.VideoFrame]], fps: float
) -> Iterator[SourceFrame[av.VideoFrame]]:
    """At each multiple of 1 / fps seconds the frame that is shown then.

    The last one stands for a median interval.
    """
    last, taken, origin_seconds = None, 0, 0.0
    intervals: list[float] = []
    for frame in frames:
        if last is None:
            origin_seconds = frame.pts_seconds
        else:
            intervals.append(frame.pts_seconds - last.pts_seconds)
            while origin_seconds + taken / fps < frame.pts_seconds - _TOLERANCE_SECONDS:
                yield last
                taken += 1
        last = frame
    if last is None:
        return
    end_seconds = last.pts_seconds + (statistics.median(intervals) if intervals else 1 / fps)
    while origin_seconds + taken / fps < end_seconds - _TOLERANCE_SECONDS:
        yield last
        taken += 1


def _features(images: list[Image], encoder: WindowEncoder) -> Feature:
    slots: tuple[int, ...] = (0,)
    stride, length = 1, 1
    if encoder.window.sampled_frames > 1:
        slots, stride, length = encoder.window.sampled_slots, _STRIDE_FRAMES, WINDOW_FRAMES
    starts = range(0, len(images) - length + 1, stride)
    views = [[images[start + slot] for slot in slots] for start in starts]
    parts = [views[first : first + _BATCH] for first in range(0, len(views), _BATCH)]
    return np.concatenate([encoder.encode(np.array(part)) for part in parts])


def _unit(features: Feature) -> Feature:
    lengths: npt.NDArray[np.float32] = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.maximum(lengths, 1e-12), np.float32)
