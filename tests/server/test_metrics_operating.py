"""Alarms held against events by hand, operating curves, flips and duty."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.alert_machine import AlertMachine
from server.alerts import AlertPolicy, ScoredSpan
from server.metrics import Rate
from server.operating import (
    Alarm,
    OperatingPoint,
    ScoreTrace,
    StreamTruth,
    TruthEvent,
    alert_duty,
    at_budget,
    candidate_thresholds,
    event_figures,
    flips_per_minute,
    operating_curve,
)

HOUR = 3600.0


def stream(name: str, seconds: float, *events: tuple[float, float]) -> StreamTruth:
    return StreamTruth(name, seconds, tuple(TruthEvent(*event) for event in events))


def delays(truth: StreamTruth, *alarms: tuple[float, float]) -> list[float]:
    found = event_figures([truth], [Alarm(truth.stream_id, *alarm) for alarm in alarms])
    return [outcome.delay_seconds for outcome in found.outcomes]


def test_events_and_alarms_by_hand() -> None:
    truths = [stream("a", HOUR, (100, 140), (200, 260)), stream("b", HOUR / 2, (10, 30))]
    alarms = [
        Alarm("a", 50, 90),  # false
        Alarm("a", 112, 120),  # 12 s late
        Alarm("a", 130, 150),  # the same event again
        Alarm("b", 40, 45),  # after b's event: false, and b's event is missed
    ]
    found = event_figures(truths, alarms)
    assert [outcome.delay_seconds for outcome in found.outcomes] == [12, 60, 20]
    assert [outcome.is_detected for outcome in found.outcomes] == [True, False, False]
    assert found.recall == pytest.approx(1 / 3)
    assert found.mean_delay_seconds == pytest.approx(92 / 3)
    # Halfway in rank from 20 to 60 is 1.5 of 2; 0.9 of 2 ranks is 1.8.
    assert found.p90_delay_seconds == pytest.approx(20 + 0.8 * 40)
    assert found.false_alarms == (alarms[0], alarms[3])
    assert found.normal_hours == pytest.approx((1.5 * HOUR - 120) / HOUR)
    assert found.normal_alarm_hours == pytest.approx((40 + 10 + 5) / HOUR)
    assert found.false_alarm_rate == Rate(2, found.normal_hours)


def test_an_alarm_open_before_the_event_detects_it_at_once_and_is_not_false() -> None:
    found = event_figures([stream("a", 100, (50, 60))], [Alarm("a", 20, 50.1)])
    assert found.outcomes[0].was_open_before
    assert found.outcomes[0].delay_seconds == 0
    assert (found.recall, found.false_alarms) == (1.0, ())
    assert found.normal_duty == pytest.approx(30 / 90)


@pytest.mark.parametrize(
    ("alarm", "detected"),
    [
        ((40, 50), False),  # closed as the event began
        ((40, 50.1), True),
        ((50, 50), True),  # opens and closes with the event's first moment
        ((59.9, 80), True),
        ((60, 80), False),  # opened once it was over
    ],
)
def test_the_edges_of_an_event(alarm: tuple[float, float], detected: bool) -> None:
    found = event_figures([stream("a", 100, (50, 60))], [Alarm("a", *alarm)])
    assert found.outcomes[0].is_detected == detected
    assert len(found.false_alarms) == (not detected)


def test_one_alarm_over_two_events_detects_both() -> None:
    truth = stream("a", 100, (10, 20), (30, 40))
    assert delays(truth, (14, 35)) == [4, 0]
    assert delays(truth, (33, 38), (14, 35)) == [4, 0]


def test_an_alarm_without_end_is_perfect_but_for_its_duty() -> None:
    found = event_figures([stream("a", HOUR, (100, 140))], [Alarm("a", 0, HOUR)])
    assert (found.recall, found.mean_delay_seconds, len(found.false_alarms)) == (1, 0, 0)
    assert found.normal_duty == pytest.approx(1.0)


def test_time_under_several_alarms_counts_once_and_never_outside_the_stream() -> None:
    alarms = [Alarm("a", -5, 10), Alarm("a", 5, 20), Alarm("a", 45, 55), Alarm("a", 95, 200)]
    found = event_figures([stream("a", 100, (40, 50))], alarms)
    assert found.normal_alarm_hours * HOUR == pytest.approx(20 + 5 + 5)
    late = event_figures([stream("a", 100, (40, 50))], [Alarm("a", 120, 130)])
    assert (late.normal_alarm_hours, len(late.false_alarms)) == (0.0, 1)


def test_an_alarm_on_one_stream_says_nothing_of_another() -> None:
    found = event_figures([stream("a", 100, (10, 20)), stream("b", 100)], [Alarm("b", 12, 15)])
    assert found.recall == 0
    assert [alarm.stream_id for alarm in found.false_alarms] == ["b"]


def test_without_events_only_false_alarms_are_defined() -> None:
    found = event_figures([stream("a", HOUR)], [Alarm("a", 1, 2)])
    assert (found.recall, found.mean_delay_seconds, found.p90_delay_seconds) == (None, None, None)
    assert found.false_alarm_rate.per_hour == 1.0
    assert event_figures([stream("a", 60, (0, 60))], []).normal_duty is None


def test_truths_and_alarms_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="must end"):
        TruthEvent(5, 5)
    with pytest.raises(ValueError, match="no earlier than it opens"):
        Alarm("a", 5, 4.9)
    for events in ([(0, 20), (10, 30)], [(20, 30), (0, 10)], [(90, 101)], [(-1, 5)]):
        with pytest.raises(ValueError, match="ascending, disjoint and inside"):
            stream("a", 100, *events)
    with pytest.raises(ValueError, match="inside"):
        stream("a", 0)
    with pytest.raises(ValueError, match="has no truth"):
        event_figures([stream("a", 100)], [Alarm("b", 1, 2)])
    with pytest.raises(ValueError, match="twice"):
        event_figures([stream("a", 100), stream("a", 100)], [])


spans = st.tuples(st.integers(0, 90), st.integers(1, 30)).map(lambda s: (s[0], s[0] + s[1]))


@given(st.lists(spans, max_size=5), spans)
def test_one_more_alarm_never_misses_more_nor_later(
    alarms: list[tuple[int, int]], extra: tuple[int, int]
) -> None:
    truth = stream("a", 130, (20, 30), (60, 90))
    before, after = delays(truth, *alarms), delays(truth, *alarms, extra)
    assert all(b >= a >= 0 for b, a in zip(before, after, strict=True))


@given(st.lists(spans, max_size=5), st.integers(0, 1000))
def test_a_later_clock_changes_no_figure_of_events(
    alarms: list[tuple[int, int]], shift: int
) -> None:
    def shifted(by: int) -> list[float]:
        truth = stream("a", 130 + by, (20 + by, 30 + by), (60 + by, 90 + by))
        return delays(truth, *((start + by, end + by) for start, end in alarms))

    assert shifted(shift) == shifted(0)


def test_all_distinct_scores_are_thresholds_while_they_are_few() -> None:
    assert candidate_thresholds(np.array([0.5, 0.1, 0.5, 0.9])) == [0.1, 0.5, 0.9]


def test_of_many_scores_the_top_is_kept_and_the_rest_thinned() -> None:
    scores = np.random.default_rng(0).permutation(10_000) / 10_000
    found = candidate_thresholds(scores)
    assert 120 <= len(found) <= 200
    assert found == sorted(set(found))
    assert set(found) <= set(scores.tolist())
    assert found[-5:] == [0.9995, 0.9996, 0.9997, 0.9998, 0.9999]
    assert found[0] == 0.0
    # The even half leaves no gap of much over 1 in 100.
    assert np.diff(found).max() < 0.0102


WINDOW_SECONDS = 2.0


def alarms_of(scores: Sequence[float], threshold: float) -> list[Alarm]:
    """What the server's machine opens on a stream of two-second windows."""
    machine = AlertMachine("a", "", AlertPolicy(threshold, threshold, 2 * WINDOW_SECONDS))
    changes = []
    for sequence, score in enumerate(scores):
        start_seconds = sequence * WINDOW_SECONDS
        end_seconds = start_seconds + WINDOW_SECONDS
        changes += machine.push(ScoredSpan(sequence, start_seconds, end_seconds, score, False))
    changes += machine.finish()
    return [
        Alarm("a", opened.end_seconds, closed.end_seconds)
        for opened, closed in zip(changes[::2], changes[1::2], strict=True)
    ]


def test_an_operating_curve_over_the_servers_own_alert_machine() -> None:
    scores = [0.1, 0.3, 0.3, 0.1, 0.5, 0.5, 0.7, 0.7, 0.1, 0.1]
    truth = stream("a", 20, (8, 16))
    thresholds = candidate_thresholds(np.array(scores))
    curve = operating_curve([truth], [0.7, *thresholds], lambda t: alarms_of(scores, t))
    assert [point.threshold for point in curve] == [0.1, 0.3, 0.5, 0.7]
    # At 0.1 one alarm from 4 s to the end; 0.3 adds a false one; 0.5 opens at 12 s, 0.7 at 16 s.
    assert [point.false_alarms.events for point in curve] == [0, 1, 0, 1]
    assert [point.recall for point in curve] == [1, 1, 1, 0]
    assert [point.mean_delay_seconds for point in curve] == [0, 4, 4, 8]
    assert [point.normal_duty for point in curve] == pytest.approx([8 / 12, 0, 0, 0])
    assert {point.false_alarms.hours for point in curve} == {12 / HOUR}


def point(threshold: float, events: int, duty: float = 0.01) -> OperatingPoint:
    return OperatingPoint(threshold, Rate(events, 10.0), 0.5, 1.0, 2.0, duty)


def test_the_budget_takes_the_lowest_threshold_that_keeps_it() -> None:
    curve = [point(0.2, 50), point(0.4, 10), point(0.6, 9), point(0.8, 0)]
    assert at_budget(curve, 1.0) == curve[1]
    assert at_budget(curve, 0.99) == curve[2]
    assert at_budget(curve, 0.0) == curve[3]
    assert at_budget(curve, 100.0) == curve[0]


def test_alarms_that_ran_together_are_no_way_back_into_the_budget() -> None:
    curve = [point(0.1, 1), point(0.4, 50), point(0.8, 2)]
    assert at_budget(curve, 1.0) == curve[2]


def test_an_alarm_that_hardly_closes_is_no_operating_point() -> None:
    curve = [point(0.1, 1, duty=0.9), point(0.4, 2, duty=0.2)]
    assert at_budget(curve, 1.0) == curve[1]
    assert at_budget(curve, 1.0, max_normal_duty=1.0) == curve[0]


def test_a_budget_that_nothing_keeps_gives_no_point() -> None:
    assert at_budget([point(0.8, 11)], 1.0) is None
    assert at_budget([], 1.0) is None
    timeless = OperatingPoint(0.5, Rate(0, 0.0), 1.0, 0.0, 0.0, None)
    assert at_budget([timeless], 1.0) is None


def trace(times: list[float], scores: list[float], end_seconds: float) -> ScoreTrace:
    return ScoreTrace(np.array(times), np.array(scores), end_seconds)


def test_flips_and_duty_by_hand() -> None:
    found = trace([0, 10, 20, 50], [0.2, 0.5, 0.9, 0.1], 120)
    assert flips_per_minute(found, 0.5) == 1.0  # up at 10 s, down at 50 s, two minutes
    assert alert_duty(found, 0.5) == pytest.approx(40 / 120)
    assert flips_per_minute(found, 0.05) == 0.0
    assert alert_duty(found, 0.05) == 1.0
    assert alert_duty(found, 0.91) == 0.0
    # A score at the threshold is over it.
    assert flips_per_minute(trace([0, 30], [0.2, 0.5], 60), 0.5) == 1.0


def test_a_trace_of_no_time_has_neither() -> None:
    found = trace([5], [0.9], 5)
    assert flips_per_minute(found, 0.5) is None
    assert alert_duty(found, 0.5) is None


@pytest.mark.parametrize(
    ("times", "scores", "end_seconds"),
    [([], [], 1.0), ([0, 1], [0.5], 2.0), ([1, 0], [0.5, 0.5], 2.0), ([0, 3], [0.5, 0.5], 2.0)],
)
def test_a_trace_whose_times_make_no_sense_is_refused(
    times: list[float], scores: list[float], end_seconds: float
) -> None:
    with pytest.raises(ValueError, match=r"trace needs|one time a score"):
        trace(times, scores, end_seconds)
