"""When a stream's alerts are kept and delivered to nobody: quiet hours and snooze; pure.

What a clock on the wall of the time zone shows decides. So quiet hours that begin
or end in an hour that daylight saving leaves out begin or end with the next one, and
what lies in an hour that comes twice is quiet both times. (Alertmanager's time
intervals go by the same rule.)
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from server.tuning import QuietHours

# Two days within the years that a datetime holds: no zone's clock then leaves them.
_EARLIEST_SECONDS = datetime(1, 1, 3, tzinfo=UTC).timestamp()
_LATEST_SECONDS = datetime(9999, 12, 29, tzinfo=UTC).timestamp()


@dataclass(frozen=True, slots=True)
class Schedule:
    """When no alert that begins is delivered.

    Attributes:
        quiet_hours: stretches of every week.
        snooze_until_seconds: UTC until which the stream is snoozed; None where it is not.
    """

    quiet_hours: tuple[QuietHours, ...] = ()
    snooze_until_seconds: float | None = None

    def is_quiet(self, utc_seconds: float) -> bool:
        """Whether any of the quiet hours holds this moment."""
        return any(is_within(quiet, utc_seconds) for quiet in self.quiet_hours)

    def is_snoozed(self, utc_seconds: float) -> bool:
        """Whether the snooze lasts beyond this moment."""
        return self.snooze_until_seconds is not None and utc_seconds < self.snooze_until_seconds


NEVER_QUIET = Schedule()


def is_within(quiet: QuietHours, utc_seconds: float) -> bool:
    """Whether quiet hours hold a moment, their first minute included and their end not.

    Args:
        quiet: one stretch of every week.
        utc_seconds: the moment; beyond the years 1 to 9999 their first or last days decide.
    """
    utc_seconds = min(max(utc_seconds, _EARLIEST_SECONDS), _LATEST_SECONDS)
    local = datetime.fromtimestamp(utc_seconds, ZoneInfo(quiet.time_zone))
    minute, today = 60 * local.hour + local.minute, local.isoweekday()
    start, end = _minutes(quiet.start), _minutes(quiet.end)
    if start < end:
        return start <= minute < end and _begins_on(quiet, today)
    # Over midnight: the rest of today's stretch, or of the one that began yesterday.
    yesterday = (today - 2) % 7 + 1
    return (minute >= start and _begins_on(quiet, today)) or (
        minute < end and _begins_on(quiet, yesterday)
    )


def _begins_on(quiet: QuietHours, day: int) -> bool:
    return not quiet.days or day in quiet.days


def _minutes(clock: str) -> int:
    hours, minutes = clock.split(":")
    return 60 * int(hours) + int(minutes)
