"""Tiny encoders by contract in the precisions that TensorRT runs: mean colours times a matrix."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from server.bundle import Bundle, GraphFile, Precision, file_sha256, load_bundle, write_bundle
from tests.support.tiny_bundle import make_tiny_bundle

_MIX = np.eye(3, dtype=np.float32)


def bundle_with_encoder(
    directory: Path, precision: Precision, *, zero_point: int = 0, said: Precision | None = None
) -> Bundle:
    """The tiny bundle, its encoder in this precision.

    Args:
        directory: where it will stand.
        precision: that its multiplication has.
        zero_point: of int8 activations.
        said: what the manifest says instead.
    """
    tiny = make_tiny_bundle(directory.parent / f"{directory.name}-plain")
    path = directory.parent / f"{directory.name}.onnx"
    onnx.save(_encoder(precision, zero_point), path)
    graph = GraphFile(file="encoder.onnx", sha256=file_sha256(path), precision=said or precision)
    encoder = tiny.manifest.encoder.model_copy(update={"graph": graph})
    manifest = tiny.manifest.model_copy(update={"encoder": encoder})
    write_bundle(directory, manifest, {"encoder.onnx": path, "head.onnx": tiny.head_path})
    return load_bundle(directory)


def _encoder(precision: Precision, zero_point: int) -> onnx.ModelProto:
    node = helper.make_node
    small = ml_dtypes.float8_e4m3fn if precision == "fp8" else np.int8
    constants: dict[str, np.ndarray] = {
        "axes": np.array([1, 2, 3]),
        "full": np.array(255, np.float32),
        "mix": _MIX,
        "scale": np.array(1 / (448 if precision == "fp8" else 127), np.float32),
        "zero": np.array(zero_point, small),
        "none": np.array(0, small),
    }
    nodes = [
        node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        node("ReduceMean", ["pixels", "axes"], ["mean"], keepdims=0),
        node("Div", ["mean", "full"], ["means"]),
    ]
    if precision in ("fp16", "bf16"):
        kind = TensorProto.FLOAT16 if precision == "fp16" else TensorProto.BFLOAT16
        nodes += [
            node("Cast", ["means"], ["low"], to=kind),
            node("Cast", ["mix"], ["low_mix"], to=kind),
            node("MatMul", ["low", "low_mix"], ["product"]),
            node("Cast", ["product"], ["feature"], to=TensorProto.FLOAT),
        ]
    elif precision == "fp32":
        nodes.append(node("MatMul", ["means", "mix"], ["feature"]))
    else:
        nodes += [
            node("QuantizeLinear", ["means", "scale", "zero"], ["small"]),
            node("DequantizeLinear", ["small", "scale", "zero"], ["rounded"]),
            node("QuantizeLinear", ["mix", "scale", "none"], ["small_mix"]),
            node("DequantizeLinear", ["small_mix", "scale", "none"], ["rounded_mix"]),
            node("MatMul", ["rounded", "rounded_mix"], ["feature"]),
        ]
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["B", 4, 24, 32, 3])
    feature = helper.make_tensor_value_info("feature", TensorProto.FLOAT, ["B", 3])
    used = {name for one in nodes for name in one.input}
    tensors = [numpy_helper.from_array(v, k) for k, v in constants.items() if k in used]
    graph = helper.make_graph(nodes, "tiny", [images], [feature], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)
    onnx.checker.check_model(model)
    return model
