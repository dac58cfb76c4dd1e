"""Laws of the decision: how many are kept, who is passed over, what a person decides."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.clips import TrainingError
from training.filter.criteria import BY_NAME, Limit
from training.filter.verdicts import ByHand, Judged, Label, Rule, Verdict, counts, decide

LIMITS = dict.fromkeys(BY_NAME, Limit()) | {
    "motion": Limit(low=0.2, high=0.8),
    "likeness": Limit(high=0.5),
}
values = st.none() | st.floats(0, 1)


def a_rule(*criteria: str, share: float | None = 0.5) -> Rule:
    shares: dict[Label, float] | None = None
    if share is not None:
        shares = {"anomalous": share, "normal": share}
    return Rule(criteria=criteria, shares=shares, limits=LIMITS)


@st.composite
def judged(draw: st.DrawFn) -> list[Judged]:
    count = draw(st.integers(2, 14))
    labels = draw(
        st.lists(st.sampled_from(["anomalous", "normal"]), min_size=count, max_size=count)
    )
    found = []
    for n, label in enumerate(labels):
        others = [f"v{m}" for m in range(count) if m != n and labels[m] == label]
        alike = draw(st.lists(st.sampled_from(others), unique=True)) if others else []
        known = {name: draw(values) for name in ("motion", "likeness")}
        known["prompt"] = draw(st.floats(0, 1))
        found.append(
            Judged.model_validate({"id": f"v{n}", "label": label, "values": known, "alike": alike})
        )
    return found


def kept(verdicts: Sequence[Verdict]) -> set[str]:
    return {verdict.id for verdict in verdicts if verdict.kept}


@given(judged(), st.sampled_from([0.25, 0.4, 0.6, 1.0]))
def test_the_share_of_each_label_is_kept_best_first(videos: list[Judged], share: float) -> None:
    verdicts = decide(videos, a_rule("prompt", share=share), ByHand())
    assert [verdict.id for verdict in verdicts] == [video.id for video in videos]
    for label, (number, of) in counts(verdicts).items():
        assert number == (max(1, round(share * of)) if of else 0)
        members = [v for v in verdicts if v.label == label]
        inside = [v.total for v in members if v.kept]
        outside = [v.total for v in members if not v.kept]
        assert not outside or min(inside) >= max(outside)
        assert all((v.margin or 0) >= 0 for v in members if v.kept)


@given(judged(), st.booleans())
def test_no_video_is_kept_beside_its_near_duplicate(videos: list[Judged], by_limits: bool) -> None:
    rule = a_rule("prompt", "duplicate", share=None if by_limits else 0.9)
    videos = [v.model_copy(update={"values": v.values | {"duplicate": 0.5}}) for v in videos]
    chosen = kept(decide(videos, rule, ByHand()))
    mutual = {v.id: set(v.alike) for v in videos}
    for one in chosen:
        assert not {other for other in mutual[one] & chosen if one in mutual[other]}
    assert chosen


@given(judged(), st.data())
def test_what_a_person_decided_stands(videos: list[Judged], data: st.DataObject) -> None:
    names = [video.id for video in videos]
    keep = data.draw(st.sets(st.sampled_from(names)))
    discard = data.draw(st.sets(st.sampled_from(names))) - keep
    for share in (None, 0.5):
        rule = a_rule("prompt", "duplicate", share=share)
        known = [v.model_copy(update={"values": v.values | {"duplicate": 0.5}}) for v in videos]
        chosen = kept(decide(known, rule, ByHand(frozenset(keep), frozenset(discard))))
        assert keep <= chosen
        assert not discard & chosen


@given(judged())
def test_within_limits_means_within_every_limit_that_is_known(videos: list[Judged]) -> None:
    rule = a_rule("motion", "likeness", "prompt", share=None)
    for name in ("motion", "likeness"):
        if all(video.values[name] is None for video in videos):
            with pytest.raises(TrainingError, match=f"{name} is known of none of"):
                decide(videos, rule, ByHand())
            return
    chosen = kept(decide(videos, rule, ByHand()))
    for video in videos:
        motion, likeness = video.values["motion"], video.values["likeness"]
        inside = (motion is None or 0.2 <= motion <= 0.8) and (likeness is None or likeness <= 0.5)
        assert (video.id in chosen) == inside


def one(name: str, **known: float | None) -> Judged:
    return Judged(id=name, label="normal", values=known)


def test_a_sum_of_z_scores_weighs_every_criterion_alike() -> None:
    videos = [
        one("a", prompt=0.30, likeness=100.0),
        one("b", prompt=0.31, likeness=400.0),
        one("c", prompt=0.32, likeness=250.0),
    ]
    verdicts = decide(videos, a_rule("prompt", "likeness", share=0.34), ByHand())
    assert kept(verdicts) == {"c"}
    assert sum(verdict.total for verdict in verdicts) == pytest.approx(0, abs=1e-9)


def test_what_is_not_known_counts_as_the_mean() -> None:
    videos = [one("a", prompt=1.0), one("b", prompt=None), one("c", prompt=0.0)]
    verdicts = decide(videos, a_rule("prompt"), ByHand())
    assert [verdict.total for verdict in verdicts] == [1.0, 0.0, -1.0]


def test_the_reason_names_the_limit_that_is_missed() -> None:
    videos = [one("a", motion=0.5, likeness=0.1), one("b", motion=0.9, likeness=0.1)]
    verdicts = decide(videos, a_rule("motion", "likeness", share=None), ByHand())
    assert [v.reason for v in verdicts] == ["within all limits", "motion 0.9, not 0.2 to 0.8"]
    assert verdicts[1].margin is not None
    assert verdicts[1].margin < 0


def test_a_better_duplicate_passes_over_a_worse_one() -> None:
    videos = [
        Judged(id="a", label="normal", values={"prompt": 0.9, "duplicate": 0.99}, alike=("b",)),
        Judged(id="b", label="normal", values={"prompt": 0.8, "duplicate": 0.99}, alike=("a",)),
        Judged(id="c", label="normal", values={"prompt": 0.1, "duplicate": 0.99}),
    ]
    verdicts = decide(videos, a_rule("prompt", "duplicate", share=0.67), ByHand())
    assert kept(verdicts) == {"a", "c"}
    assert verdicts[1].reason == "near-duplicate of a"
    assert kept(decide(videos, a_rule("prompt", share=0.67), ByHand())) == {"a", "b"}
