"""What each criterion says of a generated video; pure.

GV-VAD filters its videos and does not say how (arXiv 2508.00312, Table II; open question 1 of its
review). These are the criteria of ALGORITHM.md, section 2, each by itself: f_t are a video's
features over time, unit vectors; e a description's vector by the same model's text tower.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from server.contract import Feature
from training.recipe import Part

Better = Literal["high", "low", "inside"]
Values = npt.NDArray[np.float64]

NEAREST = 5
TOP_SHARE = 0.25
CLIP_SCALE = 100.0
DUPLICATE = 0.98


@dataclass(frozen=True, slots=True)
class Criterion:
    """One question to a generated video.

    Attributes:
        name: for flags, files and tables.
        question: in words.
        better: which values are: high or low ones, or all between two limits.
        needs_text: whether it compares with descriptions, so that the encoder must have a
            text tower.
    """

    name: str
    question: str
    better: Better
    needs_text: bool = False


CRITERIA = (
    Criterion("prompt", "Does it show what was asked for?", "high", needs_text=True),
    Criterion("contrast", "Is it nearer to its own than its twin's text?", "high", needs_text=True),
    Criterion("consistency", "Does it neither flicker nor freeze?", "inside"),
    Criterion("motion", "Does as much move as in real footage?", "inside"),
    Criterion("likeness", "How far is it from real normal footage?", "low"),
    Criterion("duplicate", "How alike is the most similar other one?", "low"),
    Criterion("detector", "Does a detector that saw real videos alone agree?", "high"),
)
BY_NAME = {criterion.name: criterion for criterion in CRITERIA}


class Limit(Part):
    """Values that are accepted, ends included; None where there is no end."""

    low: float | None = None
    high: float | None = None

    def excess(self, values: Values) -> Values:
        """How far each value lies outside; 0 inside."""
        below = 0.0 if self.low is None else self.low - values
        above = 0.0 if self.high is None else values - self.high
        return np.maximum(np.maximum(below, above), 0.0)

    def slack(self, values: Values) -> Values:
        """How far each value is from the nearest end; negative outside, inf without ends."""
        below = np.inf if self.low is None else values - self.low
        above = np.inf if self.high is None else self.high - values
        return np.minimum(below, above) + 0.0 * values

    def __str__(self) -> str:
        if self.low is None:
            return "any" if self.high is None else f"at most {self.high:.4g}"
        return (
            f"at least {self.low:.4g}"
            if self.high is None
            else f"{self.low:.4g} to {self.high:.4g}"
        )


def goodness(criterion: Criterion, values: Values, limit: Limit) -> Values:
    """Values so that higher is better; between limits all are equally good."""
    if criterion.better == "inside":
        return -limit.excess(values)
    return values if criterion.better == "high" else -values


def prompt_agreement(features: Feature, text: Feature) -> float:
    """A: mean over time of cos(f_t, e), in [-1, 1].

    Args:
        features: (n, D) unit vectors.
        text: (D,) unit vector of its description.
    """
    return float((features @ text).mean())


def contrast(features: Feature, own: Feature, twin: Feature) -> float:
    """C: how surely it shows its own description rather than its twin's, in [0, 1].

    The mean of σ(100 (cos(f_t, e_own) - cos(f_t, e_twin))) over the top quarter of an anomalous
    video's times. Deviation: for a normal video the same is asked of the normal text, over the
    quarter that looks most anomalous, so that no moment of it may.

    Args:
        features: (n, D) unit vectors.
        own: (D,) of its description.
        twin: (D,) of the description of the other label.
    """
    return float(_contrasts(features, own, twin)[-_top(features) :].mean())


def contrast_of_normal(features: Feature, own: Feature, twin: Feature) -> float:
    """C of a normal video; see `contrast`."""
    return float(_contrasts(features, own, twin)[: _top(features)].mean())


def _contrasts(features: Feature, own: Feature, twin: Feature) -> Values:
    lead = CLIP_SCALE * (features @ (own - twin)).astype(np.float64)
    found: Values = np.sort(0.5 * (1 + np.tanh(0.5 * lead)))
    return found


def _top(features: Feature) -> int:
    return max(1, round(TOP_SHARE * len(features)))


def consistency(features: Feature) -> float:
    """K: mean over time of cos(f_t, f_t+1), in [-1, 1]; NaN for a single time."""
    if len(features) < 2:
        return float("nan")
    return float((features[:-1] * features[1:]).sum(1).mean())


def distance_to(features: Feature, real: Feature) -> float:
    """S: mean over time of 1 - cos to the nearest real features, mean of five, in [0, 2].

    Args:
        features: (n, D) unit vectors.
        real: (m, D) unit vectors of real normal footage, m >= 1.
    """
    distances = 1.0 - features @ real.T
    count = min(NEAREST, distances.shape[1])
    return float(np.partition(distances, count - 1, axis=1)[:, :count].mean())


def similarities(videos: Sequence[Feature]) -> Values:
    """D: (V, V) cos of the videos' mean features, -1 on the diagonal."""
    means = np.stack([features.mean(0) for features in videos]).astype(np.float64)
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    found: Values = means @ means.T
    np.fill_diagonal(found, -1.0)
    return found
