"""A graph's multiplications in 8 bits, by ranges found on real pictures.

Weights have a scale a channel, activations one a tensor; what lies between the
multiplications stays float32. Which of them cannot be spared is measured, not guessed: where
the features are too far from the original's, those that cost most stay float32 as well.
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
    QDQQuantizer,
    QuantType,
    create_calibrator,
    quant_pre_process,
)

from export.calibration import Windows
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
"""Share of the groups that may stay float32; beyond it 8 bits are not worth their loss."""

_PROBES = 8
_TYPES = ("MatMul", "Gemm", "Conv")

Tick = Callable[[str, int, int], None]
"""Told what is being done, how much of it is, and of how much."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked of a quantised graph.

    Attributes:
        symmetric: signed activations without a zero point, as TensorRT demands; else unsigned
            ones with one, the only kind that CPUs multiply fast.
        min_cosine: mean cosine to the original's features on held-out windows, under 1.
    """

    symmetric: bool
    min_cosine: float = 0.995

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
        spared: names of those that stay float32, the most sensitive first.
    """

    cosine: float
    method: str
    multiplications: int
    spared: tuple[str, ...]

    def __str__(self) -> str:
        kept = f"; float32 stay {', '.join(self.spared)}" if self.spared else ""
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
        source: an encoder in fp32.
        target: where it goes.
        windows: real ones.
        wanted: the kind, and how near it must stay.
        tick: see `Tick`.

    Raises:
        TrainingError: nothing can be quantised, or the cosine cannot be reached.
    """
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch, _quiet():
        prepared = Path(scratch) / "prepared.onnx"
        # Symbolic inference knows no attention node; ONNX's own suffices here.
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantiser = _Quantiser(prepared, wanted.symmetric)
        judge = _Judge(_features(str(source), windows.held_out), windows.held_out)
        tried = {}
        for method in METHODS:
            ranges = quantiser.ranges(method, windows.calibration, tick)
            tried[method] = (judge.cosine(quantiser.model(ranges, ())), ranges)
        method = max(tried, key=lambda name: tried[name][0])
        cosine, ranges = tried[method]
        spared: tuple[str, ...] = ()
        if not cosine >= wanted.min_cosine:
            order = _by_cost(quantiser.model(ranges, ()), onnx.load(prepared), judge, tick)
            spared, cosine = _fewest(
                order, lambda names: judge.cosine(quantiser.model(ranges, names)), wanted, tick
            )
        target.write_bytes(quantiser.model(ranges, spared))
    return Quantised(cosine, method, len(quantiser.nodes), spared)


class _Judge:
    """Compares features with the original's."""

    def __init__(self, expected: Feature, images: Image) -> None:
        self._expected, self._images = expected, images

    def cosine(self, model: bytes, most: int | None = None) -> float:
        """Mean over the windows, or over so many of them."""
        step = 1 if most is None else max(1, len(self._images) // most)
        found = _features(model, self._images[::step][:most])
        return float(_cosines(found, self._expected[::step][:most]).mean())


class _Quantiser:
    """One prepared graph, quantised again and again.

    Attributes:
        nodes: names of the multiplications whose weights are constant.
    """

    def __init__(self, prepared: Path, symmetric: bool) -> None:
        self._prepared, self._symmetric = prepared, symmetric
        graph = onnx.load(prepared, load_external_data=False).graph
        constants = {one.name for one in graph.initializer}
        nodes = [n for n in graph.node if n.op_type in _TYPES and n.input[1] in constants]
        # The first convolution sees the picture itself; a tower of patches has no other.
        first = next((n.name for n in nodes if n.op_type == "Conv"), None)
        self.nodes = [node.name for node in nodes if node.name != first]
        if not self.nodes:
            raise TrainingError("the tower has no multiplication by constant weights to quantise")

    def ranges(self, method: str, images: Image, tick: Tick) -> Any:
        """Of every tensor that a multiplication reads; one window at a time, so memory lasts."""
        kind, options = METHODS[method]
        with tempfile.TemporaryDirectory(dir=self._prepared.parent) as scratch:
            augmented = str(Path(scratch) / "augmented.onnx")
            calibrator = create_calibrator(
                self._prepared, _TYPES, augmented, kind, extra_options=options
            )
            for done, window in enumerate(images, start=1):
                calibrator.collect_data(_One(window))
                tick(f"ranges by {method}", done, len(images))
            return calibrator.compute_data()

    def model(self, ranges: Any, spared: Sequence[str]) -> bytes:
        """The quantised graph, those named left as they are."""
        kind = QuantType.QInt8 if self._symmetric else QuantType.QUInt8
        options = {
            "ActivationSymmetric": self._symmetric,
            # Sums stay float32: what follows a multiplication needs their digits.
            "OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"],
            "QuantizeBias": False,  # TensorRT has no 32-bit integers to dequantise
        }
        chosen = [name for name in self.nodes if name not in spared]
        quantizer = QDQQuantizer(
            onnx.load(self._prepared),
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=kind,
            tensors_range=ranges,
            nodes_to_quantize=chosen,
            nodes_to_exclude=[],
            op_types_to_quantize=_TYPES,
            extra_options=options,
        )
        quantizer.quantize_model()
        model: onnx.ModelProto = quantizer.model.model
        _forget_unused_domains(model)
        return bytes(model.SerializeToString())


class _One(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """A single window."""

    def __init__(self, window: Image) -> None:
        self._left = [{IMAGES: window[None]}]

    def get_next(self) -> dict[str, Image] | None:
        return self._left.pop() if self._left else None


def _by_cost(
    model: bytes, prepared: onnx.ModelProto, judge: _Judge, tick: Tick
) -> list[tuple[str, ...]]:
    """Groups of multiplications that read one tensor, the most costly first.

    A group's cost is how much nearer the features come when it alone is not rounded.
    """
    rounded = onnx.ModelProto.FromString(model)
    exact = {node.name: list(node.input) for node in prepared.graph.node}
    weights = {one.name: one for one in prepared.graph.initializer}
    groups = _groups(rounded.graph)
    cosines = {}
    for done, nodes in enumerate(groups, start=1):
        inputs = [list(node.input) for node in nodes]
        for node in nodes:
            node.input[:2] = exact[node.name][:2]
            rounded.graph.initializer.append(weights[node.input[1]])
        names = tuple(node.name for node in nodes)
        cosines[names] = judge.cosine(bytes(rounded.SerializeToString()), _PROBES)
        del rounded.graph.initializer[-len(nodes) :]
        for node, before in zip(nodes, inputs, strict=True):
            node.input[:] = before
        tick("what each costs", done, len(groups))
    return sorted(cosines, key=lambda names: -cosines[names])


def _groups(graph: onnx.GraphProto) -> list[list[onnx.NodeProto]]:
    """Quantised multiplications, those together that read the same rounded tensor."""
    rounded = {n.output[0] for n in graph.node if n.op_type == "DequantizeLinear"}
    groups: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        if node.op_type in _TYPES and rounded.issuperset(node.input[:2]):
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
            f"{most} most sensitive of {len(order)} groups of multiplications in float32; lower "
            "it, give more clips to --calibrate, or take another precision"
        )
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return _names(order[:high]), found[high]


def _names(groups: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(name for group in groups for name in group)


def _features(model: bytes | str, images: Image) -> Feature:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    found = [session.run([FEATURE], {IMAGES: window[None]})[0] for window in images]
    return np.concatenate(found)


def _cosines(found: Feature, expected: Feature) -> Feature:
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    cosines: Feature = (found * expected).sum(1) / norms
    return cosines


def _forget_unused_domains(model: onnx.ModelProto) -> None:
    """ONNX Runtime's optimiser declares every set of operators that it knows of."""
    used = {node.domain for node in model.graph.node}
    kept = [one for one in model.opset_import if one.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)


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
