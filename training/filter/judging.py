"""Put every criterion to every generated video, and take limits from real footage; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from server.contract import Feature
from training.clips import TrainingError
from training.filter.criteria import (
    CRITERIA,
    DUPLICATE,
    Limit,
    Values,
    consistency,
    contrast,
    contrast_of_normal,
    distance_to,
    prompt_agreement,
    similarities,
)
from training.filter.footage import Footage
from training.filter.verdicts import Judged
from training.manifest import Row

FEWEST_REAL = 20
"""Videos; of fewer the outer percentiles say nothing."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A video and what was measured of it."""

    row: Row
    footage: Footage


@dataclass(frozen=True, slots=True)
class Opinions:
    """What others say of generated videos, by id.

    Attributes:
        texts: (D,) unit vector of each description; empty without a text tower.
        detector: highest score of any window, in [0, 1]; empty without a detector.
    """

    texts: Mapping[str, Feature] = field(default_factory=dict)
    detector: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RealFootage:
    """Real videos as a measure of generated ones.

    Attributes:
        videos: of both labels; at least 20, normal ones of two groups among them.
    """

    videos: tuple[Seen, ...]

    def __post_init__(self) -> None:
        groups = {seen.row.group for seen in self.videos if seen.row.label == "normal"}
        if len(self.videos) < FEWEST_REAL or len(groups) < 2:
            raise TrainingError(
                f"{len(self.videos)} real videos can be measured, normal ones of {len(groups)} "
                f"cameras or recordings; at least {FEWEST_REAL}, normal ones of 2, are needed to "
                "know what is usual"
            )

    def values(self) -> dict[str, Values]:
        """Criteria that can be asked of real footage, a value a video.

        A normal video's distance is that to normal footage of other groups.
        """
        normal = [seen for seen in self.videos if seen.row.label == "normal"]
        likeness = []
        for group in sorted({seen.row.group for seen in normal}):
            others = np.concatenate([s.footage.features for s in normal if s.row.group != group])
            members = [seen for seen in normal if seen.row.group == group]
            likeness += [distance_to(seen.footage.features, others) for seen in members]
        return {
            "consistency": _known([consistency(s.footage.features) for s in self.videos]),
            "motion": np.array([seen.footage.motion for seen in self.videos]),
            "likeness": np.array(likeness),
            "duplicate": self._nearest_others(),
        }

    def normal_features(self) -> Feature:
        """(m, D) of all normal footage."""
        normal = [seen for seen in self.videos if seen.row.label == "normal"]
        return np.concatenate([seen.footage.features for seen in normal])

    def _nearest_others(self) -> Values:
        """How alike each video and the most similar one of another group are."""
        alike = similarities([seen.footage.features for seen in self.videos])
        groups = np.array([seen.row.group for seen in self.videos])
        alike[groups[:, None] == groups[None]] = -1.0
        return np.asarray(alike.max(1), np.float64)


def usual_limits(real: Mapping[str, Values]) -> dict[str, Limit]:
    """What each criterion accepts by itself.

    Consistency and motion within the 1st to 99th percentile of real footage; as near to normal
    footage as 95 % of normal videos; two videos are duplicates over a cosine of 0.98 or, where an
    encoder finds most footage alike, over what 99 % of real videos have to another recording.

    Source: ALGORITHM.md, section 2. Deviation: the floor of the last one.
    """
    low, high = np.percentile(real["consistency"], (1, 99))
    least, most = np.percentile(real["motion"], (1, 99))
    alike = max(DUPLICATE, float(np.percentile(real["duplicate"], 99)))
    return {
        "prompt": Limit(),
        "contrast": Limit(low=0.5),
        "consistency": Limit(low=float(low), high=float(high)),
        "motion": Limit(low=float(least), high=float(most)),
        "likeness": Limit(high=float(np.percentile(real["likeness"], 95))),
        "duplicate": Limit(high=alike),
        "detector": Limit(low=0.5),
    }


def judge(
    videos: Sequence[Seen], real: RealFootage, opinions: Opinions, alike_over: float
) -> list[Judged]:
    """Every criterion of every generated video; None where it cannot be known.

    Args:
        videos: generated ones.
        real: to compare with.
        opinions: of a text tower and of a detector.
        alike_over: cosine over which two videos of one label are near-duplicates.
    """
    normal = real.normal_features()
    alike = similarities([seen.footage.features for seen in videos])
    labels = np.array([seen.row.label for seen in videos])
    alike[labels[:, None] != labels[None]] = -1.0
    twins = _twins([seen.row for seen in videos])
    found = []
    for place, seen in enumerate(videos):
        features = seen.footage.features
        values = _text_values(seen, opinions.texts, twins) | {
            "consistency": consistency(features),
            "motion": seen.footage.motion,
            "likeness": distance_to(features, normal),
            "duplicate": float(alike[place].max()) if len(videos) > 1 else -1.0,
            "detector": _agreement(seen.row, opinions.detector),
        }
        near = [
            other.row.id
            for other, cos in zip(videos, alike[place], strict=True)
            if cos > alike_over
        ]
        known = {c.name: _or_none(values.get(c.name)) for c in CRITERIA}
        found.append(
            Judged(id=seen.row.id, label=seen.row.label, values=known, alike=tuple(sorted(near)))
        )
    return found


def _twins(rows: Sequence[Row]) -> dict[str, str]:
    """Id of the video of the same scene and the other label."""
    by_pair: dict[tuple[str, str], str] = {}
    for row in rows:
        if row.pair_id is not None:
            by_pair[row.pair_id, row.label] = row.id
    other = {"normal": "anomalous", "anomalous": "normal"}
    return {
        row.id: by_pair[row.pair_id, other[row.label]]
        for row in rows
        if row.pair_id is not None and (row.pair_id, other[row.label]) in by_pair
    }


def _text_values(
    seen: Seen, texts: Mapping[str, Feature], twins: Mapping[str, str]
) -> dict[str, float | None]:
    own = texts.get(seen.row.id)
    if own is None:
        return {}
    features = seen.footage.features
    values: dict[str, float | None] = {"prompt": prompt_agreement(features, own)}
    twin = texts.get(twins.get(seen.row.id, ""))
    if twin is not None:
        ask = contrast if seen.row.label == "anomalous" else contrast_of_normal
        values["contrast"] = ask(features, own, twin)
    return values


def _agreement(row: Row, peaks: Mapping[str, float]) -> float | None:
    peak = peaks.get(row.id)
    if peak is None:
        return None
    return peak if row.label == "anomalous" else 1.0 - peak


def _known(values: Sequence[float]) -> Values:
    found: Values = np.array(values)
    known: Values = found[np.isfinite(found)]
    return known


def _or_none(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)
