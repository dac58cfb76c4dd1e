"""Known answers that this package must find: what `gvvad-train selftest` shows.

Problems are those of ALGORITHM.md, section 9; each check says what it found and
what it had to find.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from training.fitted_bags import AT_ONCE, HEAD, fitted, learner_spec, window_auc
from training.head import Head, HeadState, HeadStep
from training.objective import RTFM, Judged, objective
from training.problems import WIDTH, Bags, Planting, axis, ceiling, planted
from training.released_objective import released_objective
from training.scaling import ScalingSpec

_SHIFT = 2.5


@dataclass(frozen=True, slots=True)
class Check:
    """One answer.

    Attributes:
        name: what was asked.
        found: the answer.
        lowest: smallest answer that passes.
        highest: largest answer that passes.
        unit: of all three.
    """

    name: str
    found: float
    lowest: float
    highest: float
    unit: str

    @property
    def passed(self) -> bool:
        """Whether the answer is within its bounds."""
        return self.lowest <= self.found <= self.highest

    def to_json(self) -> dict[str, object]:
        return asdict(self) | {"passed": self.passed}


def detection(seed: int) -> Iterator[Check]:
    """A planted shift is found as well as the best score of a window finds it."""
    for size in (2.0, 3.0, 4.0):
        random = torch.Generator().manual_seed(seed)
        training, test = (planted(Planting(axis(0, size)), n, 400, random) for n in (400, 100))
        head = fitted(training, learner_spec(seed)).head
        yield Check(
            f"AUC under its ceiling of {ceiling(size):.3f}, shift {size:g}",
            ceiling(size) - window_auc(head, test),
            -0.01,
            0.02,
            "AUC",
        )


def spurious_axis(seed: int) -> Iterator[Check]:
    """Synthetic anomalies that show elsewhere: lambda 0 must give what real videos alone give."""
    random = torch.Generator().manual_seed(seed)
    real = planted(Planting(axis(0, _SHIFT)), 150, 150, random)
    made = planted(Planting(axis(1, 2 * _SHIFT), synthetic=True), 150, 150, random)
    test = planted(Planting(axis(0, _SHIFT)), 100, 300, random)
    both = Bags.join([real, made])
    alone = window_auc(fitted(real, learner_spec(seed)).head, test)
    whole, none = (ScalingSpec(value=value, schedule=AT_ONCE) for value in (1.0, 0.0))

    def lost(scaling: ScalingSpec, *, released: bool = False) -> float:
        spec = replace(learner_spec(seed, scaling), released=released)
        return alone - window_auc(fitted(both, spec).head, test)

    yield Check("AUC lost to a spurious synthetic axis, lambda 1", lost(whole), 0.03, 1.0, "AUC")
    yield Check("  lambda 0, sample by sample: as real alone", lost(none), -0.02, 0.02, "AUC")
    yield Check(
        "  lambda 0, released formula: not recovered", lost(none, released=True), 0.03, 1.0, "AUC"
    )


def meta(seed: int) -> Iterator[Check]:
    """Held-out real videos turn lambda down where synthetic ones mislead, and up elsewhere."""
    scaling = ScalingSpec("meta", schedule=AT_ONCE)
    for name, count, misled, bounds in (
        ("clean synthetic videos, few real ones", 20, False, (1.5, 2.0)),
        ("synthetic videos with swapped labels", 60, True, (0.0, 0.3)),
    ):
        random = torch.Generator().manual_seed(seed)
        real = planted(Planting(axis(0, _SHIFT)), count, count, random)
        held_out = planted(Planting(axis(0, _SHIFT)), 64, 64, random)
        made = planted(Planting(axis(0, _SHIFT), synthetic=True), 100, 100, random)
        if misled:
            made = replace(made, labels=1 - made.labels)
        spec = learner_spec(seed, scaling, steps=200)
        scales = fitted(Bags.join([real, made]), spec, held_out).curve("lambda")
        yield Check(f"meta lambda from 1.0: {name}", scales[-1], *bounds, "lambda")


def alignment(seed: int) -> Iterator[Check]:
    """PAL raises the scores of suspects; the released code lowers them."""
    judged, suspects = _judged(seed)
    for name, released in (("PAL", False), ("  released PAL", True)):
        slopes = []
        for weight in (1.0, 0.0):
            scores = judged.scores.clone().requires_grad_()
            moved, spec = replace(judged, scores=scores), replace(RTFM, pal=weight)
            if released:
                total = released_objective(spec, moved, torch.ones(())).total
            else:
                total = objective(spec, moved, torch.ones(len(judged.labels))).total
            slopes.append(torch.autograd.grad(total, scores)[0])
        down = (slopes[1] - slopes[0])[judged.labels == 1]
        raised = float((down[suspects[judged.labels == 1]] > 0).double().mean())
        bounds = (0.0, 0.0) if released else (1.0, 1.0)
        yield Check(f"{name}: share of suspects whose score rises", raised, *bounds, "share")


def scaling_ends(seed: int) -> Iterator[Check]:
    """Lambda 1 is no scaling; lambda 0 has the gradient of leaving those losses out."""
    judged, _ = _judged(seed)

    def slope(weights: Tensor) -> Tensor:
        scores = judged.scores.clone().requires_grad_()
        found = objective(RTFM, replace(judged, scores=scores), weights)
        return torch.autograd.grad(found.total, scores)[0]

    ones, real = torch.ones(len(judged.labels)), ~judged.synthetic
    scores = judged.scores.clone().requires_grad_()
    plain = objective(RTFM, replace(judged, scores=scores), ones).losses
    whole, dropped = (
        torch.autograd.grad(losses.sum() / len(real), scores, retain_graph=True)[0]
        for losses in (plain, plain[real])
    )
    errors = (slope(ones) - whole, slope(torch.where(real, 1.0, 0.0)) - dropped)
    for name, error in zip(("1: none", "0: dropped videos"), errors, strict=True):
        yield Check(f"lambda {name}, largest error", float(error.abs().max()), 0.0, 1e-8, "slope")


def streaming(seed: int) -> Iterator[Check]:
    """One window at a time scores as all at once, and the future never touches the past."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = Head(HEAD).double().eval()
        for parameter in head.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        windows = torch.randn(1, 10_000, WIDTH, dtype=torch.float64)
    changed = windows.clone()
    changed[:, 9_000:] += 10
    with torch.no_grad():
        whole, other = (_in_parts(head, features) for features in (windows, changed))
        step, state = HeadStep(head), list(HeadState.zero(HEAD, 1, windows).tensors())
        held = sum(tensor.numel() for tensor in state)
        stepped = []
        for window in windows.unbind(1):
            score, *state = step(window, *state)
            stepped.append(score)
    error = (torch.stack(stepped, 1) / whole - 1).abs().max()
    grown = sum(tensor.numel() for tensor in state) - held
    touched = (whole != other)[:, :9_000].sum()
    yield Check("10,000 windows one by one, relative error", float(error), 0.0, 1e-10, "")
    yield Check("  numbers that their state has grown by", float(grown), 0.0, 0.0, "")
    yield Check("past scores changed by other later windows", float(touched), 0.0, 0.0, "")


def _in_parts(head: Head, features: Tensor) -> Tensor:
    parts, state = [], HeadState.zero(head.spec, 1, features)
    for part in torch.split(features, 500, 1):
        logits, state = head.run(part, state)
        parts.append(torch.sigmoid(logits))
    return torch.cat(parts, 1)


def _judged(seed: int) -> tuple[Judged, Tensor]:
    """Random scores of eight videos, some synthetic, and which windows are suspect."""
    random = torch.Generator().manual_seed(seed)
    scores = torch.rand(8, 32, generator=random) * 0.9 + 0.05
    features = torch.randn(8, 1, 32, 4, generator=random)
    labels = (torch.arange(8) >= 4).float()
    suspects = torch.zeros(8, 32, dtype=torch.bool)
    suspects[4:, 5:9] = True
    return Judged(scores, (features,), labels, torch.arange(8) % 4 == 1, suspects.float()), suspects


CHECKS: Sequence[Callable[[int], Iterator[Check]]] = (
    detection,
    spurious_axis,
    meta,
    alignment,
    scaling_ends,
    streaming,
)


def selftest(seed: int = 0) -> Iterator[Check]:
    """Every check, as it is done; all of them take under a minute on one core."""
    for check in CHECKS:
        yield from check(seed)
