"""Laws of the alert state machine, on any scores, gaps, drops and policies."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import dropwhile

from hypothesis import assume, example, given
from hypothesis import strategies as st

from server.alert_machine import AlertMachine
from server.alerts import Alert, AlertPolicy, AlertState, EndReason, ScoredSpan, Suppression
from server.schedule import Schedule

LENGTH, SPACING = 1.5, 2.0
"""Seconds from a window's first to its last frame, and from one window to the next."""


@dataclass(frozen=True)
class Step:
    """One window: its score, whether a gap lies before, how many windows never came before."""

    score: float | None
    gap: bool = False
    skipped: int = 0


# Few values, so that scores meet the thresholds and each other.
levels = st.sampled_from([0.0, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0]) | st.floats(0, 1)
steps = st.builds(
    Step, st.none() | levels | levels, st.integers(0, 11).map(lambda n: n == 0),
    st.integers(0, 20).map(lambda n: max(0, n - 18)),
)  # fmt: skip
streams = st.lists(steps, max_size=40)
seconds = st.sampled_from([0.0, 1.0, 2.0, 3.5, 5.0, 8.0, 20.0])
policies = st.builds(
    lambda low, high, shortest, gap, longest, cooldown: AlertPolicy(
        max(low, high), min(low, high), shortest, gap, longest, cooldown
    ),
    levels, levels, seconds, seconds, seconds | st.just(math.inf), seconds,
)  # fmt: skip


def spans(stream: Sequence[Step]) -> list[ScoredSpan]:
    found, sequence = [], -1
    for step in stream:
        sequence += 1 + step.skipped
        start = SPACING * sequence
        found.append(ScoredSpan(sequence, start, start + LENGTH, step.score, step.gap))
    return found


def run(stream: Sequence[Step], policy: AlertPolicy, **options: float) -> list[Alert]:
    machine = AlertMachine("cam", "b" * 64, policy, **options)
    changes = [change for span in spans(stream) for change in machine.push(span)]
    return changes + machine.finish(EndReason.STOPPED)


def pairs(changes: Sequence[Alert]) -> list[tuple[Alert, Alert]]:
    return list(zip(changes[::2], changes[1::2], strict=True))


def windows_of(alert: Alert, stream: Sequence[Step]) -> Iterator[ScoredSpan]:
    return (s for s in spans(stream) if alert.first_sequence <= s.sequence <= alert.last_sequence)


# What holds of every stream


@given(streams, policies)
def test_every_alert_opens_once_and_closes_once_and_never_two_are_open(
    stream: list[Step], policy: AlertPolicy
) -> None:
    changes = run(stream, policy)
    assert [c.state for c in changes] == [AlertState.OPEN, AlertState.CLOSED] * (len(changes) // 2)
    for opened, closed in pairs(changes):
        assert (opened.alert_id, opened.first_sequence, opened.start_seconds) == (
            closed.alert_id, closed.first_sequence, closed.start_seconds,
        )  # fmt: skip
        assert (opened.suppression, opened.continues) == (closed.suppression, closed.continues)
        assert opened.end_reason is None
        assert closed.end_reason is not None
    assert len({c.alert_id for c in changes}) == len(changes) // 2


@given(streams, policies)
def test_an_alert_holds_its_peak_and_all_its_windows_scores(
    stream: list[Step], policy: AlertPolicy
) -> None:
    for alert in run(stream, policy):
        windows = {span.sequence: span for span in windows_of(alert, stream)}
        known = {s.sequence: s.score for s in windows.values() if s.score is not None}
        assert alert.start_seconds <= alert.peak_seconds <= alert.end_seconds
        assert alert.peak_score == max(known.values())
        assert windows[alert.last_sequence].end_seconds == alert.end_seconds
        assert windows[alert.last_sequence].score is not None
        sequences = range(alert.first_sequence, alert.last_sequence + 1)
        expected = [known.get(sequence, math.nan) for sequence in sequences]
        assert str(list(alert.window_scores)) == str(expected)  # NaN is not equal to itself
        if alert.continues is None:
            assert known[alert.first_sequence] >= policy.open_threshold
        inside = [s for s in windows.values() if s.sequence > alert.first_sequence]
        assert not any(s.after_gap for s in inside)


@given(streams, policies)
def test_every_alert_spans_the_minimum_and_a_longer_one_than_the_maximum_is_one_window(
    stream: list[Step], policy: AlertPolicy
) -> None:
    for opened, closed in pairs(run(stream, policy)):
        if opened.continues is None:
            assert opened.end_seconds - opened.start_seconds >= policy.min_duration_seconds
        if closed.end_seconds - closed.start_seconds > policy.max_duration_seconds:
            # It had that length as it opened: it could not be ended any sooner.
            assert closed.last_sequence == opened.last_sequence


@given(streams, policies)
def test_splits_chain_without_a_hole_and_keep_their_suppression(
    stream: list[Step], policy: AlertPolicy
) -> None:
    changes = run(stream, policy)
    closings = {change.alert_id: change for change in changes if change.is_closed}
    for place, change in enumerate(changes):
        if change.end_reason is EndReason.SPLIT:
            assert changes[place + 1].continues == change.alert_id
        if not change.is_closed and change.continues is not None:
            former = closings[change.continues]
            assert former.end_reason is EndReason.SPLIT
            assert change.first_sequence == former.last_sequence + 1
            assert change.suppression is former.suppression
            assert former.end_seconds <= change.end_seconds


@given(streams, policies)
def test_scores_inside_the_band_neither_open_nor_end_anything(
    stream: list[Step], policy: AlertPolicy
) -> None:
    assume(policy.close_threshold < policy.open_threshold)
    machine = AlertMachine("cam", "b" * 64, replace(policy, max_duration_seconds=math.inf))
    is_open = False
    for span in spans(stream):
        changes = machine.push(span)
        in_band = span.score is not None and (
            policy.close_threshold <= span.score < policy.open_threshold
        )
        if in_band and not span.after_gap:
            # At most it makes an alert of an event that had opened before.
            assert [c.state for c in changes] in ([], [] if is_open else [AlertState.OPEN])
            assert not any(c.first_sequence == span.sequence for c in changes)
        for change in changes:
            is_open = not change.is_closed


@given(streams, policies)
def test_an_alert_ends_only_where_scores_were_low_for_the_merge_gap(
    stream: list[Step], policy: AlertPolicy
) -> None:
    machine = AlertMachine("cam", "b" * 64, policy)
    known: list[ScoredSpan] = []
    for span in spans(stream):
        known.append(span)
        for change in machine.push(span):
            if change.end_reason is not EndReason.SCORE_FELL:
                continue
            after = [s for s in known if s.sequence > change.last_sequence]
            low = list(dropwhile(lambda s: s.score is None, after))
            assert all(s.score is None or s.score < policy.close_threshold for s in low)
            lasted = [s.end_seconds - change.end_seconds for s in low]
            # It was low for long enough, and one window before it was not.
            assert lasted[-1] >= policy.merge_gap_seconds
            assert all(length < policy.merge_gap_seconds for length in lasted[:-1])


# What suppresses


@given(streams, policies)
def test_cooldown_counts_from_delivered_alerts_alone(
    stream: list[Step], policy: AlertPolicy
) -> None:
    delivered_until: float | None = None
    began = {span.sequence: span.end_seconds for span in spans(stream)}
    for opened, closed in pairs(run(stream, policy)):
        if opened.continues is None:
            within = (
                delivered_until is not None
                and began[opened.first_sequence] - delivered_until < policy.cooldown_seconds
            )
            assert opened.suppression is (Suppression.COOLDOWN if within else None)
        if closed.suppression is None:
            delivered_until = closed.end_seconds


@given(streams, policies)
def test_suppression_changes_nothing_but_itself(stream: list[Step], policy: AlertPolicy) -> None:
    def bare(changes: list[Alert]) -> list[str]:
        return [repr(replace(change, suppression=None)) for change in changes]

    loud = replace(policy, cooldown_seconds=0)
    snoozed = replace(loud, schedule=Schedule(snooze_until_seconds=math.inf))
    assert bare(run(stream, policy)) == bare(run(stream, loud)) == bare(run(stream, snoozed))
    assert {c.suppression for c in run(stream, snoozed)} <= {Suppression.SNOOZED}
    assert {c.suppression for c in run(stream, loud)} <= {None}


@given(streams, policies, seconds)
def test_the_first_alert_is_never_cooled_down_unless_one_was_delivered_before(
    stream: list[Step], policy: AlertPolicy, ago: float
) -> None:
    changes = run(stream, policy)
    assert changes == [] or changes[0].suppression is None
    again = run(stream, policy, delivered_until_seconds=-ago)
    if again:
        began = SPACING * again[0].first_sequence + LENGTH
        cooled = began + ago < policy.cooldown_seconds
        assert again[0].suppression is (Suppression.COOLDOWN if cooled else None)


# What must make no difference


@given(streams, policies, st.lists(st.booleans(), max_size=40), st.booleans())
def test_a_machine_that_is_put_away_and_taken_up_again_says_the_same(
    stream: list[Step], policy: AlertPolicy, cuts: list[bool], pickled: bool
) -> None:
    again: Callable[[AlertMachine], AlertMachine] = copy.deepcopy
    if pickled:
        again = lambda one: pickle.loads(pickle.dumps(one))  # noqa: E731
    machine, changes = AlertMachine("cam", "b" * 64, policy), []
    for place, span in enumerate(spans(stream)):
        if place < len(cuts) and cuts[place]:
            machine = again(machine)
        changes += machine.push(span)
    changes += again(machine).finish(EndReason.STOPPED)
    assert repr(changes) == repr(run(stream, policy))


@given(streams, policies, st.integers(0, 40))
def test_what_comes_later_changes_nothing_that_was_said(
    stream: list[Step], policy: AlertPolicy, length: int
) -> None:
    machine = AlertMachine("cam", "b" * 64, policy)
    said = [change for span in spans(stream[:length]) for change in machine.push(span)]
    assert repr(run(stream, policy)).startswith(repr(said).removesuffix("]"))


@given(streams, policies)
def test_the_same_policy_again_changes_nothing(stream: list[Step], policy: AlertPolicy) -> None:
    machine, changes = AlertMachine("cam", "b" * 64, policy), []
    for span in spans(stream):
        machine.policy = replace(policy)
        changes += machine.push(span)
    assert repr(changes + machine.finish(EndReason.STOPPED)) == repr(run(stream, policy))


@given(streams, policies, seconds)
@example([Step(0.9), Step(0.1), Step(0.9), Step(0.1)], AlertPolicy(0.6, 0.4, 3.0), 20.0)
def test_a_longer_merge_gap_never_makes_more_alerts(
    stream: list[Step], policy: AlertPolicy, more: float
) -> None:
    policy = replace(policy, max_duration_seconds=math.inf)
    longer = replace(policy, merge_gap_seconds=policy.merge_gap_seconds + more)
    assert len(run(stream, longer)) <= len(run(stream, policy))


# What it was before there were merge gaps, splits and cooldowns


def former(stream: Sequence[Step], policy: AlertPolicy) -> list[tuple[int, int]]:
    """First and last sequence of every alert, by the plainest rule."""
    found, event = [], None
    for span in [*spans(stream), None]:
        ended = span is None or span.after_gap
        low = span is not None and span.score is not None and span.score < policy.close_threshold
        if event and (ended or low):
            if event[1].end_seconds - event[0].start_seconds >= policy.min_duration_seconds:
                found.append((event[0].sequence, event[1].sequence))
            event = None
        high = span is not None and span.score is not None and not low
        if high and (event or span.score >= policy.open_threshold):
            event = (event[0] if event else span, span)
    return found


@given(streams, policies)
def test_without_merge_gap_maximum_and_cooldown_it_is_what_it_was(
    stream: list[Step], policy: AlertPolicy
) -> None:
    plain = AlertPolicy(policy.open_threshold, policy.close_threshold, policy.min_duration_seconds)
    closed = [change for change in run(stream, plain) if change.is_closed]
    assert [(c.first_sequence, c.last_sequence) for c in closed] == former(stream, plain)
    assert EndReason.SPLIT not in {c.end_reason for c in closed}
