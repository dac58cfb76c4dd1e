"""The filter's pictures: histograms of every criterion, and sheets to judge by eye."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from training.canvas import GOLD, GREEN, GREY, INK, RED, figure, look
from training.filter.criteria import CRITERIA, Values
from training.filter.findings import Findings
from training.filter.report import values_by_fate
from training.filter.verdicts import Verdict
from training.thumbnails import thumbnails

MOST_SHOWN = 24

_COLUMNS = 3
_FRAMES = 4
_WIDTH = 120
_BINS = 24


@dataclass(frozen=True, slots=True)
class Shown:
    """A video as a sheet shows it."""

    verdict: Verdict
    path: Path
    frames: int


def draw_histograms(path: Path, found: Findings, real: Mapping[str, Values]) -> None:
    """Kept against discarded for each criterion that is known, real footage behind them."""
    names = [
        c.name for c in CRITERIA if any(v.values.get(c.name) is not None for v in found.videos)
    ]
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    with look():
        sheet = figure((3.9 * columns, 2.7 * rows + 0.4))
        grid = sheet.subplots(rows, columns, squeeze=False).ravel()
        for axes in grid[len(names) :]:
            axes.set_axis_off()
        for axes, name in zip(grid, names, strict=False):
            _draw_criterion(axes, found, name, real.get(name, np.array([])))
        handles, labels = grid[0].get_legend_handles_labels()
        for axes in grid[1 : len(names)]:
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
                if label not in labels:
                    handles.append(handle)
                    labels.append(label)
        sheet.legend(handles, labels, frameon=False, loc="outside lower center", ncols=4)
        sheet.savefig(path)


def _draw_criterion(axes: Axes, found: Findings, name: str, real: Values) -> None:
    kept, discarded = values_by_fate(found, name)
    limit = found.rule.limits[name]
    ends = [end for end in (limit.low, limit.high) if end is not None]
    everything = np.concatenate([kept, discarded, real, np.array(ends)])
    low, high = float(everything.min()), float(everything.max())
    bins = np.linspace(low, high if high > low else low + 1e-6, _BINS + 1)
    groups = [(discarded, RED, "discarded"), (kept, GREEN, "kept")]
    drawn = [(values, colour, label) for values, colour, label in groups if len(values)]
    counted = [np.histogram(values, bins)[0] for values, _, _ in drawn]
    if len(real):
        share = np.histogram(real, bins)[0] / len(real)
        most = max(count.max() for count in counted)
        axes.stairs(
            share * most / share.max(), bins, color=GREY, fill=True, alpha=0.3, label="real"
        )
    below = np.zeros(_BINS)
    for count, (_, colour, label) in zip(counted, drawn, strict=True):
        axes.stairs(below + count, bins, baseline=below, color=colour, fill=True, label=label)
        below = below + count
    for end in ends:
        axes.axvline(end, color=INK, lw=1, ls="--")
    axes.set_title(name, loc="left", fontweight="bold")
    axes.set_ylabel("videos")
    axes.spines[["top", "right"]].set_visible(False)


def chosen(name: str, verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Which videos a sheet shows: spread evenly from the best to the worst, by rule."""
    if name == "borderline":
        known = [v for v in verdicts if v.margin is not None]
        return sorted(known, key=lambda v: (abs(v.margin or 0.0), v.id))[:MOST_SHOWN]
    members = [v for v in verdicts if v.kept == (name == "kept")]
    ranked = sorted(members, key=lambda v: (-v.total, v.id))
    places = np.linspace(0, len(ranked) - 1, min(MOST_SHOWN, len(ranked)))
    return [ranked[round(place)] for place in places]


def draw_sheet(path: Path, title: str, videos: Sequence[Shown]) -> None:
    """A contact sheet: four frames of each video, its id, label and why."""
    rows = max(1, -(-len(videos) // _COLUMNS))
    with look():
        sheet = figure((5.2 * _COLUMNS, 1.25 * rows + 0.4))
        sheet.suptitle(title, fontweight="bold", x=0.01, ha="left")
        grid = sheet.subplots(rows, _COLUMNS, squeeze=False).ravel()
        for axes in grid:
            axes.set_axis_off()
        for axes, shown in zip(grid, videos, strict=False):
            _draw_strip(axes, shown)
        sheet.savefig(path)


def _draw_strip(axes: Axes, shown: Shown) -> None:
    images = thumbnails(shown.path, shown.frames, _FRAMES, _WIDTH)
    verdict = shown.verdict
    if images:
        axes.imshow(np.concatenate(images, 1), interpolation="antialiased")
        colour = GREEN if verdict.kept else RED
        height, width = images[0].shape[0], sum(image.shape[1] for image in images)
        axes.add_artist(Rectangle((-0.5, -0.5), width, height, fill=False, color=colour, lw=2))
    told = f"{_short(verdict.id)}  {verdict.label}, {verdict.reason}"
    axes.set_title(told, loc="left", fontsize=7, color=INK if images else GOLD)


def _short(name: str) -> str:
    return name if len(name) <= 34 else f"...{name[-31:]}"
