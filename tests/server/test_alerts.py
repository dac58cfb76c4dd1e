"""The alert state machine and its laws."""

from __future__ import annotations

import time
from collections.abc import Set
from dataclasses import replace

import pytest

from server.alert_machine import AlertMachine
from server.alerts import (
    Alert,
    AlertDefaults,
    AlertPolicy,
    AlertState,
    EndReason,
    PolicyError,
    ScoredSpan,
    Suppression,
    alert_id,
)
from server.schedule import Schedule
from server.tuning import AlertTuning, QuietHours

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


# Merging, splitting, suppressing


def told(changes: list[Alert]) -> list[tuple[str, int, int]]:
    """Each change in short: what, first and last sequence."""
    return [
        (c.end_reason.value if c.end_reason else "open", c.first_sequence, c.last_sequence)
        for c in changes
    ]


MERGING = replace(POLICY, merge_gap_seconds=5.0)


def test_scores_that_rise_again_within_the_merge_gap_go_on_with_the_alert() -> None:
    changes = run([0.7, 0.1, 0.1, 0.5, 0.1, 0.1, 0.1, 0.9], MERGING)
    # Windows end every 2 s: after window 3 the third low one is 6 s later.
    assert told(changes) == [
        ("open", 0, 0), ("score_fell", 0, 3), ("open", 7, 7), ("gap", 7, 7),
    ]  # fmt: skip
    assert changes[1].window_scores == (0.7, 0.1, 0.1, 0.5)
    assert changes[1].end_seconds == 7.5


def test_an_event_that_is_no_alert_yet_does_not_wait_for_the_merge_gap() -> None:
    patient = replace(MERGING, min_duration_seconds=2.0)
    assert run([0.9, 0.1, 0.9, 0.1, 0.9, 0.1], patient) == []


def test_time_of_dropped_windows_counts_while_scores_are_low() -> None:
    assert told(run([0.9, 0.1, None, None, 0.9], MERGING))[:2] == [
        ("open", 0, 0), ("score_fell", 0, 0),
    ]  # fmt: skip
    # While they are high the alert goes on, however long.
    assert told(run([0.9, None, None, None, 0.9], MERGING)) == [("open", 0, 0), ("gap", 0, 4)]


def test_an_event_without_end_is_split_and_each_piece_names_the_one_before() -> None:
    changes = run([0.7, 0.8, 0.9, 0.6, 0.5, 0.7], replace(POLICY, max_duration_seconds=4.0))
    assert told(changes) == [
        ("open", 0, 0), ("split", 0, 1),
        ("open", 2, 2), ("split", 2, 3),
        ("open", 4, 4), ("gap", 4, 5),
    ]  # fmt: skip
    first, second, third = (change for change in changes if change.is_closed)
    assert (first.continues, second.continues, third.continues) == (
        None, first.alert_id, second.alert_id,
    )  # fmt: skip
    assert [piece.peak_score for piece in (first, second, third)] == [0.8, 0.9, 0.7]
    assert third.alert_id == alert_id("cam", "b" * 64, 4)


def test_a_piece_begins_with_the_low_windows_that_the_alert_outlasted() -> None:
    policy = replace(POLICY, merge_gap_seconds=10.0, max_duration_seconds=6.0)
    changes = run([0.7, 0.8, 0.1, None, 0.9], policy)
    assert told(changes) == [("open", 0, 0), ("split", 0, 1), ("open", 2, 4), ("gap", 2, 4)]
    assert (changes[2].start_seconds, changes[2].peak_seconds) == (4.0, 9.5)
    assert changes[2].window_scores[::2] == (0.1, 0.9)


def test_a_cooldown_begins_with_the_end_of_a_delivered_alert_alone() -> None:
    high, low = 0.9, 0.1
    scores: list[float | None] = [high, low, high, low, high, low, high, low, high]
    closed = [c for c in run(scores, replace(POLICY, cooldown_seconds=9.0)) if c.is_closed]
    # The first ends at 1.5 s; what begins at 5.5 and 9.5 s is within 9 s of it, 13.5 s is not.
    assert [c.suppression for c in closed] == [
        None, Suppression.COOLDOWN, Suppression.COOLDOWN, None, Suppression.COOLDOWN,
    ]  # fmt: skip


def test_a_split_alert_stays_as_suppressed_as_it_was() -> None:
    policy = replace(POLICY, max_duration_seconds=2.0, schedule=Schedule(snooze_until_seconds=2.0))
    changes = run([0.9] * 4, policy)
    assert len({c.alert_id for c in changes}) == 4
    assert {c.suppression for c in changes} == {Suppression.SNOOZED}


def test_a_clock_that_was_set_back_is_no_endless_cooldown() -> None:
    policy = replace(POLICY, cooldown_seconds=60.0)
    machine = AlertMachine("cam", "b" * 64, policy, delivered_until_seconds=7200.0)
    (opened,) = machine.push(ScoredSpan(0, 3600.0, 3601.5, 0.9, True))
    assert opened.suppression is None


def test_quiet_hours_go_by_when_an_event_began() -> None:
    # 1 January 1970 was a Thursday; streams here begin at its midnight.
    quiet = Schedule((QuietHours((4,), "00:00", "00:01", "UTC"),))
    machine = AlertMachine("cam", "b" * 64, replace(POLICY, schedule=quiet))
    suppressed: list[Suppression | None] = []
    for start in (0.0, 57.0, 59.0, 61.0):  # they end 1.5 s later: at 58.5 s and 60.5 s, say
        suppressed += [
            c.suppression for c in machine.push(ScoredSpan(0, start, start + 1.5, 1, True))
        ]
    assert suppressed[::2] == [Suppression.QUIET_HOURS] * 2 + [None] * 2


def test_snooze_goes_before_quiet_hours_and_those_before_a_cooldown() -> None:
    always = (QuietHours((), "00:00", "24:00", "UTC"),)
    policy = replace(POLICY, cooldown_seconds=60.0)
    span = ScoredSpan(0, 0.0, 1.5, 0.9, False)
    found = []
    for schedule in (Schedule(always, 9.0), Schedule(always), Schedule()):
        machine = AlertMachine("cam", "b" * 64, replace(policy, schedule=schedule), 0.0)
        found += [c.suppression for c in machine.push(span)]
    assert found == [Suppression.SNOOZED, Suppression.QUIET_HOURS, Suppression.COOLDOWN]


# A policy that changes while something is open


def changed(before: list[float], policy: AlertPolicy, after: list[float]) -> list[Alert]:
    """Scores under `POLICY` with a minimum of 3 s, then scores under another policy."""
    machine = AlertMachine("cam", "b" * 64, replace(POLICY, min_duration_seconds=3.0))
    changes = []
    for span in spans([*before, *after]):
        if span.sequence == len(before):
            machine.policy = policy
        changes += machine.push(span)
    return changes


def test_an_open_alert_keeps_its_identity_and_ends_by_the_new_policy() -> None:
    strict = AlertPolicy(0.95, 0.9, 0.0)
    opened, closed = changed([0.7, 0.8], strict, [0.85])
    assert (opened.alert_id, told([closed])) == (closed.alert_id, [("score_fell", 0, 1)])
    lenient = replace(POLICY, close_threshold=0.1)
    assert told(changed([0.7, 0.8], lenient, [0.2, 0.2])) == [("open", 0, 1)]


def test_an_open_alert_is_neither_snoozed_nor_woken_after_it_opened() -> None:
    snoozed = replace(POLICY, schedule=Schedule(snooze_until_seconds=1e9))
    changes = changed([0.7, 0.8], snoozed, [0.1, 0.9])
    assert [(c.is_closed, c.suppression) for c in changes] == [
        (False, None), (True, None), (False, Suppression.SNOOZED),
    ]  # fmt: skip


def test_an_event_that_nobody_has_heard_of_must_reach_the_new_threshold_and_length() -> None:
    assert changed([0.7], replace(POLICY, open_threshold=0.9), [0.8, 0.8]) == []
    assert told(changed([0.7], replace(POLICY, open_threshold=0.9), [0.95])) == [("open", 0, 1)]
    assert changed([0.7], replace(POLICY, min_duration_seconds=9.0), [0.8, 0.8]) == []
    assert told(changed([0.5], replace(POLICY, open_threshold=0.45), [0.5])) == [("open", 1, 1)]


def test_an_alert_that_lasts_longer_than_a_new_maximum_is_split_at_once() -> None:
    short = replace(POLICY, max_duration_seconds=1.0)
    assert told(changed([0.7, 0.8, 0.7], short, [0.7])) == [
        ("open", 0, 1), ("split", 0, 2), ("open", 3, 3),
    ]  # fmt: skip


# How it ends, and by which policy


def test_what_ends_an_alert_is_told() -> None:
    steady = spans([0.9, 0.9])
    ahead = replace(steady[1], start_seconds=9000.0, end_seconds=9001.5)
    for reason, ending in {
        EndReason.SCORE_FELL: replace(steady[1], score=0.1),
        EndReason.GAP: replace(steady[1], after_gap=True),
        EndReason.CLOCK_SET: ahead,
    }.items():
        machine = AlertMachine("cam", "b" * 64, POLICY)
        machine.push(steady[0])
        assert machine.push(ending)[0].end_reason is reason
    machine = AlertMachine("cam", "b" * 64, POLICY)
    machine.push(steady[0])
    (closed,) = machine.finish(EndReason.STOPPED)
    assert (closed.end_reason, machine.finish()) == (EndReason.STOPPED, [])
    assert closed.remarks == " (stopped)"
    assert replace(closed, suppression=Suppression.COOLDOWN).remarks == (
        " (stopped, not delivered: cooldown)"
    )


def test_what_may_become_an_alert_can_be_seen_before_it_is_one() -> None:
    machine = AlertMachine("cam", "b" * 64, replace(POLICY, min_duration_seconds=3.0))
    seen = []
    for span in spans([0.1, 0.7, 0.9, 0.1]):
        machine.push(span)
        seen.append(machine.event and (machine.event.first_sequence, machine.event.peak_score))
    assert seen == [None, (1, 0.7), (1, 0.9), None]


def test_a_long_event_costs_no_more_a_window_than_a_short_one() -> None:
    machine = AlertMachine("cam", "b" * 64, POLICY)
    spent = []
    for part in range(2):
        began = time.process_time()
        for sequence in range(part * 10_000, part * 10_000 + 10_000):
            machine.push(ScoredSpan(sequence, 2.0 * sequence, 2.0 * sequence + 1.5, 0.9, False))
        spent.append(time.process_time() - began)
    assert spent[1] < 3 * spent[0]
    assert len(machine.finish()[0].window_scores) == 20_000


def test_a_stream_tunes_what_it_names_and_the_server_the_rest() -> None:
    defaults = AlertDefaults()
    assert defaults.policy(0.5, AlertTuning()) == AlertPolicy(0.5, 0.4, 2.0, 5.0, 3600.0, 0.0)
    quiet = QuietHours((1,), "22:00", "06:00", "UTC")
    tuning = AlertTuning(0.5, 0.0, 1.0, 60.0, 30.0, (quiet,), 99.0)
    assert defaults.policy(0.5, tuning) == AlertPolicy(
        0.5, 0.5, 0.0, 1.0, 60.0, 30.0, Schedule((quiet,), 99.0)
    )
    with pytest.raises(PolicyError, match=r"close_threshold \(0.6\) must be at most .* 0.5 here"):
        defaults.policy(0.5, AlertTuning(close_threshold=0.6))
