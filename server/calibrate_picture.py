"""A calibration as a picture: events a day over the threshold, and where the budget cuts it."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from server.calibration import Calibration
from server.metrics import poisson_interval

_BUDGET, _CHOSEN, _LINE, _INK = "#c8372d", "#2f7d5b", "#28527a", "#333333"
_DAY_SECONDS = 86_400.0


def draw(path: Path, stream_id: str, found: Calibration) -> None:
    """Write the picture as PNG, whole or not at all.

    Args:
        path: to write; its directory exists.
        stream_id: whose calibration it is.
        found: with its curve.
    """
    with mpl.rc_context({"font.size": 9, "axes.edgecolor": "#999999", "text.color": _INK}):
        figure = Figure(figsize=(9, 5), dpi=100, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        _draw_curve(axes, found)
        axes.set_title(f"streams/{stream_id}: {found.message}", loc="left", wrap=True)
        scratch = path.with_name(f".{path.name}.part")
        figure.savefig(scratch, format="png")
    scratch.replace(path)


def _draw_curve(axes: Axes, found: Calibration) -> None:
    days = found.watched_seconds / _DAY_SECONDS
    points = sorted(found.curve, key=lambda point: point.threshold)
    thresholds = [point.threshold for point in points]
    bounds = [poisson_interval(point.events) for point in points]
    # What a threshold opens holds for all above the score below it.
    axes.fill_between(
        thresholds,
        [low / days for low, _ in bounds],
        [high / days for _, high in bounds],
        step="pre",
        color=_LINE,
        alpha=0.15,
        linewidth=0,
        label="95% interval",
    )
    rates = [point.events / days for point in points]
    axes.step(thresholds, rates, where="pre", color=_LINE, label="events a day")
    budget = found.false_alarms_per_day
    axes.axhline(budget, color=_BUDGET, linestyle="--", label=f"budget, {budget:g} a day")
    chosen = found.open_threshold
    axes.axvline(chosen, color=_CHOSEN, label=f"open threshold {chosen:.4f}")
    axes.set_xlabel("open threshold")
    axes.set_ylabel("events a day")
    # Rates run over decades; a few hundredths of a budget are as good as none.
    axes.set_yscale("symlog", linthresh=budget)
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper right", frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
