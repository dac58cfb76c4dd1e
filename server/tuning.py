"""What a client may tune of one stream beyond its source: alerts, quiet hours, evidence, masks.

Everything here can change while the stream runs; nothing of it reconnects a camera
but the masks, which a decode worker must learn of.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from server.wording import quoted

LONGEST_SHORT_SECONDS = 3600.0
"""Of a minimum duration and a merge gap."""

LONGEST_SECONDS = 86_400.0
"""Of a maximum duration and a cooldown."""

YEARS_SECONDS = (-62_135_596_800, 253_402_300_799)
"""First and last whole second that can be shown as a date, in UTC seconds since 1970."""

MAX_QUIET_HOURS = 50
MAX_MASKS = 32
MAX_CORNERS = 64

_CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")
_DAYS = range(1, 8)


class EvidenceMode(Enum):
    """What is kept of the pictures around an alert."""

    KEEP = "keep"  # a snapshot, and a clip of the camera's own packets
    BLUR = "blur"  # a snapshot too coarse to know anybody by, and no clip
    NONE = "none"


@dataclass(frozen=True, slots=True)
class QuietHours:
    """A stretch of every week in which alerts are kept and delivered to nobody.

    Attributes:
        days: ISO weekdays on which it begins, 1 (Monday) to 7, rising; empty means every day.
        start: local time "HH:MM" at which it begins.
        end: local time "HH:MM" at which it ends, "24:00" at the latest; at or before `start`
            means on the next day.
        time_zone: IANA name.

    Raises:
        ValueError: one of them cannot be used.
    """

    days: tuple[int, ...]
    start: str
    end: str
    time_zone: str

    def __post_init__(self) -> None:
        if any(day not in _DAYS for day in self.days):
            raise ValueError(f"days ({list(self.days)}) must be 1 (Monday) to 7 (Sunday)")
        object.__setattr__(self, "days", tuple(sorted(set(self.days))))
        if not _CLOCK.fullmatch(self.start):
            raise ValueError(f"start ({quoted(self.start)}) must be HH:MM, 00:00 to 23:59")
        if self.end != "24:00" and not _CLOCK.fullmatch(self.end):
            raise ValueError(f"end ({quoted(self.end)}) must be HH:MM, 00:00 to 24:00")
        try:
            ZoneInfo(self.time_zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):  # a path, a directory, no text
            raise ValueError(
                f"time_zone ({quoted(self.time_zone)}) must be an IANA name, such as Europe/Berlin"
            ) from None


@dataclass(frozen=True, slots=True)
class AlertTuning:
    """How scores become alerts on one stream; None takes the server's default.

    Attributes:
        close_threshold: score in [0, 1] below which an alert begins to end.
        min_duration_seconds: capture time an event must span to become an alert.
        merge_gap_seconds: scores stay low for so long before an alert ends.
        max_duration_seconds: a longer alert is ended and continued by another.
        cooldown_seconds: after the end of a delivered alert in which none is delivered.
        quiet_hours: in which none is delivered.
        snooze_until_seconds: UTC before which none is delivered.

    Raises:
        ValueError: one of them is out of its range.
    """

    close_threshold: float | None = None
    min_duration_seconds: float | None = None
    merge_gap_seconds: float | None = None
    max_duration_seconds: float | None = None
    cooldown_seconds: float | None = None
    quiet_hours: tuple[QuietHours, ...] = ()
    snooze_until_seconds: float | None = None

    def __post_init__(self) -> None:
        _check("close_threshold", self.close_threshold, 0, 1)
        _check("min_duration", self.min_duration_seconds, 0, LONGEST_SHORT_SECONDS)
        _check("merge_gap", self.merge_gap_seconds, 0, LONGEST_SHORT_SECONDS)
        _check("max_duration", self.max_duration_seconds, 1, LONGEST_SECONDS)
        _check("cooldown", self.cooldown_seconds, 0, LONGEST_SECONDS)
        _check("snooze_until", self.snooze_until_seconds, *YEARS_SECONDS)
        if len(self.quiet_hours) > MAX_QUIET_HOURS:
            raise ValueError(
                f"{len(self.quiet_hours)} quiet hours; a stream has at most {MAX_QUIET_HOURS}"
            )


@dataclass(frozen=True, slots=True)
class Mask:
    """A region that the detector never sees.

    Attributes:
        corners: 3 to 64 places (x, y) in order, each in [0, 1] from the upper left corner.

    Raises:
        ValueError: too few or too many corners, or one outside the picture.
    """

    corners: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        if not 3 <= len(self.corners) <= MAX_CORNERS:
            raise ValueError(
                f"a mask with {len(self.corners)} corners; expected 3 to {MAX_CORNERS}"
            )
        for x, y in self.corners:
            if not (0 <= x <= 1 and 0 <= y <= 1):
                raise ValueError(f"mask corner ({x:g}, {y:g}) must lie in 0 to 1 on both axes")


def check_masks(masks: Iterable[Mask]) -> None:
    """Refuse more masks than a stream may have.

    Raises:
        ValueError: there are too many.
    """
    count = len(tuple(masks))
    if count > MAX_MASKS:
        raise ValueError(f"{count} masks; a stream has at most {MAX_MASKS}")


def _check(name: str, value: float | None, low: float, high: float) -> None:
    # Not a comparison that NaN would pass.
    if value is not None and not low <= value <= high:
        raise ValueError(f"{name} ({value:g}) must be {low:g} to {high:g}")
