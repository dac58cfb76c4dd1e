"""Alerts held against events, where the right answer is known by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.event_figures import CoveringAlert, EventFigures, clip_figures
from server.metrics import poisson_interval
from server.truth import ClipTruth

TWO_EVENTS = ClipTruth(1000, 10.0, ((100, 200), (400, 500)))
"""100 s, of which 10 to 20 s and 40 to 50 s are anomalous."""


def alerts(*found: tuple[int, int, int]) -> list[CoveringAlert]:
    return [CoveringAlert(*one) for one in found]


def test_events_alerts_and_delays_by_hand() -> None:
    told = alerts(
        (20, 60, 40),  # false: it ends before the first event
        (120, 150, 132),  # opens 3.2 s into the first event
        (160, 260, 180),  # the same event again: true, but no second detection
        (600, 700, 620),  # false
    )
    found = clip_figures(TWO_EVENTS, told)
    assert (found.events, found.detected, found.alerts, found.false_alarms) == (2, 1, 4, 2)
    assert found.delays_seconds == (3.2,)
    assert found.recall == 0.5
    assert found.precision == pytest.approx(1 / 3)
    assert found.normal_hours == pytest.approx(80 / 3600)


def test_one_alert_over_two_events_detects_both_and_was_open_before_the_second() -> None:
    found = clip_figures(TWO_EVENTS, alerts((90, 450, 110)))
    assert (found.detected, found.false_alarms, found.precision, found.recall) == (2, 0, 1.0, 1.0)
    assert found.delays_seconds == (1.0, 0.0)


@pytest.mark.parametrize(
    ("covered", "detected"),
    [((90, 100), 0), ((90, 101), 1), ((199, 220), 1), ((200, 220), 0), ((0, 1000), 2)],
)
def test_one_common_frame_is_enough_and_touching_is_not(
    covered: tuple[int, int], detected: int
) -> None:
    found = clip_figures(TWO_EVENTS, alerts((*covered, covered[1])))
    assert (found.detected, found.false_alarms) == (detected, detected == 0)


def test_an_alert_that_opens_after_the_event_tells_so_by_its_delay() -> None:
    assert clip_figures(TWO_EVENTS, alerts((190, 260, 230))).delays_seconds == (13.0,)


def test_without_events_alerts_or_footage_there_is_no_figure() -> None:
    quiet = clip_figures(ClipTruth(100, 10.0, ()), [])
    assert (quiet.precision, quiet.recall, quiet.delay_seconds(0.5)) == (None, None, None)
    missed = clip_figures(TWO_EVENTS, [])
    assert (missed.precision, missed.recall, missed.detected) == (None, 0.0, 0)
    assert EventFigures(false_alarms=9).false_alarm_rate(24) is None


def test_quantiles_of_delays_are_interpolated() -> None:
    found = EventFigures(events=5, delays_seconds=(1.0, 4.0, 2.0, 10.0, 3.0))
    assert found.delay_seconds(0.5) == 3.0
    assert found.delay_seconds(0.9) == pytest.approx(4 + 0.6 * 6)


def test_false_alarms_are_a_rate_from_three_on() -> None:
    assert EventFigures(false_alarms=2, normal_hours=1000).false_alarm_rate(24) is None
    rate = EventFigures(false_alarms=4, normal_hours=48).false_alarm_rate(24)
    low, high = poisson_interval(4)
    assert rate == (2.0, low / 2, high / 2)


@st.composite
def clips(draw: st.DrawFn) -> tuple[ClipTruth, list[CoveringAlert]]:
    edges = sorted(draw(st.sets(st.integers(0, 200), max_size=8)))
    truth = ClipTruth(200, 10.0, tuple(zip(edges[::2], edges[1::2], strict=False)))
    spans = st.tuples(st.integers(0, 199), st.integers(1, 60), st.integers(1, 60))
    return truth, [
        CoveringAlert(first, first + length, first + min(opened, length))
        for first, length, opened in draw(st.lists(spans, max_size=6))
    ]


@given(clips())
def test_every_alert_is_false_or_detects_something(
    clip: tuple[ClipTruth, list[CoveringAlert]],
) -> None:
    truth, told = clip
    found = clip_figures(truth, told)
    alone = [clip_figures(truth, [alert]) for alert in told]
    assert all((one.detected == 0) == (one.false_alarms == 1) for one in alone)
    assert found.false_alarms == sum(one.false_alarms for one in alone)
    assert found.detected <= found.events
    assert all(delay >= 0 for delay in found.delays_seconds)
    # Another alert never makes recall worse.
    assert clip_figures(truth, told[:-1]).detected <= found.detected


@given(st.lists(clips(), max_size=4), st.randoms())
def test_a_total_does_not_depend_on_the_order_of_the_clips(
    many: list[tuple[ClipTruth, list[CoveringAlert]]], random
) -> None:
    figures = [clip_figures(*clip) for clip in many]
    shuffled = random.sample(figures, len(figures))
    one, other = sum(figures, EventFigures()), sum(shuffled, EventFigures())
    assert (one.precision, one.recall, one.false_alarms) == (
        other.precision, other.recall, other.false_alarms,
    )  # fmt: skip
    assert one.delay_seconds(0.9) == other.delay_seconds(0.9)
    assert one.normal_hours == pytest.approx(other.normal_hours)
