"""Multiplications in 8 bits, written as QuantizeLinear and DequantizeLinear around them.

CPUs want unsigned activations with a zero point: ONNX Runtime's own package writes that. Its
float8 takes scales from the spread of numbers and not from their range, so what TensorRT wants
is written here. Whatever is not multiplied in 8 bits keeps the graph's own type.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QDQQuantizer, QuantType

TYPES = ("MatMul", "Gemm", "Conv")
"""Operators that multiply."""

EightBits = Literal["int8", "int8-symmetric", "fp8"]
"""Unsigned activations with a zero point, signed ones without, and E4M3 of float8."""

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Grid:
    """Numbers of 8 bits on both sides of zero.

    Attributes:
        dtype: of them.
        largest: of them; a scale maps a tensor's largest number to it.
    """

    dtype: Any
    largest: float


_GRIDS = {
    "int8-symmetric": Grid(np.int8, 127.0),
    "fp8": Grid(ml_dtypes.float8_e4m3fn, 448.0),
}


def multiplications(graph: onnx.GraphProto, kind: EightBits) -> list[str]:
    """Names of those whose weights are constant and that may be rounded.

    The first convolution sees the picture itself. In float8 none is rounded: TensorRT has
    kernels for few shapes of them.
    """
    constants = {one.name for one in graph.initializer}
    nodes = [node for node in graph.node if node.op_type in TYPES and node.input[1] in constants]
    first = next((node.name for node in nodes if node.op_type == "Conv"), None)
    return [
        node.name
        for node in nodes
        if node.name != first and (kind != "fp8" or node.op_type != "Conv")
    ]


def widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph, names and all, with float32 wherever it had 16 bits."""
    graph = model.graph
    for one in graph.initializer:
        if one.data_type == TensorProto.FLOAT16:
            one.CopyFrom(numpy_helper.from_array(_single(one), one.name))
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
            elif attribute.t.data_type == TensorProto.FLOAT16:
                attribute.t.CopyFrom(numpy_helper.from_array(_single(attribute.t)))
    del graph.value_info[:]
    return model


def _single(tensor: onnx.TensorProto) -> Array:
    return numpy_helper.to_array(tensor).astype(np.float32)


def rounded(exact: onnx.ModelProto, names: Collection[str], ranges: Any, kind: EightBits) -> bytes:
    """A graph with some multiplications in 8 bits.

    Args:
        exact: the graph; not to be used afterwards.
        names: of the nodes that are rounded.
        ranges: of tensors, as ONNX Runtime's calibrators answer.
        kind: of 8 bits.
    """
    if kind == "int8":
        model = _for_cpus(exact, names, ranges)
    else:
        largest = {name: _largest(one) for name, one in ranges.items()}
        model = _for_tensorrt(exact, names, largest, _GRIDS[kind])
    _forget_unused_domains(model)
    return bytes(model.SerializeToString())


def _for_cpus(exact: onnx.ModelProto, names: Collection[str], ranges: Any) -> onnx.ModelProto:
    quantizer = QDQQuantizer(
        exact,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=ranges,
        nodes_to_quantize=list(names),
        nodes_to_exclude=[],
        op_types_to_quantize=TYPES,
        extra_options={
            # Sums stay as they are: what follows a multiplication needs their digits.
            "OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"],
            "QuantizeBias": False,
        },
    )
    quantizer.quantize_model()
    model: onnx.ModelProto = quantizer.model.model
    return model


def _largest(one: Any) -> float:
    return float(np.abs(np.asarray(one.range_value, np.float64)).max())


def _for_tensorrt(
    exact: onnx.ModelProto, names: Collection[str], largest: Mapping[str, float], grid: Grid
) -> onnx.ModelProto:
    graph = exact.graph
    constants = {one.name: one for one in graph.initializer}
    zero = numpy_helper.from_array(np.zeros((), grid.dtype), "zero_of_8_bits")
    graph.initializer.append(zero)
    nodes: list[onnx.NodeProto] = []
    done: set[str] = set()
    for node in graph.node:
        if node.name in names:
            activation, weight = node.input[:2]
            values = numpy_helper.to_array(constants[weight])
            if activation not in done:
                scale = _scale(np.array(largest[activation]), grid, values.dtype)
                nodes += _through(graph, activation, scale, zero.name)
            if weight not in done:
                nodes.append(_constant(graph, weight, values, (_axis(node), grid)))
            done |= {activation, weight}
            node.input[:2] = [_back(activation), _back(weight)]
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    _forget_unused_constants(graph)
    return exact


def _through(
    graph: onnx.GraphProto, tensor: str, scale: Array, zero: str
) -> tuple[onnx.NodeProto, onnx.NodeProto]:
    """An activation to 8 bits and back."""
    graph.initializer.append(numpy_helper.from_array(scale, f"{tensor}_scale"))
    small, others = f"{tensor}_quantised", [f"{tensor}_scale", zero]
    return (
        helper.make_node("QuantizeLinear", [tensor, *others], [small], f"{tensor}_q"),
        helper.make_node("DequantizeLinear", [small, *others], [_back(tensor)], f"{tensor}_dq"),
    )


def _constant(
    graph: onnx.GraphProto, name: str, values: Array, how: tuple[int, Grid]
) -> onnx.NodeProto:
    """Weights in 8 bits, with a scale a channel, and back."""
    axis, grid = how
    others = tuple(one for one in range(values.ndim) if one != axis)
    scale = _scale(np.abs(values).max(others, keepdims=True), grid, values.dtype)
    small = values.astype(np.float32) / scale.astype(np.float32)
    if np.issubdtype(grid.dtype, np.integer):
        small = np.rint(small)
    small = np.clip(small, -grid.largest, grid.largest).astype(grid.dtype)
    zeros = np.zeros(scale.size, grid.dtype)
    inputs = [f"{name}_quantised", f"{name}_scale", f"{name}_zero_point"]
    for array, called in zip((small, scale.ravel(), zeros), inputs, strict=True):
        graph.initializer.append(numpy_helper.from_array(array, called))
    return helper.make_node("DequantizeLinear", inputs, [_back(name)], f"{name}_dq", axis=axis)


def _scale(largest: Array, grid: Grid, dtype: Any) -> Array:
    """Never 0, and a little more where `dtype` would round it down: 8 bits must reach as far."""
    wanted = largest.astype(np.float64) / grid.largest
    scale = wanted.astype(dtype)
    short = scale.astype(np.float64) < wanted
    scale = np.where(short, np.nextafter(scale, np.array(np.inf, dtype)), scale)
    found: Array = np.maximum(scale, np.finfo(dtype).smallest_subnormal)
    return found


def _axis(node: onnx.NodeProto) -> int:
    """Of a weight's output channels."""
    turned = any(one.name == "transB" and one.i for one in node.attribute)
    return 0 if node.op_type == "Conv" or turned else 1


def _back(name: str) -> str:
    return f"{name}_dequantised"


def _forget_unused_constants(graph: onnx.GraphProto) -> None:
    used = {name for node in graph.node for name in node.input}
    kept = [one for one in graph.initializer if one.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _forget_unused_domains(model: onnx.ModelProto) -> None:
    """ONNX Runtime's optimiser declares every set of operators that it knows of."""
    used = {node.domain for node in model.graph.node}
    kept = [one for one in model.opset_import if one.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
