"""The look of our pictures: colours, paper, and how they are saved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

RED, BLUE, INK, GREY = "#c8372d", "#28527a", "#333333", "#999999"
GREEN, GOLD, VIOLET = "#3b7d4f", "#c98a1b", "#7b5aa6"


@contextmanager
def look() -> Iterator[None]:
    """Everything drawn and saved inside has our look."""
    with mpl.rc_context({"font.size": 9, "axes.edgecolor": GREY, "text.color": INK}):
        yield


def figure(size: tuple[float, float]) -> Figure:
    """An empty figure of that width and height in inches."""
    made = Figure(figsize=size, dpi=110, layout="constrained")
    FigureCanvasAgg(made)
    return made


def saved(path: Path, size: tuple[float, float], fill: Callable[[Axes], None]) -> str:
    """Draw one set of axes; the file's name."""
    made = figure(size)
    axes = made.add_subplot()
    fill(axes)
    axes.spines[["top", "right"]].set_visible(False)
    made.savefig(path)
    return path.name
