"""How far a stream's scores have moved from those that its threshold was learnt from; pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from server.calibration import Calibration
from server.metrics import poisson_interval

DRIFTED = 0.25
"""Population stability index from which two distributions are no longer alike."""

FEWEST_SCORES = 1000
"""Fewer say nothing of drift."""

GROUPS = 10

UNLIKELY = 0.001
"""Chance at or below which more events than the budget are no accident."""


def stability_index(reference: Sequence[int], observed: Sequence[int]) -> float | None:
    """Population stability index of two histograms over the same bins.

    Bins are joined until each group holds a tenth of the reference; those below its
    lowest score and above its highest are groups of their own.

    Args:
        reference: counts; a sum of `FEWEST_SCORES` at least.
        observed: likewise, over the same bins.

    Returns:
        0 for equal shares; below 0.1 alike, above 0.25 not. None where scores are too few.

    Source: Siddiqi 2006, Credit Risk Scorecards, chapter 9 (index and its two bounds).
    Deviation: half a count is added to each group, so that an empty one is no infinity.
    """
    wanted, found = np.asarray(reference, np.float64), np.asarray(observed, np.float64)
    if min(wanted.sum(), found.sum()) < FEWEST_SCORES:
        return None
    # A group ends with the bin that reaches the next tenth.
    group = np.ceil(np.cumsum(wanted) / wanted.sum() * GROUPS - 1e-9).astype(int)
    group[np.flatnonzero(wanted)[-1] + 1 :] = GROUPS + 1
    shares = []
    for counts in (wanted, found):
        held = np.bincount(group, counts)[np.unique(group)] + 0.5
        shares.append(held / held.sum())
    return float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())


def is_beyond(events: int, expected: float) -> bool:
    """Whether so many events are no accident where `expected` (over 0) were allowed.

    One-sided Poisson test at `UNLIKELY`.
    """
    return poisson_interval(events, 1 - 2 * UNLIKELY)[0] > expected


def proposal(
    found: Calibration, bundle_id: str, drift: float | None, opened: tuple[int, float] | None
) -> str:
    """Why a stream should be calibrated again; empty where there is no need.

    Args:
        found: its newest calibration.
        bundle_id: the detector that is served.
        drift: of its scores of the last day; None where unknown.
        opened: events of the last day and the days watched in it; None where the stream's
            threshold is not the calibration's.
    """
    if found.bundle_id != bundle_id:
        return (
            f"it was calibrated with bundle {found.bundle_id[:12]}, and {bundle_id[:12]} is "
            "served: its threshold means nothing here and the bundle's holds; calibrate it again"
        )
    if drift is not None and drift > DRIFTED:
        return (
            f"the scores of the last day are not those that it was calibrated with "
            f"(population stability index {drift:.2f}, over {DRIFTED:g}); calibrate it again"
        )
    if opened is not None:
        events, days = opened
        expected = found.false_alarms_per_day * days
        if expected > 0 and is_beyond(events, expected):
            return (
                f"it opened {events} events in the last {24 * days:.1f} hours, and the budget is "
                f"{found.false_alarms_per_day:g} a day; if they were false alarms, "
                "calibrate it again"
            )
    return ""
