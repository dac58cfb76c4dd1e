"""A graph's multiplications in 8 bits, by ranges found on real pictures.

Weights have a scale a channel, activations one a tensor; what lies between the
multiplications keeps the graph's own type. Which of them cannot be rounded is measured, not
guessed: where the features are too far from the original's, those that cost most stay as they
are.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    create_calibrator,
    quant_pre_process,
)

from export.calibration import Windows
from export.qdq import TYPES, EightBits, multiplications, rounded, widened
from server.contract import FEATURE, IMAGES, Feature, Image
from training.clips import TrainingError

METHODS: dict[str, tuple[CalibrationMethod, dict[str, Any]]] = {
    "minmax": (CalibrationMethod.MinMax, {}),
    "percentile": (CalibrationMethod.Percentile, {"percentile": 99.99, "num_bins": 2048}),
}
"""Ways to find a range; the one whose features are nearer the original's is taken.

Entropy is none of them: with ONNX Runtime's 128 bins it has no choice but the whole range, and
with more it takes minutes a layer.
"""

MOST_SPARED = 0.5
"""Share of the groups that may stay as they are; beyond it 8 bits are not worth their loss."""

_PROBES = 8

Tick = Callable[[str, int, int], None]
"""Told what is being done, how much of it is, and of how much."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked of a quantised graph.

    Attributes:
        kind: of 8 bits: the first is the only one that CPUs multiply fast, TensorRT takes
            the others.
        min_cosine: mean cosine to the original's features on held-out windows, under 1.
        original: whose features those are; None for the graph that is quantised.
    """

    kind: EightBits
    min_cosine: float = 0.995
    original: Callable[[Image], Feature] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.min_cosine < 1:
            raise TrainingError(f"--min-cosine ({self.min_cosine}) must be between 0 and 1")


@dataclass(frozen=True, slots=True)
class Quantised:
    """What came of it.

    Attributes:
        cosine: mean, to the original's features on held-out windows.
        method: by which ranges were found.
        multiplications: with constant weights, that the graph has.
        spared: names of those that are not rounded, the most sensitive first.
    """

    cosine: float
    method: str
    multiplications: int
    spared: tuple[str, ...]

    def __str__(self) -> str:
        kept = f"; not rounded: {', '.join(self.spared)}" if self.spared else ""
        return (
            f"{self.multiplications - len(self.spared)} of {self.multiplications} multiplications "
            f"in 8 bits, cosine {self.cosine:.5f} by {self.method}{kept}"
        )


def quantise(
    source: Path,
    target: Path,
    windows: Windows,
    wanted: Wanted,
    tick: Tick = lambda what, done, total: None,
) -> Quantised:
    """Write a graph's quantised form.

    Args:
        source: an encoder; in fp32 for CPUs, for TensorRT in fp32 or fp16.
        target: where it goes.
        windows: real ones.
        wanted: the kind, and how near it must stay.
        tick: see `Tick`.

    Raises:
        TrainingError: nothing can be quantised, or the cosine cannot be reached.
    """
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch, _quiet():
        quantiser = _Quantiser(source, wanted.kind, Path(scratch))
        judge = _Judge(_expected(source, windows.held_out, wanted), windows.held_out, wanted.kind)
        tried = {}
        for method in METHODS:
            ranges = quantiser.ranges(method, windows.calibration, tick)
            tried[method] = (judge.cosine(quantiser.model(ranges, ())), ranges)
        method = max(tried, key=lambda name: tried[name][0])
        cosine, ranges = tried[method]
        spared: tuple[str, ...] = ()
        if not cosine >= wanted.min_cosine:
            order = _by_cost(quantiser.model(ranges, ()), quantiser.exact(), judge, tick)
            spared, cosine = _fewest(
                order, lambda names: judge.cosine(quantiser.model(ranges, names)), wanted, tick
            )
        target.write_bytes(quantiser.model(ranges, spared))
    return Quantised(cosine, method, len(quantiser.nodes), spared)


class _Judge:
    """Compares features with the original's."""

    def __init__(self, expected: Feature, images: Image, kind: EightBits) -> None:
        self._expected, self._images, self._kind = expected, images, kind

    def cosine(self, model: bytes, most: int | None = None) -> float:
        """Mean over the windows, or over so many of them."""
        step = 1 if most is None else max(1, len(self._images) // most)
        # What is meant for TensorRT is reckoned as it stands: a CPU's own form of it is slower.
        found = _features(model, self._images[::step][:most], as_it_stands=self._kind != "int8")
        return float(_cosines(found, self._expected[::step][:most]).mean())


class _Quantiser:
    """One graph, quantised again and again.

    Args:
        source: the graph.
        kind: of 8 bits.
        scratch: an empty folder for its other forms.

    Attributes:
        nodes: names of the multiplications that may be rounded.
    """

    def __init__(self, source: Path, kind: EightBits, scratch: Path) -> None:
        self._exact, self._calibrated = source, scratch / "calibrated.onnx"
        self._kind: EightBits = kind
        if kind == "int8":
            # Symbolic inference knows no attention node; ONNX's own suffices here.
            quant_pre_process(source, self._calibrated, skip_symbolic_shape=True)
            self._exact = self._calibrated
        else:
            # Histograms need float32, and CPUs multiply nothing else in good time.
            onnx.save(widened(onnx.load(source)), self._calibrated)
        self.nodes = multiplications(onnx.load(self._exact).graph, kind)
        if not self.nodes:
            raise TrainingError("the tower has no multiplication by constant weights to quantise")

    def exact(self) -> onnx.ModelProto:
        """The graph that is rounded, whole."""
        return onnx.load(self._exact)

    def ranges(self, method: str, images: Image, tick: Tick) -> Any:
        """Of every tensor that a multiplication reads; one window at a time, so memory lasts."""
        kind, options = METHODS[method]
        with tempfile.TemporaryDirectory(dir=self._calibrated.parent) as scratch:
            augmented = str(Path(scratch) / "augmented.onnx")
            calibrator = create_calibrator(
                self._calibrated, TYPES, augmented, kind, extra_options=options
            )
            for done, window in enumerate(images, start=1):
                calibrator.collect_data(_One(window))
                tick(f"ranges by {method}", done, len(images))
            return calibrator.compute_data()

    def model(self, ranges: Any, spared: Sequence[str]) -> bytes:
        """The quantised graph, those named left as they are."""
        chosen = frozenset(self.nodes).difference(spared)
        return rounded(self.exact(), chosen, ranges, self._kind)


class _One(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """A single window."""

    def __init__(self, window: Image) -> None:
        self._left = [{IMAGES: window[None]}]

    def get_next(self) -> dict[str, Image] | None:
        return self._left.pop() if self._left else None


def _by_cost(
    model: bytes, exact: onnx.ModelProto, judge: _Judge, tick: Tick
) -> list[tuple[str, ...]]:
    """Groups of multiplications that read one tensor, the most costly first.

    A group's cost is how much nearer the features come when it alone is not rounded.
    """
    whole = onnx.ModelProto.FromString(model)
    inputs_of = {node.name: list(node.input) for node in exact.graph.node}
    weights = {one.name: one for one in exact.graph.initializer}
    groups = _groups(whole.graph)
    cosines = {}
    for done, nodes in enumerate(groups, start=1):
        inputs = [list(node.input) for node in nodes]
        for node in nodes:
            node.input[:2] = inputs_of[node.name][:2]
            whole.graph.initializer.append(weights[node.input[1]])
        names = tuple(node.name for node in nodes)
        cosines[names] = judge.cosine(bytes(whole.SerializeToString()), _PROBES)
        del whole.graph.initializer[-len(nodes) :]
        for node, before in zip(nodes, inputs, strict=True):
            node.input[:] = before
        tick("what each costs", done, len(groups))
    return sorted(cosines, key=lambda names: -cosines[names])


def _groups(graph: onnx.GraphProto) -> list[list[onnx.NodeProto]]:
    """Quantised multiplications, those together that read the same rounded tensor."""
    back = {n.output[0] for n in graph.node if n.op_type == "DequantizeLinear"}
    groups: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        if node.op_type in TYPES and back.issuperset(node.input[:2]):
            groups.setdefault(node.input[0], []).append(node)
    return list(groups.values())


def _fewest(
    order: list[tuple[str, ...]],
    cosine_without: Callable[[Sequence[str]], float],
    wanted: Wanted,
    tick: Tick,
) -> tuple[tuple[str, ...], float]:
    """Spare as few of the costliest as suffice, found by halving; their names, and the cosine."""
    most = max(1, int(MOST_SPARED * len(order)))
    found: dict[int, float] = {}

    def reached(count: int) -> bool:
        found[count] = cosine_without(_names(order[:count]))
        tick("how many must be spared", len(found), most.bit_length() + 1)
        return found[count] >= wanted.min_cosine

    if not reached(most):
        raise TrainingError(
            f"--min-cosine {wanted.min_cosine} cannot be reached: {found[most]:.5f} is, with the "
            f"{most} most sensitive of {len(order)} groups of multiplications not rounded; lower "
            "it, give more clips to --calibrate, or take another precision"
        )
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return _names(order[:high]), found[high]


def _names(groups: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(name for group in groups for name in group)


def _expected(source: Path, images: Image, wanted: Wanted) -> Feature:
    if wanted.original is None:
        return _features(str(source), images)
    return np.concatenate([wanted.original(window[None]) for window in images])


def _features(model: bytes | str, images: Image, *, as_it_stands: bool = False) -> Feature:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    if as_it_stands:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    found = [session.run([FEATURE], {IMAGES: window[None]})[0] for window in images]
    return np.concatenate(found)


def _cosines(found: Feature, expected: Feature) -> Feature:
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    cosines: Feature = (found * expected).sum(1) / norms
    return cosines


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The package prints its progress and logs advice to the root logger.

    What it logs as an error it goes on without; what fails after it is told by an exception.
    """
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
