"""Ablations as Markdown that a person reads without reading code, and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from training.ablate_gap import FEW_REAL, GAPS, GENERATED, SCALES, Gap, GapFigures
from training.ablate_learnable import ALONE, ASIDE, PROBLEMS, REAL, SYNTHETIC, PolicyFigures
from training.ablate_run import ArmFigures, Study
from training.ablation import Ablation
from training.problems import WINDOWS
from training.spread import Spread

FEW_SEEDS = 5


@dataclass(frozen=True, slots=True)
class Compared:
    """An arm beside the one that it is compared with.

    Attributes:
        found: the arm.
        auc: in %, over seeds.
        gain: over the other arm, seed by seed; None for an arm that stands alone.
        paper_gain: the same of the paper's figures; None where it lacks either.
    """

    found: ArmFigures
    auc: Spread
    gain: Spread | None
    paper_gain: float | None

    def to_json(self) -> dict[str, object]:
        arm = self.found.arm
        return {
            "name": arm.name,
            "aucs": list(self.found.aucs),
            "auc": asdict(self.auc),
            "paper": arm.paper,
            "against": arm.against,
            "gain": None if self.gain is None else asdict(self.gain),
            "beyond_noise": None if self.gain is None else self.gain.is_beyond_noise,
            "paper_gain": self.paper_gain,
            "real_videos": self.found.real,
            "synthetic_videos": self.found.synthetic,
            "last_lambdas": list(self.found.last_lambdas),
        }


def compared(figures: Sequence[ArmFigures]) -> list[Compared]:
    """Every arm beside the one that it names."""
    by_name = {found.arm.name: found for found in figures}
    return [_compared(found, by_name.get(found.arm.against or "")) for found in figures]


def _compared(found: ArmFigures, other: ArmFigures | None) -> Compared:
    auc = Spread.of(found.aucs)
    if other is None:
        return Compared(found, auc, None, None)
    papers = (found.arm.paper, other.arm.paper)
    paper_gain = None if None in papers else round(float(papers[0] or 0) - float(papers[1] or 0), 9)
    return Compared(found, auc, Spread.of_pairs(found.aucs, other.aucs), paper_gain)


def arms_markdown(ablation: Ablation, study: Study, rows: Sequence[Compared]) -> str:
    """The report of an ablation on manifests."""
    seeds, picture = len(study.seeds), f"{ablation.name}.png"
    tests = study.tests
    parts = [
        f"# {ablation.title}",
        f"ROC AUC of frames in %, mean ± sample standard deviation over {seeds} seeds, on "
        f"{len(tests)} test videos ({sum(row.label == 'anomalous' for row in tests)} with an "
        f"anomaly){_folds(study)}. Beside it what the GV-VAD paper (arXiv 2508.00312) reports.",
        *_few(seeds),
        *ablation.notes,
        *_schedules(ablation),
        *_released(ablation),
        _arms_table(rows),
        _how_to_read(seeds),
        *([_DIFFERS] if any(row.found.arm.paper is not None for row in rows) else []),
        f"![{ablation.title}]({picture})",
    ]
    return "\n\n".join(parts) + "\n"


_DIFFERS = (
    "The paper's figures are not the goal of this table: they are of UCF-Crime with CLIP-L "
    "features and, as its released code shows, of the best of many looks at the test videos, from "
    "one run. Here other videos and other features may stand in the manifest, and the checkpoint "
    "is chosen on validation videos. Compare differences between rows, not rows with the paper's."
)


def _folds(study: Study) -> str:
    count = len(study.manifests)
    return f" of {count} folds, their frames pooled" if count > 1 else ""


def _few(seeds: int) -> list[str]:
    if seeds >= FEW_SEEDS:
        return []
    return [f"**Only {seeds} seeds: under {FEW_SEEDS} the spread itself is hardly known.**"]


def _schedules(ablation: Ablation) -> list[str]:
    schedules = {arm.recipe.scaling.schedule for arm in ablation.arms}
    if len(schedules) > 1 or (one := schedules.pop()).rise == "none":
        return []
    return [
        f"In every row synthetic videos come in over the first {100 * one.rise_share:g} % of the "
        "steps, as the recipe has it."
    ]


def _released(ablation: Ablation) -> list[str]:
    if not any(arm.recipe.released for arm in ablation.arms):
        return []
    return ["**Recipes with `released` choose their checkpoint on the test videos: they flatter.**"]


def _arms_table(rows: Sequence[Compared]) -> str:
    lines = [
        "| variant | AUC | paper | against | difference | paper's | videos: real + synthetic "
        "| λ at the end |",
        "|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(_arm_line(row) for row in rows)])


def _arm_line(row: Compared) -> str:
    found, arm = row.found, row.found.arm
    ends = Spread.of(found.last_lambdas)
    cells = [
        arm.name,
        str(row.auc),
        "-" if arm.paper is None else f"{arm.paper:.1f}",
        arm.against or "-",
        "-" if row.gain is None else difference(row.gain),
        "-" if row.paper_gain is None else f"{row.paper_gain:+.1f}",
        f"{found.real:.0f} + {found.synthetic:.0f}",
        "-" if not found.synthetic else f"{ends.mean:.2f} ± {ends.deviation:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def difference(gain: Spread, scale: float = 1.0) -> str:
    """A difference with its spread, bold where it is beyond noise."""
    told = f"{scale * gain.mean:+.2f} ± {scale * gain.deviation:.2f}"
    return f"**{told}**" if gain.is_beyond_noise else f"{told}, within noise"


def _how_to_read(seeds: int) -> str:
    return (
        "A difference is taken seed by seed (the same videos chosen, the same chance), mean ± "
        "sample standard deviation. It is **bold** where its 95 % interval over the "
        f"{seeds} seeds leaves out 0, else within noise; of twenty differences of nothing one "
        "is bold by chance. Noise here is that of seeds: other test videos would move all rows."
    )


def arms_json(ablation: Ablation, study: Study, rows: Sequence[Compared]) -> dict[str, object]:
    """The same for programs."""
    return {
        "name": ablation.name,
        "seeds": list(study.seeds),
        "manifests": [str(manifest.path) for manifest in study.manifests],
        "test_videos": len(study.tests),
        "rows": [row.to_json() for row in rows],
    }


def gap_markdown(found: Mapping[Gap, GapFigures], seeds: int, told: Sequence[str]) -> str:
    """The report of the domain gap."""
    parts = [
        "# Does a smaller domain gap make loss scaling needless?",
        f"Controlled problems: {FEW_REAL} + {FEW_REAL} real videos, normal and anomalous, beside "
        f"{GENERATED} + {GENERATED} synthetic ones of {WINDOWS} windows. The gap is how far "
        "all synthetic windows are displaced along an axis of their own (in a window's standard "
        "deviations) and by how much their anomaly's direction is turned. The probe is a logistic "
        "regression between real and synthetic windows, judged on other videos: 0.5 cannot tell, "
        "1 always can. λ weighs each synthetic video's loss; the best has the highest mean AUC on "
        "validation videos. AUC in %, over windows of other real test videos, mean ± sample "
        f"standard deviation over {seeds} seeds.",
        *_few(seeds),
        _gap_table(found),
        f"**Bold**: the 95 % interval over the {seeds} seeds leaves out 0.",
        "## What it says",
        *told,
        "![best λ against the probe, and AUC over λ](gap.png)",
    ]
    return "\n\n".join(parts) + "\n"


def _gap_table(found: Mapping[Gap, GapFigures]) -> str:
    lambdas = " | ".join(f"λ {scale:g}" for scale in SCALES)
    lines = [
        f"| displaced | turned | probe AUC | {lambdas} | best λ (by seed) | its gain on λ 1 |",
        "|" + "---|" * (5 + len(SCALES)),
    ]
    for gap in GAPS:
        one = found[gap]
        cells = [
            f"{gap.displaced:g}",
            f"{gap.turned_degrees:g}°",
            f"{one.probe.mean:.3f}",
            *(f"{100 * auc.mean:.1f} ± {100 * auc.deviation:.1f}" for auc in one.test),
            f"{one.scale:g} ({', '.join(f'{scale:g}' for scale in one.scales)})",
            "-" if one.scale == 1 else difference(one.over_unscaled, 100),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def learnable_markdown(found: Sequence[PolicyFigures], seeds: int, told: Sequence[str]) -> str:
    """The report of the policies."""
    parts = [
        "# Why does a learnable λ lose to a fixed one?",
        f"Controlled problems: {REAL} + {REAL} real videos, normal and anomalous, beside "
        f"{SYNTHETIC} + {SYNTHETIC} synthetic ones. "
        + "; ".join(f"*{name}*: {what}" for name, what in PROBLEMS.items())
        + ".",
        "λ weighs each synthetic video's loss, from 1 where it is learned. *learnable* is the "
        "paper's: one more parameter of the training loss. *uncertainty* learns a variance a "
        "source. *meta* raises λ while the synthetic gradient helps held-out real videos; it gets "
        f"no more videos than the others and sets {ASIDE} + {ASIDE} of the real ones aside. AUC in "
        "%, over windows of real test videos, mean ± sample standard deviation over "
        f"{seeds} seeds.",
        *_few(seeds),
        _policies_table(found),
        "Cosine and agreement are between the gradients of real and synthetic videos, mean over "
        "all but the first quarter of training; agreement is the share of weights that both move "
        f"the same way. **Bold**: the 95 % interval over the {seeds} seeds leaves out 0.",
        "## What it says",
        *told,
        "![λ and gradients over training](learnable.png)",
    ]
    return "\n\n".join(parts) + "\n"


def _policies_table(found: Sequence[PolicyFigures]) -> str:
    lines = [
        "| problem | λ by | AUC | against real alone | λ at the end | lowest λ | cosine "
        "| agreement |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in found:
        ends = Spread.of(one.last)
        cells = [
            one.problem,
            one.policy,
            f"{100 * one.auc.mean:.1f} ± {100 * one.auc.deviation:.1f}",
            "-" if one.policy == ALONE else difference(one.over_alone, 100),
            str(ends),
            f"{one.lowest:.2f}",
            str(Spread.of(one.cosines)),
            f"{100 * one.agreement.mean:.0f} %",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
