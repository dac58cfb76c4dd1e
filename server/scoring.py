"""Windows to scores: encoder, then the head step with each stream's state.

Both the live server and the replay of recorded clips go through here, so that
a clip gets the scores that a camera would.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

import numpy as np

from server.bank import Explanation
from server.contract import Feature, Image, State
from server.windows import WindowSpan


class DropReason(Enum):
    """Why a live window was not scored; also a metric label."""

    OVERLOAD = "overload"  # a newer window of the stream arrived before the engine was free
    BACKLOG = "backlog"  # the decode worker could not hand it over in time
    ENGINE = "engine"  # the engine failed on it
    THINNED = "thinned"  # only every n-th window of the stream is scored
    STILL = "still"  # nothing moved in it, and the stream is scored on motion

    @property
    def is_wanted(self) -> bool:
        """Whether the stream asks for it; the others are losses."""
        return self in (DropReason.THINNED, DropReason.STILL)


@dataclass(frozen=True, slots=True)
class WindowScore:
    """What the server publishes for every window of a stream.

    Attributes:
        stream_id: the stream.
        sequence: rises by one with every window of the stream, for ever.
        span: what it covers.
        score: in [0, 1], 1 = anomalous; None where the window was dropped.
        drop_reason: why there is no score; None where there is one.
        latency_seconds: from the last frame's arrival to this score.
        explanation: the nearest sentences of the bundle's bank, nearest first.
    """

    stream_id: str
    sequence: int
    span: WindowSpan
    score: float | None
    drop_reason: DropReason | None
    latency_seconds: float
    explanation: Explanation = ()

    def __post_init__(self) -> None:
        if (self.score is None) == (self.drop_reason is None):
            raise ValueError("a window has either a score or a drop reason")


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the head for B streams.

    Attributes:
        scores: (B,) in [0, 1].
        state: what comes after, tensors of (B, ...).
        explanations: B times the nearest sentences; empty ones without a bank.
    """

    scores: Feature
    state: State
    explanations: list[Explanation]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the head says of one window: a score in [0, 1], and what the window resembles."""

    score: float
    explanation: Explanation


class Detector(Protocol):
    """A bundle's two graphs, loaded and ready. Not thread-safe."""

    def encode(self, images: Image) -> Feature:
        """(B, S, H, W, 3) uint8 -> (B, D) float32."""

    def step(self, features: Feature, state: State) -> Step:
        """One window (B, D) of B streams whose state is tensors of (B, ...)."""

    def zero_state(self) -> State:
        """State of one stream at its start, tensors of (1, ...)."""


@dataclass(slots=True)
class StreamMemory:
    """What the head remembers of one stream: constant size, however long it runs."""

    state: State | None = field(default=None)
    last_feature: Feature | None = field(default=None)  # (1, D)

    def reset(self) -> None:
        self.state = None
        self.last_feature = None


def score_features(
    detector: Detector, features: Feature, memories: Sequence[StreamMemory]
) -> list[Verdict]:
    """Step the head once for each of several streams.

    Args:
        detector: runs the head.
        features: (B, D), one row a stream.
        memories: B different memories; each is advanced by one window.

    Returns:
        B verdicts.

    Raises:
        EngineError, MemoryError: it failed; no memory has advanced.
    """
    states = [m.state if m.state is not None else detector.zero_state() for m in memories]
    batch = {name: np.concatenate([state[name] for state in states]) for name in states[0]}
    found = detector.step(features, batch)
    # Copied before the first memory changes: where that fails, none has advanced.
    advanced = [
        (
            {name: tensor[row : row + 1].copy() for name, tensor in found.state.items()},
            features[row : row + 1].copy(),
        )
        for row in range(len(memories))
    ]
    for memory, (state, feature) in zip(memories, advanced, strict=True):
        memory.state, memory.last_feature = state, feature
    return [
        Verdict(float(score), explanation)
        for score, explanation in zip(found.scores, found.explanations, strict=True)
    ]


def skip_windows(detector: Detector, memories: Sequence[StreamMemory]) -> None:
    """Advance streams' states over a window each that was not encoded.

    The last feature stands in for it, so that state never skips time; before
    the first feature there is nothing to advance.

    Raises:
        EngineError, MemoryError: it failed; no memory has advanced.
    """
    begun = [(m, m.last_feature) for m in memories if m.last_feature is not None]
    if begun:
        features = np.concatenate([feature for _, feature in begun])
        score_features(detector, features, [memory for memory, _ in begun])
