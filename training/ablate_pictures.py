"""Pictures of ablations: arms with their spread, best lambda over gaps, lambda over training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from training.ablate_gap import ALONG, DISPLACED, SCALES, TURNED, Gap, GapFigures
from training.ablate_learnable import ALONE, HALF, LEARNABLE, PROBLEMS, PolicyFigures
from training.ablate_report import Compared
from training.canvas import BLUE, GOLD, GREEN, GREY, RED, VIOLET, figure, look, saved

Curve = npt.NDArray[np.float64]

_SMOOTH_STEPS = 15


def draw_arms(path: Path, title: str, rows: Sequence[Compared]) -> None:
    """Every arm's seeds, mean and spread beside the paper's figure."""

    def fill(axes: Axes) -> None:
        for place, row in enumerate(rows):
            seeds = row.found.aucs
            axes.plot(seeds, [place] * len(seeds), "o", ms=3, color=BLUE, alpha=0.35, lw=0)
            axes.errorbar(
                row.auc.mean, place, xerr=row.auc.deviation, fmt="o", color=BLUE, capsize=3
            )
        papers = [(row.found.arm.paper, n) for n, row in enumerate(rows) if row.found.arm.paper]
        if papers:
            x, y = zip(*papers, strict=True)
            axes.plot(x, y, "D", ms=5, mfc="none", color=RED)
        axes.plot([], [], "o", color=BLUE, label="ours, mean ± deviation over seeds")
        axes.plot([], [], "D", ms=5, mfc="none", color=RED, label="the paper, on its data")
        axes.set_yticks(range(len(rows)), [row.found.arm.name for row in rows])
        axes.set(xlabel="ROC AUC of frames, %", ylim=(len(rows) - 0.5, -0.5))
        axes.grid(axis="y", color=GREY, alpha=0.2)
        axes.set_title(title, loc="left", fontweight="bold")
        axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.4, -0.16), ncols=2)

    with look():
        saved(path, (7.5, 1.6 + 0.34 * len(rows)), fill)


def draw_shares(path: Path, title: str, rows: Sequence[Compared]) -> None:
    """AUC over the share of real training videos, a line a kind of arm."""

    def fill(axes: Axes) -> None:
        kinds: dict[str, list[Compared]] = {}
        for row in rows:
            arm = row.found.arm
            kind = arm.name.removeprefix(f"{100 * arm.share:.0f} % ").removeprefix("+ ")
            kinds.setdefault(kind, []).append(row)
        # Side by side, so that no bar hides another.
        looks = ((GREY, -1.0), (BLUE, 0.0), (GREEN, 1.0))
        for (kind, members), (colour, beside) in zip(kinds.items(), looks, strict=True):
            shares = [100 * row.found.arm.share + beside for row in members]
            means = [row.auc.mean for row in members]
            spreads = [row.auc.deviation for row in members]
            axes.errorbar(
                shares, means, yerr=spreads, fmt="o-", color=colour, capsize=3, label=kind
            )
            told = [(s, r.found.arm.paper) for s, r in zip(shares, members, strict=True)]
            points = [(share, paper) for share, paper in told if paper is not None]
            for share, paper in points:
                axes.plot(share, paper, "D", ms=5, mfc="none", color=colour)
        axes.plot([], [], "D", ms=5, mfc="none", color=GREY, label="the paper, on its data")
        axes.set(xlabel="real training videos, %", ylabel="ROC AUC of frames, %")
        axes.set_xticks([25, 50, 75, 100])
        axes.set_title(title, loc="left", fontweight="bold")
        axes.legend(frameon=False)

    with look():
        saved(path, (6.4, 4), fill)


def draw_gap(path: Path, found: Mapping[Gap, GapFigures]) -> None:
    """Best lambda against the probe, and AUC over lambda."""
    with look():
        sheet = figure((11.5, 4))
        left, right = sheet.subplots(1, 2)
        _draw_best(left, found)
        _draw_curves(right, found)
        for axes in (left, right):
            axes.spines[["top", "right"]].set_visible(False)
        sheet.savefig(path)


def _draw_best(axes: Axes, found: Mapping[Gap, GapFigures]) -> None:
    along = [found[gap] for gap in ALONG]
    places = [SCALES.index(one.scale) for one in along]
    axes.axhline(SCALES.index(1.0), color=GREY, lw=1, ls=":")
    axes.plot(
        [one.probe.mean for one in along], places, "o-", color=BLUE, label="displaced and turned"
    )
    _dots(axes, along, BLUE)
    for gap, colour, name in (
        (DISPLACED, VIOLET, "displaced alone"),
        (TURNED, GREY, "turned alone"),
    ):
        one = found[gap]
        place = SCALES.index(one.scale)
        axes.plot(one.probe.mean, place, "D", color=colour, ms=7, label=name)
        _dots(axes, [one], colour)
    axes.set_yticks(range(len(SCALES)), [f"{scale:g}" for scale in SCALES])
    axes.set(xlabel="probe AUC, real against synthetic", ylabel="best λ")
    axes.set(xlim=(0.47, 1.02), ylim=(-0.3, len(SCALES) - 0.7))
    axes.set_title("Best λ over the gap; small dots: by seed", loc="left", fontweight="bold")
    axes.legend(frameon=False, loc="upper right")


def _dots(axes: Axes, figures: Sequence[GapFigures], colour: str) -> None:
    for one in figures:
        places = [SCALES.index(scale) for scale in one.scales]
        # Side by side, so that seeds of one lambda do not hide each other.
        beside = [one.probe.mean + 0.006 * (n - (len(places) - 1) / 2) for n in range(len(places))]
        axes.plot(beside, places, "o", ms=3.5, color=colour, alpha=0.5, lw=0)


def _draw_curves(axes: Axes, found: Mapping[Gap, GapFigures]) -> None:
    shades = (BLUE, GREEN, GOLD, RED, VIOLET, GREY)
    for number, ((gap, one), colour) in enumerate(zip(found.items(), shades, strict=True)):
        # Side by side, so that no bar hides another.
        places = np.arange(len(SCALES)) + 0.07 * (number - (len(found) - 1) / 2)
        means = [100 * auc.mean for auc in one.test]
        deviations = [100 * auc.deviation for auc in one.test]
        dashes = "-" if gap in ALONG else "--"
        name = f"{gap.displaced:g}, {gap.turned_degrees:g}°: {one.probe.mean:.2f}"
        axes.plot(places, means, dashes, marker="o", ms=4, color=colour, lw=1.2, label=name)
        axes.errorbar(places, means, deviations, fmt="none", color=colour, alpha=0.4, capsize=2)
        at = SCALES.index(one.scale)
        axes.plot(places[at], means[at], "o", ms=10, mfc="none", color=colour)
    axes.set_xticks(range(len(SCALES)), [f"{scale:g}" for scale in SCALES])
    axes.set(xlabel="λ", ylabel="test AUC, %", xlim=(-0.5, len(SCALES) - 0.5))
    axes.set_title("AUC over λ; ring: best on validation", loc="left", fontweight="bold")
    axes.set_ylim(top=102)
    axes.legend(
        frameon=False,
        title="displaced, turned: probe",
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
    )


def draw_learnable(path: Path, found: Sequence[PolicyFigures]) -> None:
    """Lambda and the gradients' cosine over training, a column a problem."""
    colours = {ALONE: VIOLET, HALF: GREY, LEARNABLE: RED, "uncertainty": GOLD, "meta": GREEN}
    with look():
        sheet = figure((10, 5.6))
        grid = sheet.subplots(2, len(PROBLEMS), sharex=True, sharey="row")
        for column, problem in zip(grid.T, PROBLEMS, strict=True):
            for one in found:
                if one.problem == problem and one.policy in colours:
                    colour = colours[one.policy]
                    _band(column[0], one.scales, colour, one.policy)
                    _band(column[1], _smooth(one.cosine_curves), colour, one.policy)
            column[0].set_title(problem, loc="left", fontweight="bold")
            column[1].set_xlabel("step")
            for axes in column:
                axes.axhline(0, color=GREY, lw=1, ls=":")
                axes.spines[["top", "right"]].set_visible(False)
        grid[0, 0].set_ylabel("λ")
        grid[1, 0].set_ylabel("cosine of gradients")
        handles, names = grid[0, 0].get_legend_handles_labels()
        sheet.legend(handles, names, frameon=False, loc="outside lower center", ncols=len(names))
        sheet.savefig(path)


def _band(axes: Axes, curves: Curve, colour: str, name: str) -> None:
    """Mean over seeds, and one standard deviation to either side."""
    steps = np.arange(curves.shape[1])
    mean, deviation = np.nanmean(curves, 0), np.nanstd(curves, 0, ddof=1)
    axes.fill_between(steps, mean - deviation, mean + deviation, color=colour, alpha=0.15, lw=0)
    axes.plot(steps, mean, color=colour, lw=1.5, label=name)


def _smooth(curves: Curve) -> Curve:
    """Each step with the ones before it, so that the noise of single batches goes."""
    steps = range(curves.shape[1])
    parts = [np.nanmean(curves[:, max(0, n - _SMOOTH_STEPS + 1) : n + 1], 1) for n in steps]
    return np.stack(parts, 1)
