"""Figures over seeds: their mean, how they spread, and whether a difference is beyond noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Self

# Student's t at 97.5 %, for 1, 2, ... degrees of freedom.
_T = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure's mean and sample standard deviation over seeds.

    Attributes:
        mean: over the seeds.
        deviation: divides by one less than the seeds.
        count: seeds.
    """

    mean: float
    deviation: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Of at least two values.

        >>> Spread.of([1.0, 2.0, 3.0])
        Spread(mean=2.0, deviation=1.0, count=3)
        """
        return cls(fmean(values), stdev(values), len(values))

    @classmethod
    def of_pairs(cls, values: Sequence[float], others: Sequence[float]) -> Self:
        """Of the differences, seed by seed: what both share by chance cancels."""
        return cls.of([value - other for value, other in zip(values, others, strict=True)])

    @property
    def half_width(self) -> float:
        """Of the 95 % interval of the mean, by Student's t; from 31 degrees on that of 30."""
        t = _T[min(self.count - 1, len(_T)) - 1]
        return t * self.deviation / math.sqrt(self.count)

    @property
    def is_beyond_noise(self) -> bool:
        """Whether the interval of a difference leaves out 0; never for a difference of none."""
        return abs(self.mean) > self.half_width

    def __str__(self) -> str:
        return f"{self.mean:.2f} ± {self.deviation:.2f}"
