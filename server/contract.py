"""The contract between training, export and server: window geometry and tensors.

Everything that two packages must agree on about a window, an encoder graph or
a head graph stands here once. Standard library and NumPy only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

WINDOW_FRAMES = 16
"""Frames of a window, after resampling to the bundle's rate."""

IMAGES = "images"
FEATURE = "feature"
SCORE = "score"
STATE_PREFIX = "state_"
NEXT_STATE_PREFIX = "next_state_"
EXPLANATION_INDEX = "explanation_index"
EXPLANATION_WEIGHT = "explanation_weight"

Image = npt.NDArray[np.uint8]
Feature = npt.NDArray[np.float32]
State = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a graph.

    Attributes:
        name: as in the graph.
        dtype: NumPy name, such as "uint8".
        shape: batch first; None where any size is allowed.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        sizes = ", ".join("*" if size is None else str(size) for size in self.shape)
        return f"{self.name} {self.dtype} ({sizes})"


@dataclass(frozen=True, slots=True)
class WindowSpec:
    """How a stream is cut into windows.

    Attributes:
        sampled_frames: S, the frames of a window that the encoder sees, 1 to 16.
        fps: rate in Hz that a stream is resampled to first; None keeps its own frames.
    """

    sampled_frames: int
    fps: float | None

    def __post_init__(self) -> None:
        if not 1 <= self.sampled_frames <= WINDOW_FRAMES:
            raise ValueError(f"sampled_frames ({self.sampled_frames}) must be 1 to {WINDOW_FRAMES}")
        if self.fps is not None and not 0.1 <= self.fps <= 240:
            raise ValueError(f"fps ({self.fps}) must be 0.1 to 240 Hz, or null for native frames")

    @property
    def sampled_slots(self) -> tuple[int, ...]:
        """Slots 0..15 of a window that the encoder sees, ascending.

        >>> WindowSpec(sampled_frames=4, fps=None).sampled_slots
        (2, 6, 10, 14)
        """
        count = self.sampled_frames
        return tuple((2 * i + 1) * WINDOW_FRAMES // (2 * count) for i in range(count))


def encoder_tensors(
    sampled_frames: int, height: int, width: int, feature_dim: int
) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """Inputs and outputs that every encoder graph has.

    Returns:
        images (B, S, H, W, 3) uint8 in, feature (B, D) float32 out.
    """
    images = TensorSpec(IMAGES, "uint8", (None, sampled_frames, height, width, 3))
    feature = TensorSpec(FEATURE, "float32", (None, feature_dim))
    return [images], [feature]


def head_tensors(
    feature_dim: int, states: dict[str, tuple[int, ...]], nearest: int | None = None
) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """Inputs and outputs of a head-step graph.

    Args:
        feature_dim: D.
        states: shape per stream of each state tensor (without batch), by its
            name without prefix. State is float32 and zero at the start.
        nearest: a, sentences of a bank that the head names; None without a bank.

    Returns:
        feature (B, D) and state_* in; score (B,) in [0, 1] and next_state_* out, with a
        bank also explanation_index (B, a) int64, nearest first, and explanation_weight (B, a).
    """
    before = [
        TensorSpec(STATE_PREFIX + name, "float32", (None, *shape)) for name, shape in states.items()
    ]
    after = [
        TensorSpec(NEXT_STATE_PREFIX + name, "float32", (None, *shape))
        for name, shape in states.items()
    ]
    feature = TensorSpec(FEATURE, "float32", (None, feature_dim))
    told = (
        []
        if nearest is None
        else [
            TensorSpec(EXPLANATION_INDEX, "int64", (None, nearest)),
            TensorSpec(EXPLANATION_WEIGHT, "float32", (None, nearest)),
        ]
    )
    return [feature, *before], [TensorSpec(SCORE, "float32", (None,)), *after, *told]
