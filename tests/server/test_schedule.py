"""Quiet hours against clocks on walls, through the nights on which those are set."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.schedule import NEVER_QUIET, Schedule, is_within
from server.tuning import QuietHours

MON, FRI, SAT, SUN = 1, 5, 6, 7
BERLIN = "Europe/Berlin"


def at(text: str, zone: str = "UTC", fold: int = 0) -> float:
    """UTC seconds at which a clock of the zone shows this."""
    shown = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)
    return shown.timestamp()


def quiet(start: str, end: str, *days: int, zone: str = BERLIN) -> QuietHours:
    return QuietHours(days, start, end, zone)


def changes(hours: QuietHours, first: str, last: str) -> list[str]:
    """UTC times, to the minute, at which it gets quiet or loud, between two of them."""
    moment, until = datetime.fromisoformat(f"{first}Z"), datetime.fromisoformat(f"{last}Z")
    found, before = [], is_within(hours, moment.timestamp())
    while moment < until:
        now = is_within(hours, moment.timestamp())
        if now != before:
            found.append(f"{moment:%d %H:%M} {'quiet' if now else 'loud'}")
        before = now
        moment += timedelta(minutes=1)
    return found


def test_hours_over_midnight_belong_to_the_day_on_which_they_begin() -> None:
    # 2026-11-27 is a Friday; Berlin is an hour ahead of UTC.
    weekend = quiet("22:00", "06:00", FRI)
    assert changes(weekend, "2026-11-23T00:00", "2026-11-30T00:00") == [
        "27 21:00 quiet", "28 05:00 loud",
    ]  # fmt: skip


def test_an_end_at_or_before_the_start_lies_on_the_next_day() -> None:
    whole = quiet("08:00", "08:00", SUN, zone="UTC")
    assert changes(whole, "2026-11-28T00:00", "2026-12-01T00:00") == [
        "29 08:00 quiet", "30 08:00 loud",
    ]  # fmt: skip
    until_midnight = quiet("20:00", "24:00", MON, zone="UTC")
    assert changes(until_midnight, "2026-11-29T00:00", "2026-12-02T00:00") == [
        "30 20:00 quiet", "01 00:00 loud",
    ]  # fmt: skip
    assert (
        changes(quiet("00:00", "24:00", zone="UTC"), "2026-11-29T00:00", "2026-12-02T00:00") == []
    )


def test_a_zone_decides_which_day_it_is() -> None:
    saturday = quiet("00:00", "24:00", SAT, zone="Pacific/Auckland")  # 13 hours ahead
    assert changes(saturday, "2026-11-26T00:00", "2026-11-30T00:00") == [
        "27 11:00 quiet", "28 11:00 loud",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("hours", "expected"),
    [
        # On 29 March 2026 Berlin's clocks go from 02:00 to 03:00, at 01:00 UTC.
        (("02:30", "04:00"), ["29 01:00 quiet", "29 02:00 loud"]),
        (("01:00", "02:30"), ["29 00:00 quiet", "29 01:00 loud"]),
        (("02:10", "02:50"), []),
        (("22:00", "06:00"), ["28 21:00 quiet", "29 04:00 loud"]),
    ],
)
def test_an_hour_that_daylight_saving_leaves_out(
    hours: tuple[str, str], expected: list[str]
) -> None:
    assert changes(quiet(*hours), "2026-03-28T12:00", "2026-03-29T12:00") == expected


@pytest.mark.parametrize(
    ("hours", "expected"),
    [
        # On 25 October 2026 they go from 03:00 back to 02:00, at 01:00 UTC.
        (("02:00", "03:00"), ["25 00:00 quiet", "25 02:00 loud"]),
        (("22:00", "06:00"), ["24 20:00 quiet", "25 05:00 loud"]),
        # Both times that the clock shows 02:30.
        (
            ("02:30", "04:00"),
            ["25 00:30 quiet", "25 01:00 loud", "25 01:30 quiet", "25 03:00 loud"],
        ),
    ],
)
def test_an_hour_that_comes_twice(hours: tuple[str, str], expected: list[str]) -> None:
    assert changes(quiet(*hours), "2026-10-24T12:00", "2026-10-25T12:00") == expected
    assert is_within(quiet("02:00", "03:00"), at("2026-10-25T02:30", BERLIN, fold=0))
    assert is_within(quiet("02:00", "03:00"), at("2026-10-25T02:30", BERLIN, fold=1))


def test_seconds_count_for_the_minute_that_they_lie_in() -> None:
    hours = quiet("10:00", "11:00", zone="UTC")
    noon = at("2026-11-27T10:00")
    assert [is_within(hours, noon + s) for s in (-0.001, 0, 3599.999, 3600)] == [
        False, True, True, False,
    ]  # fmt: skip


clocks = st.times().map(lambda one: f"{one:%H:%M}")
zones = st.sampled_from([BERLIN, "America/New_York", "Asia/Kathmandu", "Pacific/Apia", "UTC"])


@given(
    st.lists(st.integers(1, 7), max_size=7), clocks, clocks | st.just("24:00"), zones,
    st.floats(-1e11, 3e11),
)  # fmt: skip
def test_what_a_clock_on_the_wall_shows_decides(
    days: list[int], start: str, end: str, zone: str, moment: float
) -> None:
    hours = QuietHours(tuple(days), start, end, zone)
    on = set(days) or set(range(1, 8))
    inside = min(max(moment, at("0001-01-03T00:00")), at("9999-12-29T00:00"))
    local = datetime.fromtimestamp(inside, ZoneInfo(zone))
    clock, day = f"{local:%H:%M}", local.date()
    # "24:00" sorts after every time of a day, so text compares as time does.
    begun = {that: date.isoweekday(that) in on for that in (day, day - timedelta(days=1))}
    if start < end:
        expected = begun[day] and start <= clock < end
    else:
        today, yesterday = begun
        expected = (begun[today] and clock >= start) or (begun[yesterday] and clock < end)
    assert is_within(hours, moment) == expected


def test_no_moment_breaks_it_however_far() -> None:
    hours = (quiet("22:00", "06:00", zone="Pacific/Auckland"),)
    for moment in (-62_135_596_800.0, 253_402_300_799.9, -1e300, 1e300):
        assert Schedule(hours).is_quiet(moment) in (True, False)


def test_any_of_several_quiet_hours_is_enough_and_none_is_never() -> None:
    hours = (quiet("10:00", "11:00", zone="UTC"), quiet("13:00", "14:00", zone="UTC"))
    moments = [at(f"2026-11-27T{hour}:30") for hour in (10, 12, 13)]
    assert [Schedule(hours).is_quiet(moment) for moment in moments] == [True, False, True]
    assert not NEVER_QUIET.is_quiet(moments[0])


def test_a_snooze_ends_at_its_moment() -> None:
    until = datetime(2026, 11, 27, tzinfo=UTC).timestamp()
    assert Schedule(snooze_until_seconds=until).is_snoozed(until - 0.001)
    assert not Schedule(snooze_until_seconds=until).is_snoozed(until)
    assert not NEVER_QUIET.is_snoozed(until)
