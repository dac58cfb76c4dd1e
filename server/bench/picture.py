"""The benchmark's picture: latency over the number of cameras, with what bounds it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from server.bench.findings import Findings, LoadTrial
from server.bench.run import Latency

_QUANTILES = {"p50": "#8fb3cf", "p95": "#4a7fa8", "p99": "#28527a"}
_BOUND, _HELD, _CEILING, _INK = "#c8372d", "#2f7d5b", "#777777", "#333333"


def draw(path: Path, findings: Sequence[Findings]) -> None:
    """Write the picture, PNG or SVG by its name.

    Args:
        path: to write; its directory exists. It appears when it is whole.
        findings: one or more, a panel each.
    """
    with mpl.rc_context({"font.size": 9, "axes.edgecolor": "#999999", "text.color": _INK}):
        figure = Figure(figsize=(1 + 5 * len(findings), 4.2), dpi=120, layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(1, len(findings), squeeze=False, sharey=True)[0]
        for axes, found in zip(panels, findings, strict=True):
            _draw_one(axes, found)
        panels[0].set_ylabel("latency, seconds")
        scratch = path.with_name(f".{path.name}")
        figure.savefig(scratch, format=path.suffix.removeprefix("."))
        scratch.replace(path)


def _draw_one(axes: Axes, found: Findings) -> None:
    by_cameras: dict[int, list[Latency]] = {}
    for trial in found.all_trials():
        if trial.run.latency is not None:
            by_cameras.setdefault(trial.run.cameras, []).append(trial.run.latency)
    numbers = sorted(by_cameras)
    for name, colour in _QUANTILES.items():
        heights = [median(getattr(one, name) for one in by_cameras[n]) for n in numbers]
        axes.plot(numbers, heights, "o-", color=colour, lw=1.5, ms=4, label=name)
    _draw_failed(axes, [one for one in found.all_trials() if not one.holds])
    axes.axhline(found.bound_seconds, color=_BOUND, ls="--", lw=1, label="bound of p99")
    axes.axvline(found.cameras, color=_HELD, lw=1.5, label=f"held: {found.cameras}")
    if found.ceiling is not None:
        label = f"ceiling: {found.ceiling:.1f}"
        axes.axvline(found.ceiling, color=_CEILING, ls=":", lw=1.5, label=label)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.set_xlabel("cameras")
    axes.set_title(", ".join(map(str, found.kinds)), loc="left", fontweight="bold")
    # Below, where it can hide no figure.
    axes.legend(frameon=False, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    axes.spines[["top", "right"]].set_visible(False)


def _draw_failed(axes: Axes, failed: Sequence[LoadTrial]) -> None:
    shown = [(one.run.cameras, one.run.latency.p99) for one in failed if one.run.latency]
    if shown:
        across, up = zip(*shown, strict=True)
        axes.plot(across, up, "x", color=_BOUND, ms=7, label="not held")
