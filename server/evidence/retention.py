"""Which evidence must go: what is too old, then the oldest of what is too much; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from server.evidence.files import KeptFiles

DAY_SECONDS = 86_400.0


class Expiry(Enum):
    """Why evidence was deleted; also a metric label."""

    AGE = "age"
    SPACE = "space"


@dataclass(frozen=True, slots=True)
class Expired:
    """An alert whose evidence must go."""

    files: KeptFiles
    reason: Expiry


def expired(
    kept: Sequence[KeptFiles], now_seconds: float, max_seconds: float, max_bytes: int
) -> list[Expired]:
    """What must go, the oldest first.

    Args:
        kept: all that there is.
        now_seconds: UTC.
        max_seconds: what was written longer ago is too old.
        max_bytes: all that is left may take so much.
    """
    gone: list[Expired] = []
    left_bytes = sum(files.size_bytes for files in kept)
    for files in sorted(kept, key=lambda one: (one.written_seconds, one.alert_id)):
        if now_seconds - files.written_seconds > max_seconds:
            gone.append(Expired(files, Expiry.AGE))
        elif left_bytes > max_bytes:
            gone.append(Expired(files, Expiry.SPACE))
        else:
            break  # whatever follows is newer, and all of it fits
        left_bytes -= files.size_bytes
    return gone
