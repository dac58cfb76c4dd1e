"""How many multiplications and additions a graph needs for one window."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import onnx
from onnx import NodeProto, ValueInfoProto, shape_inference
from onnxruntime.quantization.onnx_model import ONNXModel

Shape = tuple[int, ...]


def graph_flops(path: Path) -> float:
    """Floating-point operations for a batch of one, a multiplication and an addition each one.

    Counted are matrix products, convolutions and attention; what else there is costs under a
    hundredth of a transformer's. A quantised product counts like any other.

    Args:
        path: an ONNX file whose first input's batch is its first dimension.
    """
    sorted_model = ONNXModel(onnx.load(path))
    # A quantiser adds its nodes at the end, and nothing is inferred of what comes too early.
    sorted_model.topological_sort()
    model = sorted_model.model
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    del model.graph.value_info[:]  # they may say that the batch is any number
    inferred = shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in inferred.initializer}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        shapes[value.name] = _shape(value)
    return sum(_flops(node, shapes) for node in inferred.node)


def _shape(value: ValueInfoProto) -> Shape:
    # One that is not known can only be a batch, which is one here.
    return tuple(dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim)


def _flops(node: NodeProto, shapes: Mapping[str, Shape]) -> float:
    found = [shapes.get(name, ()) for name in node.input]
    made = shapes.get(node.output[0], ())
    if node.op_type == "MatMul":
        return 2.0 * math.prod(made) * found[0][-1]
    if node.op_type == "Gemm":
        across = next((a.i for a in node.attribute if a.name == "transA"), 0)
        return 2.0 * math.prod(made) * found[0][0 if across else 1]
    if node.op_type == "Conv":
        return 2.0 * math.prod(made) * math.prod(found[1][1:])
    if node.op_type == "Attention":
        query, key = found[0], found[1]
        return 4.0 * math.prod(query) * key[-2]  # (B, heads, T, depth) each
    return 0.0
