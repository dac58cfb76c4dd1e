"""A stream's tuning as people write it, read and written: lengths of time, quiet hours."""

from __future__ import annotations

import re
from datetime import datetime

from server.tuning import QuietHours
from server.wording import quoted

_LENGTH = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([smhd]?)")
_UNIT_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_QUIET = re.compile(r"(?:(?P<days>[A-Za-z,-]+) )?(?P<start>[\d:]+)-(?P<end>[\d:]+) (?P<zone>\S+)")


def length_seconds(text: str) -> float:
    """A length of time in seconds.

    >>> length_seconds("90"), length_seconds("1.5h")
    (90.0, 5400.0)

    Raises:
        ValueError: it is none.
    """
    found = _LENGTH.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{quoted(text)} is no length of time; give seconds, or 30s, 5m, 2h, 1d")
    return float(found[1]) * _UNIT_SECONDS[found[2]]


def moment_seconds(text: str) -> float:
    """UTC seconds of a moment in ISO 8601; without an offset it is this machine's local time.

    >>> moment_seconds("2026-11-27T06:00Z")
    1795759200.0

    Raises:
        ValueError: it is none.
    """
    try:
        return datetime.fromisoformat(text.strip()).timestamp()
    except (ValueError, OverflowError, OSError):  # a year that the local clock cannot show
        raise ValueError(
            f"{quoted(text)} is no moment; give it as 2026-11-27T06:00 or with its offset, "
            "2026-11-27T06:00+01:00"
        ) from None


def quiet_hours(text: str) -> QuietHours:
    """Quiet hours such as `Mon-Fri 22:00-06:00 Europe/Berlin`; no days mean every day.

    >>> quiet_hours("Sat,Sun 00:00-24:00 UTC").days
    (6, 7)

    Raises:
        ValueError: they cannot be used.
    """
    found = _QUIET.fullmatch(" ".join(text.split()))
    if found is None:
        raise ValueError(
            f"{quoted(text)} must be [DAYS ]HH:MM-HH:MM ZONE, "
            "such as Mon-Fri 22:00-06:00 Europe/Berlin"
        )
    days = [day for part in (found["days"] or "").split(",") if part for day in _days(part)]
    return QuietHours(tuple(days), found["start"], found["end"], found["zone"])


def quiet_text(quiet: QuietHours) -> str:
    """Quiet hours as `quiet_hours` reads them.

    >>> quiet_text(QuietHours((1, 2, 3, 6), "22:00", "06:00", "UTC"))
    'Mon-Wed,Sat 22:00-06:00 UTC'
    """
    runs: list[list[int]] = []
    for day in quiet.days:
        if runs and runs[-1][-1] == day - 1:
            runs[-1].append(day)
        else:
            runs.append([day])
    days = ",".join(map(_run_text, runs))
    return f"{days} {quiet.start}-{quiet.end} {quiet.time_zone}".strip()


def _run_text(run: list[int]) -> str:
    ends = [run[0], run[-1]] if len(run) > 2 else run
    return ("-" if len(run) > 2 else ",").join(_DAYS[day - 1] for day in ends)


def _days(part: str) -> list[int]:
    """One day, or a run of days that may go on over Sunday."""
    first, dash, last = part.partition("-")
    begin = _day(first)
    end = _day(last) if dash else begin
    return [(begin - 1 + step) % 7 + 1 for step in range((end - begin) % 7 + 1)]


def _day(name: str) -> int:
    try:
        return _DAYS.index(name.capitalize()) + 1
    except ValueError:
        raise ValueError(f"{quoted(name)} is no day; give one of {', '.join(_DAYS)}") from None
