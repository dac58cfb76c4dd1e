"""The filter's report: what was kept and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from training.filter.criteria import BY_NAME, CRITERIA, Values
from training.filter.findings import OVERRIDES, Findings
from training.filter.verdicts import Verdict, counts

REPORT, HISTOGRAMS = "filter.md", "histograms.png"
SHEETS = ("kept", "discarded", "borderline")


def markdown(found: Findings, source: str) -> str:
    """The report.

    Args:
        found: what there is to tell.
        source: file name of the manifest whose videos were judged.
    """
    parts = [
        "# Which generated videos are kept",
        f"Videos of `{source}`. {_rule(found)} What a person decided in `{OVERRIDES}` stands: edit "
        "it and run the same command again.",
        _counts_table(found.verdicts),
        *_skipped(found.skipped),
        "## Criteria",
        "Each value is of a whole video. Outside: generated videos beyond the limits; real: 5th, "
        "50th and 95th percentile of real footage. **Bold** criteria count in the decision.",
        _criteria_table(found),
        f"![kept against discarded, by criterion]({HISTOGRAMS})",
        "## Why",
        _reasons_table(found.verdicts),
        "## Look at them",
        "Up to 24 videos a sheet, spread evenly from the best to the worst; borderline: the ones "
        "nearest to the decision. A green frame is kept, a red one discarded.",
        *(f"![{name}]({name}.png)" for name in SHEETS),
    ]
    return "\n\n".join(parts) + "\n"


def _rule(found: Findings) -> str:
    rule = found.rule
    if rule.shares is None:
        return "Kept is what lies within the limits of every criterion that counts."
    told = ", ".join(f"{100 * share:g} % of {label} ones" for label, share in rule.shares.items())
    return (
        f"Kept are the best {told} by the sum of z-scores over the criteria that count, among "
        "videos of one label; near-duplicates of better ones are passed over."
    )


def _counts_table(verdicts: Sequence[Verdict]) -> str:
    lines = ["| label | kept | of |", "|---|---|---|"]
    lines += [f"| {label} | {kept} | {of} |" for label, (kept, of) in counts(verdicts).items()]
    return "\n".join(lines)


def _skipped(skipped: Mapping[str, str]) -> list[str]:
    if not skipped:
        return []
    name, reason = next(iter(skipped.items()))
    return [f"{len(skipped)} could not be judged and are not kept; the first, {name}: {reason}."]


def _criteria_table(found: Findings) -> str:
    lines = [
        "| criterion | asks | accepts | real | kept: median | discarded: median | outside "
        "| not known |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for criterion in CRITERIA:
        kept, discarded = values_by_fate(found, criterion.name)
        both = np.concatenate([kept, discarded])
        limit = found.rule.limits[criterion.name]
        counts_here = criterion.name in found.rule.criteria
        cells = [
            f"**{criterion.name}**" if counts_here else criterion.name,
            criterion.question,
            str(limit),
            ", ".join(f"{value:.4g}" for value in found.real.get(criterion.name, ())) or "-",
            _median(kept),
            _median(discarded),
            str(int((limit.excess(both) > 0).sum())) if len(both) else "-",
            str(len(found.videos) - len(both)),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _median(values: Values) -> str:
    return f"{np.median(values):.4g}" if len(values) else "-"


def _reasons_table(verdicts: Sequence[Verdict]) -> str:
    told = Counter((verdict.kept, _kind(verdict.reason)) for verdict in verdicts)
    lines = ["| | videos | why |", "|---|---|---|"]
    for (kept, reason), number in sorted(told.items(), key=lambda item: (-item[0][0], -item[1])):
        lines.append(f"| {'kept' if kept else 'discarded'} | {number} | {reason} |")
    return "\n".join(lines)


def _kind(reason: str) -> str:
    first = reason.split()[0]
    if first == "rank":
        return "by rank"
    if first in BY_NAME:
        return f"{first} outside its limits"
    return "near-duplicate of a kept one" if first.startswith("near-dup") else reason


def values_by_fate(found: Findings, name: str) -> tuple[Values, Values]:
    """Known values of a criterion: of kept videos, and of discarded ones."""
    kept: list[float] = []
    discarded: list[float] = []
    for video, verdict in zip(found.videos, found.verdicts, strict=True):
        value = video.values.get(name)
        if value is not None:
            (kept if verdict.kept else discarded).append(value)
    return np.array(kept), np.array(discarded)
