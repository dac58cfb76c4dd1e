"""A stream's tuning as people write it."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.tuning import QuietHours
from server.tuning_text import length_seconds, moment_seconds, quiet_hours, quiet_text

clocks = st.times().map(lambda one: f"{one:%H:%M}")
hours = st.builds(
    QuietHours,
    st.lists(st.integers(1, 7), max_size=7).map(tuple),
    clocks,
    clocks | st.just("24:00"),
    st.sampled_from(["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires"]),
)


@given(hours)
def test_quiet_hours_are_read_as_they_are_written(quiet: QuietHours) -> None:
    assert quiet_hours(quiet_text(quiet)) == quiet


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("Mon-Fri 22:00-06:00 UTC", (1, 2, 3, 4, 5)),
        ("fri-MON 22:00-06:00 UTC", (1, 5, 6, 7)),
        ("Sun,Tue-Wed 22:00-06:00 UTC", (2, 3, 7)),
        ("Mon-Mon 22:00-06:00 UTC", (1,)),
        ("  22:00-06:00   UTC ", ()),
    ],
)
def test_days_are_names_and_runs_of_them(text: str, days: tuple[int, ...]) -> None:
    assert quiet_hours(text) == QuietHours(days, "22:00", "06:00", "UTC")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("22:00-06:00", r"must be \[DAYS \]HH:MM-HH:MM ZONE"),
        ("Mo 22:00-06:00 UTC", "'Mo' is no day"),
        ("Mon 22-06 UTC", r"start \('22'\) must be HH:MM"),
        ("Mon 22:00-24:30 UTC", r"end \('24:30'\) must be HH:MM"),
        ("Mon 22:00-06:00 Mars/Olympus", "must be an IANA name"),
        ("Mon 22:00-06:00 ../etc/passwd", "must be an IANA name"),
    ],
)
def test_quiet_hours_that_make_no_sense_are_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        quiet_hours(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("30", 30), ("1.5s", 1.5), ("5m", 300), ("2h", 7200), ("1d", 86_400)],
)
def test_lengths_are_seconds_or_have_a_unit(text: str, seconds: float) -> None:
    assert length_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "-1", "5 minutes", "1e3", "nan", "h", "9" * 40, "1h30m"])
def test_no_length_is_one_sentence(text: str) -> None:
    with pytest.raises(ValueError, match="is no length of time; give seconds, or 30s"):
        length_seconds(text)


def test_a_moment_has_an_offset_or_is_local() -> None:
    assert moment_seconds("2026-11-27T06:00+01:00") == moment_seconds("2026-11-27T05:00:00Z")
    local = datetime(2026, 11, 27, 6).astimezone()
    assert moment_seconds("2026-11-27T06:00") == local.timestamp()
    for text in ("2026-11-27 6 am", "tomorrow", "2026-13-01", ""):
        with pytest.raises(ValueError, match="is no moment"):
            moment_seconds(text)
