"""The demo's picture: the score over time, and what the camera saw at its extremes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from server.contract import Image
from server.demo.record import Record
from server.demo.scene import SceneTruth
from server.ingest.video import decode, open_file, video_stream
from server.scoring import WindowScore

FRAMES_SHOWN = 4
"""Of a window's sixteen, evenly spread."""

_ALERT, _CALM, _LINE, _INK = "#c8372d", "#2f7d5b", "#28527a", "#333333"
_THUMBNAIL_WIDTH = 320


@dataclass(frozen=True, slots=True)
class Plot:
    """What the picture is of.

    Attributes:
        clip: the camera played it.
        title: what it is, for people.
        threshold: the open threshold in [0, 1].
        truth: when the event really was, where that is known.
    """

    clip: Path
    title: str
    threshold: float
    truth: SceneTruth | None


def draw(path: Path, record: Record, plot: Plot) -> None:
    """Write the picture as PNG.

    Args:
        path: to write; its directory exists.
        record: with at least one scored window.
        plot: what it is of.
    """
    highest = max(record.scored, key=lambda window: window.score or 0.0)
    lowest = min(record.scored, key=lambda window: window.score or 0.0)
    with mpl.rc_context({"font.size": 9, "axes.edgecolor": "#999999", "text.color": _INK}):
        figure = Figure(figsize=(10, 6.6), dpi=100, layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.add_gridspec(3, FRAMES_SHOWN, height_ratios=[1.5, 1, 1])
        scores = figure.add_subplot(grid[0, :])
        _draw_scores(scores, record, plot)
        rows = ((highest, "highest", _ALERT), (lowest, "lowest", _CALM))
        for row, (window, name, colour) in enumerate(rows, start=1):
            axes = [figure.add_subplot(grid[row, column]) for column in range(FRAMES_SHOWN)]
            _draw_window(axes, _frames(plot.clip, record, window), colour)
            since = record.since_start_seconds(window.span.start_capture_seconds)
            axes[0].set_title(f"{name} score: {window.score:.2f} at {since:.1f} s", loc="left")
        figure.savefig(path)


def _draw_scores(axes: Axes, record: Record, plot: Plot) -> None:
    since = record.since_start_seconds
    for number, alert in enumerate(record.alerts):
        label = "alert" if number == 0 else None
        span = (since(alert.start_seconds), since(alert.end_seconds))
        axes.axvspan(*span, color=_ALERT, alpha=0.16, lw=0, label=label)
    if plot.truth is not None and len(record.turns) == 1:
        event = (plot.truth.event_start_seconds, plot.truth.event_end_seconds)
        axes.plot(event, (-0.03, -0.03), color=_INK, lw=4, solid_capstyle="butt", label="event")
    for window in record.scored:
        span = (since(window.span.start_capture_seconds), since(window.span.end_capture_seconds))
        axes.fill_between(span, 0, window.score or 0.0, color=_LINE, alpha=0.25, lw=0)
        axes.hlines(window.score or 0.0, *span, color=_LINE, lw=2)
    axes.axhline(plot.threshold, color=_ALERT, ls="--", lw=1, label="open threshold")
    axes.set(ylim=(-0.06, 1.02), xlabel="seconds since the first frame", ylabel="score")
    axes.margins(x=0.01)
    axes.set_title(plot.title, loc="left", fontweight="bold")
    # Beside the title, where no score can lie under it.
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), frameon=False, ncols=3)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_window(axes: list[Axes], images: list[Image], colour: str) -> None:
    for axis in axes:
        axis.set_axis_off()
    for axis, image in zip(axes, images, strict=False):
        axis.imshow(image, interpolation="antialiased")
        height, width = image.shape[:2]
        axis.plot([0, width], [height, height], color=colour, lw=4, clip_on=False)
        axis.set_xlim(0, width)
        axis.set_ylim(height, 0)


def _frames(clip: Path, record: Record, window: WindowScore) -> list[Image]:
    """FRAMES_SHOWN frames of the clip, from the window's first to its last."""
    span = window.span
    start = record.clip_seconds(span.start_capture_seconds)
    length = span.end_capture_seconds - span.start_capture_seconds
    wanted = start + np.linspace(0, max(0.0, length), FRAMES_SHOWN)
    return _frames_at(clip, [float(seconds) for seconds in wanted])


def _frames_at(clip: Path, wanted_seconds: list[float]) -> list[Image]:
    """The frame that shows at each time since the first frame; rising times."""
    found: list[Image] = []
    shown: av.VideoFrame | None = None
    first_seconds: float | None = None
    with open_file(clip) as source:
        for frame in decode(source, video_stream(source, str(clip))):
            if first_seconds is None:
                first_seconds = frame.pts_seconds
            while (
                shown is not None
                and len(found) < len(wanted_seconds)
                and frame.pts_seconds - first_seconds > wanted_seconds[len(found)]
            ):
                found.append(_thumbnail(shown))
            if len(found) == len(wanted_seconds):
                return found
            shown = frame.picture
    if shown is not None:  # the window runs on into the clip's next turn
        found += [_thumbnail(shown)] * (len(wanted_seconds) - len(found))
    return found


def _thumbnail(frame: av.VideoFrame) -> Image:
    height = max(2, round(frame.height * _THUMBNAIL_WIDTH / frame.width))
    small = frame.reformat(_THUMBNAIL_WIDTH, height, "rgb24")
    return small.to_ndarray().astype(np.uint8, copy=False)
