"""A coverage report as a picture: a map of classes and locations, and bars beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from training.canvas import BLUE, GREY, INK, figure, look
from training.describe.coverage import Counts, Coverage
from training.describe.taxonomy import Taxonomy

_TITLES = {"viewpoints": "viewpoint", "kinds": "kind of subject"}
_WHITE_TEXT_FROM = 0.55  # of the highest count


def draw_coverage(path: Path, coverage: Coverage, taxonomy: Taxonomy, title: str) -> None:
    """Draw pairs by class and location, by viewpoint and by kind of subject."""
    with look():
        rows = len(coverage.classes.pairs)
        sheet = figure((4.5 + 0.32 * len(coverage.locations.pairs), 2.9 + 0.27 * rows))
        grid = sheet.add_gridspec(2, 2, width_ratios=(4, 1), height_ratios=(5, 2))
        _map(sheet.add_subplot(grid[:, 0]), coverage, taxonomy)
        _bars(sheet.add_subplot(grid[0, 1]), coverage.viewpoints)
        _bars(sheet.add_subplot(grid[1, 1]), coverage.kinds)
        sheet.suptitle(title, x=0.01, ha="left", fontweight="bold")
        sheet.savefig(path)


def _map(axes: Axes, coverage: Coverage, taxonomy: Taxonomy) -> None:
    classes, places = list(coverage.classes.pairs), list(coverage.locations.pairs)
    pairs = np.array([[coverage.places.get((name, at), 0) for at in places] for name in classes])
    most = int(pairs.max())
    shades = LinearSegmentedColormap.from_list("pairs", ["#ffffff", BLUE])
    axes.imshow(pairs, cmap=shades, vmin=0, vmax=most, aspect="auto")
    cells = [(row, column) for row in range(len(classes)) for column in range(len(places))]
    unfit = [
        (column, row)
        for row, column in cells
        if places[column] not in taxonomy.classes[classes[row]].locations
    ]
    axes.plot(*zip(*unfit, strict=True), ".", ms=2, color=GREY, alpha=0.5)
    for row, column in set(cells) - {(row, column) for column, row in unfit}:
        count = pairs[row, column]
        colour = "white" if count > _WHITE_TEXT_FROM * most else INK
        axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=7)
    axes.set_xticks(range(len(places)), places, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(classes)), classes)
    axes.tick_params(length=0)
    axes.set_title("pairs by class and location; a dot: does not fit", loc="left", fontsize=9)


def _bars(axes: Axes, counts: Counts) -> None:
    names, pairs = list(counts.pairs), list(counts.pairs.values())
    bars = axes.barh(range(len(names)), pairs, color=BLUE, height=0.7)
    axes.bar_label(bars, padding=2, fontsize=8)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xticks([])
    axes.margins(x=0.15)
    axes.tick_params(length=0)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.set_title(f"pairs by {_TITLES[counts.what]}", loc="left", fontsize=9)
