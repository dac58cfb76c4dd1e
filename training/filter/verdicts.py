"""Which generated videos are kept, by what the criteria say of them; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from training.clips import TrainingError
from training.filter.criteria import BY_NAME, Limit, Values, goodness
from training.recipe import Part

Label = Literal["normal", "anomalous"]
Share = Annotated[float, Field(gt=0, le=1)]
DUPLICATES = "duplicate"
LABELS: tuple[Label, ...] = ("anomalous", "normal")


class Judged(Part):
    """A generated video under every criterion.

    Attributes:
        id: of its row.
        label: of the whole video.
        values: by criterion; None where it cannot be known.
        alike: ids of its near-duplicates among those of the same label.
    """

    id: str
    label: Label
    values: dict[str, float | None]
    alike: tuple[str, ...] = ()


class Rule(Part):
    """How videos are chosen.

    Attributes:
        criteria: names of those that count.
        shares: part of each label's videos that is kept, best sums first; None where
            limits decide.
        limits: of each criterion; outside them no video is kept where they decide.
    """

    criteria: Annotated[tuple[str, ...], Field(min_length=1)]
    shares: dict[Label, Share] | None
    limits: dict[str, Limit]


class Verdict(Part):
    """What became of a video.

    Attributes:
        id: of its row.
        label: of the whole video.
        kept: whether it trains.
        total: sum of z-scores over the criteria that count, among its label's videos.
        margin: how far it is on its side of the decision, in the total where shares
            decide, else in standard deviations of the criterion that is nearest to its limit;
            None where no limit applies.
        reason: in a few words.
    """

    id: str
    label: Label
    kept: bool
    total: float
    margin: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class ByHand:
    """Videos that a person has decided on, by id."""

    keep: frozenset[str] = frozenset()
    discard: frozenset[str] = field(default_factory=frozenset)


def decide(videos: Sequence[Judged], rule: Rule, by_hand: ByHand) -> list[Verdict]:
    """Keep or discard every video, label by label.

    What a person decided stands. A near-duplicate of a kept video that ranks higher is not kept
    where duplicates count, whatever its other values.

    Raises:
        TrainingError: a criterion that counts is known of no video.
    """
    for name in rule.criteria:
        if all(video.values.get(name) is None for video in videos):
            raise TrainingError(
                f"{name} is known of none of {len(videos)} generated videos; leave it out of "
                "--criteria or give what it needs"
            )
    found: dict[str, Verdict] = {}
    for label in LABELS:
        members = [video for video in videos if video.label == label]
        if members:
            chosen = _by_limits if rule.shares is None else _by_share
            found |= {verdict.id: verdict for verdict in chosen(members, rule, by_hand)}
    return [found[video.id] for video in videos]


def totals(videos: Sequence[Judged], rule: Rule) -> Values:
    """(V,) Sum of z-scores; a value that is not known counts as the mean.

    Near-duplicates are passed over and cost nothing else: of two alike the better one is as good
    as any other.
    """
    total = np.zeros(len(videos))
    for name in rule.criteria:
        if name == DUPLICATES:
            continue
        total += _z_scores(goodness(BY_NAME[name], _values(videos, name), rule.limits[name]))
    return total


def _values(videos: Sequence[Judged], name: str) -> Values:
    values = [video.values.get(name) for video in videos]
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _z_scores(good: Values) -> Values:
    known = good[np.isfinite(good)]
    if not len(known) or known.std() == 0:
        return np.zeros(len(good))
    scores: Values = np.nan_to_num((good - known.mean()) / known.std())
    return scores


def _by_share(videos: Sequence[Judged], rule: Rule, by_hand: ByHand) -> list[Verdict]:
    assert rule.shares is not None
    total = totals(videos, rule)
    order = sorted(range(len(videos)), key=lambda n: (-total[n], videos[n].id))
    wanted = max(1, round(rule.shares.get(videos[0].label, 1.0) * len(videos)))
    reasons: dict[str, str] = {}
    kept = {video.id for video in videos if video.id in by_hand.keep}
    last = -np.inf
    for rank, place in enumerate(order, 1):
        video = videos[place]
        twin = _kept_twin(video, kept, rule)
        if video.id in by_hand.keep or video.id in by_hand.discard:
            reasons[video.id] = "by hand"
        elif twin is not None:
            reasons[video.id] = f"near-duplicate of {twin}"
        else:
            reasons[video.id] = f"rank {rank} of {len(videos)}"
            if len(kept) < wanted:
                kept.add(video.id)
                last = total[place]
    cut = last if np.isfinite(last) else float(total.max(initial=0.0))
    return [
        Verdict(
            id=video.id,
            label=video.label,
            kept=video.id in kept,
            total=float(score),
            margin=float(score - cut),
            reason=reasons[video.id],
        )
        for video, score in zip(videos, total, strict=True)
    ]


def _by_limits(videos: Sequence[Judged], rule: Rule, by_hand: ByHand) -> list[Verdict]:
    total = totals(videos, rule)
    slack, nearest = _slacks(videos, rule)
    kept = {video.id for video in videos if video.id in by_hand.keep}
    found: dict[str, Verdict] = {}
    for place in sorted(range(len(videos)), key=lambda n: (-total[n], videos[n].id)):
        video, margin = videos[place], float(slack[place])
        twin = _kept_twin(video, kept, rule)
        if video.id in by_hand.keep or video.id in by_hand.discard:
            reason = "by hand"
        elif margin < 0:
            value = video.values[nearest[place]]
            reason = f"{nearest[place]} {value:.4g}, not {rule.limits[nearest[place]]}"
        elif twin is not None:
            reason = f"near-duplicate of {twin}"
        else:
            reason = "within all limits"
            kept.add(video.id)
        found[video.id] = Verdict(
            id=video.id,
            label=video.label,
            kept=video.id in kept,
            total=float(total[place]),
            margin=margin if np.isfinite(margin) else None,
            reason=reason,
        )
    return [found[video.id] for video in videos]


def _slacks(videos: Sequence[Judged], rule: Rule) -> tuple[Values, list[str]]:
    """(V,) Least slack of each video in standard deviations, and the criterion that has it."""
    names = [name for name in rule.criteria if name != DUPLICATES]
    rows = [np.full(len(videos), np.inf)]
    for name in names:
        values = _values(videos, name)
        scale = float(np.nanstd(values)) if np.isfinite(values).any() else 0.0
        slack = rule.limits[name].slack(values) / (scale or 1.0)
        rows.append(np.where(np.isfinite(values), slack, np.inf))
    slacks = np.stack(rows)
    nearest = ["", *names]
    return slacks.min(0), [nearest[place] for place in slacks.argmin(0)]


def _kept_twin(video: Judged, kept: set[str], rule: Rule) -> str | None:
    if DUPLICATES not in rule.criteria:
        return None
    return next((other for other in video.alike if other in kept and other != video.id), None)


def counts(verdicts: Sequence[Verdict]) -> Mapping[Label, tuple[int, int]]:
    """Kept and all, by label."""
    return {
        label: (
            sum(v.kept for v in verdicts if v.label == label),
            sum(v.label == label for v in verdicts),
        )
        for label in LABELS
    }
