"""What streams, engine and the rest of the server took, by counts that come in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.engine.pace import Pace, WindowCost
from server.usage import SETTLE_SECONDS, START_SECONDS, Rate, Usage

PACE = Pace(1, WindowCost(0.010, 0.010), WindowCost(0.010, 0.010), 8)


def watch(
    usage: Usage,
    stream_id: str,
    seconds: int,
    *,
    cpu: float,
    windows: int,
    for_engine: int | None = None,
    live: bool = True,
    begin: float = 0.0,
) -> None:
    """A stream that tells once a second, the opening of its source first."""
    usage.told(stream_id, begin, 0.0)
    for second in range(1, seconds + 1):
        usage.closed(stream_id, windows, windows if for_engine is None else for_engine, live=live)
        usage.told(stream_id, begin + second, cpu)


@given(st.lists(st.tuples(st.floats(0.01, 5), st.floats(0, 3)), min_size=1))
def test_a_rate_lies_between_the_lowest_and_the_highest(told: list[tuple[float, float]]) -> None:
    rate = Rate([0.0])
    for seconds, per_second in told:
        rate.add(seconds, seconds * per_second)
    [found] = rate.per_second()
    assert min(p for _, p in told) - 1e-9 <= found <= max(p for _, p in told) + 1e-9


def test_a_stream_is_measured_once_it_was_watched_for_a_while() -> None:
    usage = Usage(PACE)
    watch(usage, "a", int(SETTLE_SECONDS) - 1, cpu=0.05, windows=2)
    assert usage.accounts()["a"].cost is None
    watch(usage, "a", 4, cpu=0.05, windows=2, begin=SETTLE_SECONDS - 1)
    cost = usage.accounts()["a"].cost
    assert cost is not None
    assert cost.decode_cores == pytest.approx(0.05)
    assert cost.encode.cores == pytest.approx(0.02)
    assert "unknown" not in usage.accounts()


def test_the_opening_of_a_source_is_no_rate_of_it() -> None:
    usage = Usage(PACE)
    usage.told("a", 0.0, 5.0)
    for second in range(1, 6):
        usage.told("a", float(second), 0.1)
    usage.interrupted("a")
    usage.told("a", 20.0, 9.0)
    usage.told("a", 21.0, 0.1)
    cost = usage.accounts()["a"].cost
    assert cost is not None
    assert cost.decode_cores == pytest.approx(0.1)


def test_a_stream_that_was_away_keeps_what_it_took() -> None:
    usage = Usage(PACE)
    watch(usage, "a", 10, cpu=0.2, windows=1)
    usage.told("a", 4000.0, 0.2)
    cost = usage.accounts()["a"].cost
    assert cost is not None
    assert cost.decode_cores == pytest.approx(0.2)


def test_a_camera_that_switches_to_more_is_seen_within_a_minute() -> None:
    usage = Usage(PACE)
    watch(usage, "a", 300, cpu=0.05, windows=1)
    watch(usage, "a", 60, cpu=0.40, windows=1, begin=301.0)
    cost = usage.accounts()["a"].cost
    assert cost is not None
    assert 0.3 < cost.decode_cores < 0.4


def test_thinned_windows_count_in_full_and_their_share_is_told() -> None:
    usage = Usage(PACE)
    watch(usage, "a", 10, cpu=0.05, windows=4, for_engine=1)
    cost = usage.accounts()["a"].cost
    assert cost is not None
    assert cost.encode.cores == pytest.approx(0.04)
    assert usage.accounts()["a"].share == pytest.approx(0.25)


def test_the_rest_is_what_neither_streams_nor_engine_took() -> None:
    usage = Usage(PACE)
    usage.looked(-START_SECONDS, {1: 70.0, 2: 20.0}, 1)
    usage.looked(0.0, {1: 100.0, 2: 50.0}, 1)
    watch(usage, "a", 10, cpu=0.05, windows=1)
    for _ in range(10):
        usage.ran(1)
    usage.looked(10.0, {1: 100.4, 2: 50.6}, 1)
    # One second in all, of which the stream took .5 and the engine .1, in ten seconds.
    assert usage.rest().cores == pytest.approx(0.04)


def test_files_pay_for_their_part_of_the_rest() -> None:
    usage = Usage(PACE)
    usage.looked(-START_SECONDS, {1: 0.0}, 1)
    usage.looked(0.0, {1: 0.0}, 1)
    watch(usage, "camera", 10, cpu=0.0, windows=1)
    watch(usage, "file", 10, cpu=0.0, windows=9, live=False)
    usage.looked(10.0, {1: 1.0}, 1)
    assert usage.rest().cores == pytest.approx(0.01)


def test_what_a_process_takes_to_start_is_no_rate_of_the_server() -> None:
    usage = Usage(PACE)
    for second in range(40):
        usage.looked(float(second), {1: 0.1 * second, 2: 900.0}, 1)
    assert usage.rest().cores == pytest.approx(0.1)
    for second in range(40, 50):
        usage.looked(float(second), {1: 0.1 * second, 3: float(second)}, 1)
    assert usage.rest().cores == pytest.approx(0.1)
    for second in range(50, 400):
        usage.looked(float(second), {1: 0.1 * second, 3: 50.0 + 0.1 * second}, 1)
    assert usage.rest().cores == pytest.approx(0.2, abs=0.01)


def test_accounts_that_come_late_never_make_it_less_than_nothing() -> None:
    usage = Usage(PACE)
    usage.looked(-START_SECONDS, {1: 0.0}, 1)
    usage.looked(0.0, {1: 0.0}, 1)
    watch(usage, "a", 3, cpu=2.0, windows=1)
    usage.looked(3.0, {1: 1.0}, 1)
    assert usage.rest().cores == 0.0


def test_a_window_is_priced_by_the_batches_of_late() -> None:
    usage = Usage(Pace(1, WindowCost(0.02, 0.01), WindowCost(0.01, 0.004), 8))
    assert usage.window().cores == 0.02
    for _ in range(200):
        usage.ran(8)
    assert usage.window().cores == pytest.approx(0.01)
    assert usage.window().engine == pytest.approx(0.004)
    for _ in range(2000):
        usage.ran(1)
    assert usage.window().cores == pytest.approx(0.02, rel=0.01)


def test_a_stream_that_goes_leaves_nothing() -> None:
    usage = Usage(PACE)
    watch(usage, "a", 10, cpu=0.2, windows=1)
    usage.forget("a")
    assert usage.accounts() == {}


def test_a_price_found_on_a_busy_machine_is_lowered_to_what_the_process_takes() -> None:
    usage = Usage(PACE)
    for second in range(60):
        usage.looked(float(second), {1: 0.08 * second, 2: 0.5 * second}, 1)
        for _ in range(20):
            usage.ran(1)  # .2 at its price
    assert usage.window().cores == pytest.approx(0.004, rel=0.05)
    assert usage.rest().cores == pytest.approx(0.5, rel=0.05)
