"""Pictures of an evaluation: ROC, delay against false alarms, calibration, scores over time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from server.metrics import roc_auc
from training.canvas import BLUE, GREY, RED, figure, look, saved
from training.evaluation import Evaluation
from training.evaluation_report import CALIBRATION, CURVES, DELAY, ROC
from training.scored import VideoScores
from training.thumbnails import thumbnails

_FRAMES_SHOWN = 6

Find = Callable[[VideoScores], Path | None]
"""Where a video's file is, or None where there is none."""


def draw(folder: Path, found: Evaluation, videos: Sequence[VideoScores], find: Find) -> list[str]:
    """Write what can be drawn; the names of the files."""
    made = []
    with look():
        if found.roc is not None:
            made.append(saved(folder / ROC, (4.2, 4), lambda axes: _draw_roc(axes, found)))
        if len(found.curve) > 1:
            made.append(saved(folder / DELAY, (6.4, 4), lambda axes: _draw_delay(axes, found)))
        if found.calibration is not None:
            size = (4.2, 4)
            made.append(saved(folder / CALIBRATION, size, lambda axes: _draw_bins(axes, found)))
        _draw_scores(folder / CURVES, found, chosen_videos(videos), find)
    return [*made, CURVES]


def _draw_roc(axes: Axes, found: Evaluation) -> None:
    assert found.roc is not None
    auc = found.frames["auc"].value
    axes.plot([0, 1], [0, 1], color=GREY, lw=1, ls=":")
    axes.plot(found.roc.false_positive_rate, found.roc.true_positive_rate, color=BLUE, lw=2)
    at = np.searchsorted(-found.roc.thresholds, -found.spec.threshold, side="right") - 1
    axes.plot(
        found.roc.false_positive_rate[at],
        found.roc.true_positive_rate[at],
        "o",
        color=RED,
        label=f"threshold {found.spec.threshold:.3f}",
    )
    axes.set(xlabel="normal frames called anomalous", ylabel="anomalous frames found")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.set_title(f"ROC, area {auc:.3f}", loc="left", fontweight="bold")
    axes.legend(loc="lower right", frameon=False)


def _draw_delay(axes: Axes, found: Evaluation) -> None:
    points = [p for p in found.curve if p.false_alarms.per_hour is not None]
    rates = np.array([p.false_alarms.per_hour for p in points], np.float64)
    recall = np.array([np.nan if p.recall is None else p.recall for p in points])
    delay = np.array(
        [np.nan if p.mean_delay_seconds is None else p.mean_delay_seconds for p in points]
    )
    axes.plot(rates, 100 * recall, ".", ms=4, color=BLUE)
    # A rate of none is shown left of the lowest one.
    axes.set_xscale("symlog", linthresh=max(0.1, float(rates[rates > 0].min(initial=1.0))))
    axes.set(xlabel="false alarms per camera-hour", ylim=(-2, 102))
    axes.set_ylabel("events found, %", color=BLUE)
    right = axes.twinx()
    right.plot(rates, delay, ".", ms=4, color=RED)
    right.set_ylabel("mean delay, s", color=RED)
    right.set_ylim(bottom=0)
    right.spines["top"].set_visible(False)
    axes.set_title("What false alarms buy, by threshold", loc="left", fontweight="bold")


def _draw_bins(axes: Axes, found: Evaluation) -> None:
    assert found.calibration is not None
    bins = found.calibration.bins
    sizes = np.array([one.frames for one in bins])
    axes.plot([0, 1], [0, 1], color=GREY, lw=1, ls=":")
    axes.scatter(
        [one.mean_score for one in bins],
        [one.positive_share for one in bins],
        s=20 + 200 * sizes / sizes.max(),
        color=BLUE,
        alpha=0.6,
        lw=0,
    )
    axes.set(xlabel="score", ylabel="share of anomalous frames")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    error = found.calibration.expected_error
    axes.set_title(f"Calibration, error {error:.3f}", loc="left", fontweight="bold")


def chosen_videos(videos: Sequence[VideoScores]) -> list[tuple[str, VideoScores]]:
    """Which are shown, and why: by rule, so that nobody picks the pretty ones."""
    ranked = sorted(
        (video for video in videos if video.row.label == "anomalous"), key=_apartness, reverse=True
    )
    calm = [video for video in videos if video.row.label == "normal"]
    found: list[tuple[str, VideoScores]] = []
    for name, place in (("best", 0), ("middle", len(ranked) // 2), ("worst", len(ranked) - 1)):
        if ranked and ranked[place] not in [video for _, video in found]:
            found.append((name, ranked[place]))
    if calm:
        found.append(("normal, highest", max(calm, key=lambda video: max(video.scores))))
    return found


def _apartness(video: VideoScores) -> tuple[float, float]:
    """How well its own anomaly stands out; of videos that are anomalous throughout, its peak."""
    auc = roc_auc(video.labels(), video.back_filled())
    return (0.5 if auc is None else auc, max(video.scores))


def _draw_scores(
    path: Path, found: Evaluation, chosen: Sequence[tuple[str, VideoScores]], find: Find
) -> None:
    sheet = figure((10, 2.9 * len(chosen)))
    rows = sheet.subfigures(len(chosen), 1, squeeze=False)[:, 0]
    for row, (name, video) in zip(rows, chosen, strict=True):
        frames = thumbnails(find(video), video.frames, _FRAMES_SHOWN)
        grid = row.add_gridspec(2, _FRAMES_SHOWN, height_ratios=[1, 1 if frames else 0.01])
        axes = row.add_subplot(grid[0, :])
        _draw_video(axes, video, found.spec.threshold)
        axes.set_title(f"{name}: {video.row.id}", loc="left", fontweight="bold")
        for column, image in enumerate(frames):
            shown = row.add_subplot(grid[1, column])
            shown.imshow(image, interpolation="antialiased")
            shown.set_axis_off()
    sheet.savefig(path)


def _draw_video(axes: Axes, video: VideoScores, threshold: float) -> None:
    for start, end in video.row.anomalous or ():
        axes.axvspan(start / video.fps, end / video.fps, color=RED, alpha=0.15, lw=0)
    frames = np.arange(video.frames + 1)
    scores = np.append(video.back_filled(), video.scores[-1])
    axes.step(frames / video.fps, scores, where="post", color=BLUE, lw=1.5)
    axes.axhline(threshold, color=RED, ls="--", lw=1)
    axes.set(ylim=(-0.03, 1.03), xlim=(0, video.seconds), xlabel="seconds", ylabel="score")
    axes.spines[["top", "right"]].set_visible(False)
