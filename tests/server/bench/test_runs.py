"""What is made of what a watcher saw: figures, and whether a load was held."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.bench.run import (
    Seen,
    behind_seconds,
    complaints,
    drops_by_reason,
    latency_of,
    worst_p99_seconds,
)
from tests.support.bench_runs import a_run

WINDOW_FRAMES, WINDOW_SECONDS = 40, 1.6


def seen(
    stream_id: str, count: int, *, pace: float = 1.0, latency_seconds: float = 0.1, since: int = 0
) -> list[Seen]:
    """Windows of a camera at 25 frames a second, of which `pace` are decoded in time."""
    return [
        Seen(
            stream_id,
            number * WINDOW_SECONDS / pace,
            latency_seconds,
            (since + number) * WINDOW_FRAMES,
            None,
        )
        for number in range(1, count + 1)
    ]


@given(st.integers(2, 50), st.integers(0, 10**6))
def test_a_camera_that_is_kept_up_with_does_not_fall_behind(count: int, since: int) -> None:
    windows = seen("a", count, since=since)
    assert behind_seconds(windows, {"a": 25.0}) == pytest.approx(0, abs=1e-6)


@given(st.integers(2, 50), st.floats(0.5, 0.99))
def test_a_decoder_too_slow_for_its_camera_falls_behind_by_what_it_lacks(
    count: int, pace: float
) -> None:
    windows = seen("a", count) + seen("b", count, pace=pace)
    lacking_seconds = (count - 1) * WINDOW_SECONDS * (1 / pace - 1)
    assert behind_seconds(windows, {"a": 25.0, "b": 25.0}) == pytest.approx(lacking_seconds)


def test_a_camera_that_connects_anew_has_fallen_behind() -> None:
    windows = seen("a", 5, since=100) + seen("a", 2)
    assert behind_seconds(windows, {"a": 25.0}) > 100


def test_nothing_is_told_of_cameras_whose_rate_nobody_knows() -> None:
    assert behind_seconds(seen("a", 9, pace=0.5), {"a": None}) == 0


def test_the_worst_camera_hides_in_no_crowd() -> None:
    windows = [one for name in "abcdefgh" for one in seen(name, 9)]
    slow = seen("slow", 9, latency_seconds=0.8)
    assert worst_p99_seconds(windows + slow) == pytest.approx(0.8)


@given(st.lists(st.floats(0, 100), min_size=1), st.randoms())
def test_quantiles_rise_and_ignore_the_order(values: list[float], dice: object) -> None:
    found = latency_of(values)
    assert found is not None
    assert found.p50 <= found.p95 <= found.p99 <= found.max == max(values)
    assert latency_of(sorted(values)) == found


def test_drops_are_counted_by_reason() -> None:
    reasons = ["overload", "backlog", None, "overload"]
    windows = [Seen("a", 0.0, 0.1, 40, reason) for reason in reasons]
    assert drops_by_reason(windows) == (("backlog", 1), ("overload", 2))


def test_a_load_that_was_held_has_nothing_against_it() -> None:
    assert complaints(a_run(8), 1.0) == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"p99_seconds": 1.0}, "p99 latency 1.00 s, not under 1 s"),
        ({"dropped": (("overload", 2),)}, "windows dropped (2 overload)"),
        ({"behind_seconds": 0.5}, "a camera fell 0.50 s behind in 20 s"),
        ({"silent": 1}, "1 gave no window"),
        ({"refused": 2, "refusal": "full"}, "the server refused 2 of 8: full"),
    ],
)
def test_each_fault_is_named(changes: dict[str, object], words: str) -> None:
    assert complaints(a_run(8, **changes), 1.0) == (words,)  # type: ignore[arg-type]
