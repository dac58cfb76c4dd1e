"""The alert state machine and its laws."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.alerts import Alert, AlertMachine, AlertPolicy, AlertState, ScoredSpan, alert_id

POLICY = AlertPolicy(open_threshold=0.6, close_threshold=0.4, min_duration_seconds=0)


def spans(scores: list[float | None], gaps: Set[int] = frozenset()) -> list[ScoredSpan]:
    return [
        ScoredSpan(n, 2.0 * n, 2.0 * n + 1.5, score, n in gaps) for n, score in enumerate(scores)
    ]


def run(
    scores: list[float | None], policy: AlertPolicy = POLICY, gaps: Set[int] = frozenset()
) -> list[Alert]:
    machine = AlertMachine("cam", "b" * 64, policy)
    changes = [change for span in spans(scores, gaps) for change in machine.push(span)]
    return changes + machine.finish()


def test_an_event_between_the_thresholds_stays_open() -> None:
    opened, closed = run([0.1, 0.7, 0.5, 0.45, 0.9, 0.3, 0.5])
    assert (opened.state, opened.first_sequence) == (AlertState.OPEN, 1)
    assert (closed.state, closed.last_sequence, closed.peak_score) == (AlertState.CLOSED, 4, 0.9)
    assert (closed.start_seconds, closed.end_seconds, closed.peak_seconds) == (2.0, 9.5, 9.5)
    assert opened.alert_id == closed.alert_id == alert_id("cam", "b" * 64, 1)


def test_an_event_shorter_than_the_minimum_raises_nothing() -> None:
    patient = AlertPolicy(0.6, 0.4, min_duration_seconds=3)
    assert run([0.9, 0.1, 0.9, 0.1], patient) == []
    opened, closed = run([0.9, 0.9, 0.1], patient)
    assert opened.last_sequence == closed.last_sequence == 1


def test_a_gap_closes_the_event_before_it() -> None:
    states = [(a.state, a.first_sequence) for a in run([0.9, 0.9, 0.9], gaps={2})]
    assert states == [
        (AlertState.OPEN, 0),
        (AlertState.CLOSED, 0),
        (AlertState.OPEN, 2),
        (AlertState.CLOSED, 2),
    ]


def test_a_dropped_window_neither_opens_nor_closes() -> None:
    opened, closed = run([None, 0.9, None, 0.9, None])
    assert (opened.first_sequence, closed.last_sequence) == (1, 3)


@pytest.mark.parametrize("step_seconds", [3600, -3600, -3])
def test_a_clock_that_is_set_closes_the_event_before_it(step_seconds: float) -> None:
    steady = spans([0.9] * 6)
    moved = [
        replace(s, start_seconds=s.start_seconds + t, end_seconds=s.end_seconds + t)
        for s, t in zip(steady, [0] * 3 + [step_seconds] * 3, strict=True)
    ]
    machine = AlertMachine("cam", "b" * 64, POLICY)
    changes = [change for span in moved for change in machine.push(span)] + machine.finish()
    assert [c.state for c in changes] == [AlertState.OPEN, AlertState.CLOSED] * 2
    assert [c.first_sequence for c in changes] == [0, 0, 3, 3]
    assert [c.end_seconds - c.start_seconds for c in changes[1::2]] == [5.5, 5.5]


def test_a_camera_with_a_frame_every_ten_seconds_keeps_its_event() -> None:
    machine = AlertMachine("cam", "b" * 64, POLICY)
    slow = [ScoredSpan(n, 10.0 * n, 10.0 * n, 0.9, False) for n in range(10)]
    changes = [change for span in slow for change in machine.push(span)] + machine.finish()
    assert [c.state for c in changes] == [AlertState.OPEN, AlertState.CLOSED]


def test_dropped_windows_between_two_scores_are_no_step_of_the_clock() -> None:
    changes = run([0.9, *[None] * 60, 0.9])
    assert [(c.state, c.last_sequence) for c in changes] == [
        (AlertState.OPEN, 0),
        (AlertState.CLOSED, 61),
    ]


@pytest.mark.parametrize("bad", [(0.5, 0.6, 0), (1.1, 0.4, 0), (0.6, -0.1, 0), (0.6, 0.4, -1)])
def test_a_policy_that_makes_no_sense_is_refused(bad: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        AlertPolicy(*bad)


scores = st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=80)
policies = st.builds(
    lambda low, high, seconds: AlertPolicy(max(low, high), min(low, high), seconds),
    st.floats(0, 1),
    st.floats(0, 1),
    st.sampled_from([0.0, 3.0, 10.0]),
)


@given(scores, policies, st.sets(st.integers(0, 80)))
def test_alerts_alternate_open_and_close_and_contain_their_peak(
    scores: list[float | None], policy: AlertPolicy, gaps: set[int]
) -> None:
    changes = run(scores, policy, gaps)
    assert [c.state for c in changes] == [AlertState.OPEN, AlertState.CLOSED] * (len(changes) // 2)
    for opened, closed in zip(changes[::2], changes[1::2], strict=True):
        assert opened.alert_id == closed.alert_id
        assert closed.start_seconds <= closed.peak_seconds <= closed.end_seconds
        assert closed.end_seconds - closed.start_seconds >= policy.min_duration_seconds
        covered = scores[closed.first_sequence : closed.last_sequence + 1]
        assert closed.peak_score == max(s for s in covered if s is not None)
        assert all(s is None or s >= policy.close_threshold for s in covered)
        assert not any(closed.first_sequence < gap <= closed.last_sequence for gap in gaps)
