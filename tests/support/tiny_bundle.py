"""A tiny real bundle: two ONNX graphs whose scores can be computed by hand.

Feature = mean red, green and blue of the window, each in [0, 1]. The head keeps
a trail: next = (trail + mean feature) / 2, and the score is the new trail.

Its encoder may have a fault that shows with bright windows alone, after the warm-up
with black ones: a real engine that fails while it runs. With sentences its head names
the two colours that are brightest, each weighed by its brightness.
"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from server.bank import Sentences
from server.bundle import (
    BankPart,
    Bundle,
    EncoderPart,
    GraphFile,
    HeadPart,
    Manifest,
    Threshold,
    Training,
    file_sha256,
    write_bundle,
)
from server.contract import WindowSpec
from server.preprocess import PreprocessSpec

NATIVE = WindowSpec(sampled_frames=4, fps=None)
SMALL = PreprocessSpec(24, 32, "squash", "area", "bt601", "declared")

BRIGHT = 0.75
"""A window whose mean red, green or blue is over it shows the encoder's fault."""
HUNGER_BYTES = 256_000_000


COLOURS = Sentences("c" * 64, "by hand", ("red", "green", "blue"), (True, False, False))
NAMED = 2


class Fault(Enum):
    """What the encoder does with a bright window."""

    RAISES = "reads beyond the end of a table"
    NAN = "makes features that are no numbers"
    HUNGRY = "needs HUNGER_BYTES more, which it has or has not"


def make_tiny_bundle(
    directory: Path,
    *,
    window: WindowSpec = NATIVE,
    preprocess: PreprocessSpec = SMALL,
    clips: list[str] | None = None,
    threshold: float = 0.5,
    feature_dim_said: int = 3,
    fault: Fault | None = None,
    sentences: Sentences | None = None,
) -> Bundle:
    """Write the bundle; `feature_dim_said` may lie, to make its graphs of another shape."""
    graphs = directory.parent / f"{directory.name}-graphs"
    graphs.mkdir(parents=True)
    onnx.save(_encoder(window.sampled_frames, preprocess, fault), graphs / "encoder.onnx")
    onnx.save(_head(named=sentences is not None), graphs / "head.onnx")
    bank = None
    sources = {name: graphs / name for name in ("encoder.onnx", "head.onnx")}
    if sentences is not None:
        sources["bank.json"] = graphs / "bank.json"
        sentences.write(sources["bank.json"])
        hashed = file_sha256(sources["bank.json"])
        bank = BankPart(file="bank.json", sha256=hashed, bank_sha256=COLOURS.sha256, nearest=NAMED)
    manifest = Manifest(
        schema=1,
        name="tiny",
        window=window,
        preprocess=preprocess,
        encoder=EncoderPart(
            name="means",
            feature_dim=feature_dim_said,
            feature_scale=1.0,
            graph=_graph_file(graphs / "encoder.onnx"),
        ),
        head=HeadPart(
            name="trail",
            half_life_windows=1.0,
            states={"trail": (1,)},
            graph=_graph_file(graphs / "head.onnx"),
        ),
        bank=bank,
        threshold=Threshold(value=threshold, chosen="by hand"),
        training=Training(
            manifest_sha256="0" * 64, clips=clips or [], code_version="0", seeds=[], metrics={}
        ),
    )
    return write_bundle(directory, manifest, sources)


def trail_scores(means: list[float]) -> list[float]:
    """Scores that the tiny head gives for windows of these mean features, from zero."""
    trail, scores = 0.0, []
    for mean in means:
        trail = (trail + mean) / 2
        scores.append(trail)
    return scores


def at_rate(spec: WindowSpec, fps: float) -> WindowSpec:
    return replace(spec, fps=fps)


def _graph_file(path: Path) -> GraphFile:
    return GraphFile(file=path.name, sha256=file_sha256(path), precision="fp32")


def _encoder(sampled_frames: int, size: PreprocessSpec, fault: Fault | None) -> onnx.ModelProto:
    shape = ["B", sampled_frames, size.height, size.width, 3]
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "axes"], ["mean"], keepdims=0),
        helper.make_node("Div", ["mean", "full"], ["means"]),
        helper.make_node("ReduceMax", ["means"], ["brightest"], keepdims=0),
        helper.make_node("Greater", ["brightest", "bright"], ["is_bright"]),
        *_faulty(fault),
    ]
    return _model(
        nodes,
        [helper.make_tensor_value_info("images", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("feature", TensorProto.FLOAT, ["B", 3])],
        {
            "axes": np.array([1, 2, 3]),
            "full": np.float32(255),
            "bright": np.float32(BRIGHT),
            "nan": np.float32(np.nan),
            "table": np.zeros(1, np.float32),
            "many": np.array([HUNGER_BYTES // 4]),
            "one": np.array([1]),
        },
    )


def _faulty(fault: Fault | None) -> list[onnx.NodeProto]:
    """From `means` and `is_bright` to `feature`."""
    node = helper.make_node
    match fault:
        case None:
            return [node("Identity", ["means"], ["feature"])]
        case Fault.NAN:
            return [node("Where", ["is_bright", "nan", "means"], ["feature"])]
        case Fault.RAISES:
            return [
                node("Cast", ["is_bright"], ["place"], to=TensorProto.INT64),
                node("Gather", ["table", "place"], ["zero"]),
                node("Add", ["means", "zero"], ["feature"]),
            ]
        case Fault.HUNGRY:
            return [
                node("Where", ["is_bright", "many", "one"], ["length"]),
                node("ConstantOfShape", ["length"], ["zeros"]),
                node("ReduceMax", ["zeros"], ["zero"], keepdims=0),
                node("Add", ["means", "zero"], ["feature"]),
            ]


def _head(*, named: bool) -> onnx.ModelProto:
    nodes = [
        helper.make_node("ReduceMean", ["feature", "axes"], ["mean"], keepdims=1),
        helper.make_node("Add", ["mean", "state_trail"], ["sum"]),
        helper.make_node("Mul", ["sum", "half"], ["next_state_trail"]),
        helper.make_node("Squeeze", ["next_state_trail", "axes"], ["score"]),
    ]
    told = []
    if named:
        names = ["explanation_weight", "explanation_index"]
        nodes.append(helper.make_node("TopK", ["feature", "named"], names))
        kinds = (TensorProto.FLOAT, TensorProto.INT64)
        told = [
            helper.make_tensor_value_info(name, kind, ["B", NAMED])
            for name, kind in zip(names, kinds, strict=True)
        ]
    return _model(
        nodes,
        [
            helper.make_tensor_value_info("feature", TensorProto.FLOAT, ["B", 3]),
            helper.make_tensor_value_info("state_trail", TensorProto.FLOAT, ["B", 1]),
        ],
        [
            helper.make_tensor_value_info("score", TensorProto.FLOAT, ["B"]),
            helper.make_tensor_value_info("next_state_trail", TensorProto.FLOAT, ["B", 1]),
            *told,
        ],
        {"axes": np.array([1]), "half": np.float32(0.5), "named": np.array([NAMED])},
    )


def _model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: dict[str, np.ndarray],
) -> onnx.ModelProto:
    initialisers = [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, initialisers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model
