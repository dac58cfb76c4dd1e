"""A straight line through measured points, with how sure its slope is; pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Line:
    """y = start + slope x.

    Attributes:
        slope: of y by x.
        slope_error: its standard error; infinite of two points, which fit any line.
        start: y at x = 0.
    """

    slope: float
    slope_error: float
    start: float


def line_through(x: Sequence[float], y: Sequence[float]) -> Line | None:
    """Least squares; None where x holds fewer than two different values.

    >>> line_through([1, 2, 3], [3, 5, 7]).slope
    2.0

    Args:
        x: (n,).
        y: (n,), the same n.
    """
    if len(set(x)) < 2:
        return None
    across, up = np.asarray(x, float), np.asarray(y, float)
    spread = float(np.sum((across - across.mean()) ** 2))
    slope = float(np.sum((across - across.mean()) * (up - up.mean()))) / spread
    start = float(up.mean() - slope * across.mean())
    left = float(np.sum((up - start - slope * across) ** 2))
    error = math.sqrt(left / (len(x) - 2) / spread) if len(x) > 2 else math.inf
    return Line(slope, error, start)
