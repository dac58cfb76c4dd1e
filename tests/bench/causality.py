"""What a head loses by not seeing the future: causal against the papers' form.

    python -m tests.bench.causality [--seeds 5] [--json]

The same network, data and seeds; anomalies are runs of 2 to 200 windows in videos of
256, shifted by so little that neighbours tell more than a window alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import replace

import torch

from training.fitted_bags import HEAD, fitted, window_auc
from training.learner import LearnerSpec
from training.objective import ObjectiveSpec
from training.problems import Planting, axis, ceiling, planted

WINDOWS = 256
SHIFTS = {2: 3.0, 8: 2.0, 32: 1.0, 100: 1.0, 200: 1.0}
"""By the anomaly's length: the shorter, the clearer it must be to be learned at all."""

FORMS = {"causal": HEAD, "whole": replace(HEAD, half_life_windows=None)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for length in SHIFTS:
        aucs = {
            form: [auc_of(form, length, seed) for seed in range(options.seeds)] for form in FORMS
        }
        lost = [b - a for a, b in zip(aucs["causal"], aucs["whole"], strict=True)]
        rows.append({"windows": length, "lost": statistics.mean(lost), **aucs})
        if not options.json:
            alone = ceiling(SHIFTS[length])
            print(
                f"events of {length:3} windows: causal {mean(aucs['causal'])}, whole "
                f"{mean(aucs['whole'])}, lost {mean(lost)}; a window alone {alone:.3f}"
            )
    if options.json:
        print(json.dumps(rows))


def auc_of(form: str, length: int, seed: int) -> float:
    """AUC over windows of 60 + 60 test videos, after fitting to 150 + 150."""
    random = torch.Generator().manual_seed(seed)
    planting = Planting(axis(0, SHIFTS[length]), WINDOWS, length, together=True)
    training, test = (planted(planting, count, count, random) for count in (150, 60))
    # A bag stands for itself by a tenth of its windows, as in the papers, or by its event.
    objective = ObjectiveSpec(
        select="score", k=min(length, WINDOWS // 10), magnitude=0.0, smooth=0.0, sparse=0.0
    )
    spec = LearnerSpec(150, 1e-2, 1e-2, objective, seed=seed)
    return window_auc(fitted(training, spec, head=FORMS[form]).head, test)


def mean(values: list[float]) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):+.3f} ({spread:.3f})"


if __name__ == "__main__":
    main()
