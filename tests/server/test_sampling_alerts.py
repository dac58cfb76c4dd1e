"""What becomes of alerts where not every window is scored."""

from __future__ import annotations

import numpy as np
import pytest

from server.alert_machine import AlertMachine
from server.alerts import Alert, AlertPolicy, AlertState, EndReason, ScoredSpan
from server.sampler import WindowSampler
from server.sampling import EVERY_WINDOW, OnMotion, Sampling
from server.series import ScoreSeries
from server.windows import Window

WINDOW_SECONDS = 1.6
POLICY = AlertPolicy(0.5, 0.4, min_duration_seconds=2.0, merge_gap_seconds=5.0)


def window(number: int, *, moving: bool) -> Window:
    images = np.full((4, 32, 32, 3), 90, np.uint8)
    if moving:
        for frame in range(4):
            images[frame, 8:16, 4 * frame : 4 * frame + 8] = 200
    end = (number + 1) * WINDOW_SECONDS
    return Window(number, images, 0, 16, end - 1.5, end, end - 1.5, end, end)


def alerts_of(rule: Sampling, scene: str) -> list[tuple[int, Alert]]:
    """Changes of alerts with the window that made them; a scene is M (moves) and s (still).

    What moves is anomalous, and nothing else is.
    """
    sampler, machine = WindowSampler(rule), AlertMachine("door", "b" * 64, POLICY)
    changes = []
    for number, what in enumerate(scene):
        seen = window(number, moving=what == "M")
        score = 0.9 if what == "M" else 0.1
        scored = sampler.opens(number) and sampler.judge(seen) is None
        span = ScoredSpan(
            sequence=number,
            start_seconds=seen.start_capture_seconds,
            end_seconds=seen.end_capture_seconds,
            score=score if scored else None,
            after_gap=number == 0,
        )
        changes += [(number, alert) for alert in machine.push(span)]
    return changes


@pytest.mark.parametrize("still_seconds", [5.0, 60.0, 3600.0])
def test_an_alert_ends_after_the_merge_gap_however_seldom_a_still_scene_is_scored(
    still_seconds: float,
) -> None:
    (opened_at, opened), (closed_at, closed) = alerts_of(
        OnMotion(still_seconds), "s" * 8 + "M" * 5 + "s" * 20
    )
    assert (opened_at, opened.state) == (9, AlertState.OPEN)
    assert (opened.first_sequence, closed.last_sequence) == (8, 12)
    assert closed.end_reason is EndReason.SCORE_FELL
    waited_seconds = (closed_at - closed.last_sequence) * WINDOW_SECONDS
    assert POLICY.merge_gap_seconds <= waited_seconds
    assert waited_seconds <= POLICY.merge_gap_seconds + WINDOW_SECONDS


def test_on_motion_the_alerts_are_those_of_every_window() -> None:
    scene = "ssssMMMsssssssMMMMMMsMMssssssssssMMsMMssssssss"
    gated, whole = (
        [(a.first_sequence, a.last_sequence) for _, a in alerts_of(rule, scene) if a.is_closed]
        for rule in (OnMotion(30.0), EVERY_WINDOW)
    )
    assert gated == whole == [(4, 6), (14, 22), (33, 37)]


@pytest.mark.parametrize("low_before", [False, True])
def test_a_window_without_a_score_opens_nothing_and_ends_nothing_high(low_before: bool) -> None:
    machine = AlertMachine("door", "b" * 64, POLICY)

    def push(number: int, score: float | None) -> list[Alert]:
        start = number * WINDOW_SECONDS
        return machine.push(ScoredSpan(number, start, start + 1.5, score, after_gap=False))

    assert [push(number, None) for number in range(4)] == [[]] * 4
    push(4, 0.9)
    assert [alert.state for alert in push(5, 0.9)] == [AlertState.OPEN]
    if low_before:
        push(6, 0.1)
    changes = [alert for number in range(7, 60) for alert in push(number, None)]
    assert [alert.end_reason for alert in changes] == [EndReason.SCORE_FELL] * low_before


@pytest.mark.parametrize(("still", "watched_windows"), [(True, 10), (False, 4)])
def test_time_in_which_nothing_moved_counts_as_watched_and_lost_time_does_not(
    still: bool, watched_windows: int
) -> None:
    spans = [
        ScoredSpan(
            number,
            number * WINDOW_SECONDS,
            (number + 1) * WINDOW_SECONDS,
            score=None if number % 10 in range(2, 8) else 0.2,
            after_gap=number == 0,
            still=still and number % 10 in range(2, 8),
        )
        for number in range(10)
    ]
    watched = ScoreSeries.of(spans).watched_seconds().sum()
    assert watched == pytest.approx(watched_windows * WINDOW_SECONDS)
