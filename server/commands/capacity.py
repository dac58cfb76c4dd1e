"""What the command line shows of the server's capacity."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from server.capacity import CapacitySummary


def capacity_json(found: CapacitySummary) -> dict[str, Any]:
    """The account for programs."""
    return asdict(found)


def capacity_text(found: CapacitySummary) -> str:
    """The account for people, in four lines.

    >>> print(capacity_text(CapacitySummary(1.7, 1.2, 0.3, 0.13, 0.96, 26, 1, 27, True)))
    streams    26 of about 27 like these, 1 thinned
    cores      1.63 of 1.70 in use: decode 1.20, encode 0.30, rest 0.13
    used       96% of the capacity
    admission  a stream that no longer fits is refused
    """
    estimate = found.streams_estimated
    about = "any number" if estimate is None else f"about {estimate}"
    used = found.decode_cores + found.encode_cores + found.rest_cores
    admission = "a stream that no longer fits is refused" if found.enforced else "off"
    return "\n".join(
        (
            f"streams    {found.streams} of {about} like these, {found.thinned} thinned",
            f"cores      {used:.2f} of {found.cores:.2f} in use: decode {found.decode_cores:.2f}, "
            f"encode {found.encode_cores:.2f}, rest {found.rest_cores:.2f}",
            f"used       {100 * found.used_ratio:.0f}% of the capacity",
            f"admission  {admission}",
        )
    )
