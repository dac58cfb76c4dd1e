"""A bundle whose encoder takes its time: scores as the tiny one's, at a price for each window."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from server.bundle import Bundle, file_sha256, write_bundle
from tests.support.tiny_bundle import make_tiny_bundle

SIDE = 1300
"""Of the square matrices that each window multiplies twice: some 75 core-ms on a CPU of 2020."""


def make_heavy_bundle(directory: Path, **options: object) -> Bundle:
    """Write the bundle; options as of the tiny one."""
    tiny = make_tiny_bundle(directory.parent / f"{directory.name}-tiny", **options)  # type: ignore[arg-type]
    folder = directory.parent / f"{directory.name}-burdened"
    folder.mkdir()
    model = onnx.load(tiny.encoder_path)
    _burden(model.graph)
    onnx.checker.check_model(model)
    onnx.save(model, folder / "encoder.onnx")
    encoder = tiny.manifest.encoder
    sha256 = file_sha256(folder / "encoder.onnx")
    graph = encoder.graph.model_copy(update={"sha256": sha256})
    heavy = encoder.model_copy(update={"graph": graph})
    manifest = tiny.manifest.model_copy(update={"name": "heavy", "encoder": heavy})
    sources = {"encoder.onnx": folder / "encoder.onnx", "head.onnx": tiny.head_path}
    return write_bundle(directory, manifest, sources)


def _burden(graph: onnx.GraphProto) -> None:
    """Between means and feature, two products that add nothing but their time."""
    last = graph.node[-1]
    assert list(last.output) == ["feature"]
    last.output[0] = "light"
    node = helper.make_node
    graph.node.extend(
        [
            node("ReduceMean", ["light", "burden_axis"], ["burden_mean"], keepdims=1),
            node("Unsqueeze", ["burden_mean", "burden_place"], ["burden_seed"]),
            node("Mul", ["burden_seed", "burden_matrix"], ["burden_many"]),
            node("MatMul", ["burden_many", "burden_matrix"], ["burden_once"]),
            node("MatMul", ["burden_once", "burden_matrix"], ["burden_twice"]),
            node("ReduceMean", ["burden_twice", "burden_places"], ["burden_all"], keepdims=0),
            node("Unsqueeze", ["burden_all", "burden_axis"], ["burden_column"]),
            node("Mul", ["burden_column", "burden_nothing"], ["burden_zero"]),
            node("Add", ["light", "burden_zero"], ["feature"]),
        ]
    )
    constants = {
        "burden_axis": np.array([1]),
        "burden_place": np.array([2]),
        "burden_places": np.array([1, 2]),
        "burden_matrix": np.full((SIDE, SIDE), 1 / SIDE, np.float32),
        "burden_nothing": np.float32(0),
    }
    graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    )
