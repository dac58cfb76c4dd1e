"""gvvad-export bench: operations counted by hand, contestants in turns, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from export.bench import BUNDLE, PLAIN, Contestant, Plan, measure
from export.cli import main
from export.flops import graph_flops
from server.bundle import DEFAULT_BUNDLE, load_bundle


def saved(path: Path, nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray]) -> Path:
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()]
    batch = ["batch", 3, 8, 8]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, batch)],
        [helper.make_tensor_value_info("feature", TensorProto.FLOAT, None)],
        tensors,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)]), path)
    return path


def test_convolutions_and_products_are_counted_by_their_shapes(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["images", "kernel"], ["maps"], strides=[4, 4]),
        helper.make_node("Flatten", ["maps"], ["flat"]),
        helper.make_node("Gemm", ["flat", "dense"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "last"], ["feature"]),
    ]
    weights = {
        "kernel": np.zeros((5, 3, 4, 4), np.float32),
        "dense": np.zeros((20, 7), np.float32),
        "last": np.zeros((7, 2), np.float32),
    }
    convolution, dense, last = 2 * (5 * 2 * 2) * (3 * 4 * 4), 2 * 20 * 7, 2 * 7 * 2
    found = graph_flops(saved(tmp_path / "graph.onnx", nodes, weights))
    assert found == convolution + dense + last


def test_attention_is_two_products_of_every_head(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Attention", ["images", "images", "images"], ["feature"]),
    ]
    heads, times, depth = 3, 8, 8
    found = graph_flops(saved(tmp_path / "graph.onnx", nodes, {}))
    assert found == 2 * (2 * heads * times * times * depth)


def test_contestants_take_turns_and_stand_beside_the_machine_s_rate(
    capsys: pytest.CaptureFixture[str],
) -> None:
    more = ("--batch", "2", "1", "--rounds", "2", "--seconds", "0.01", "--threads", "1")
    assert main(["bench", str(DEFAULT_BUNDLE), *more, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(one["name"], one["batch"]) for one in found["figures"]] == [
        (BUNDLE, 1), (PLAIN, 1), (BUNDLE, 2), (PLAIN, 2),
    ]  # fmt: skip
    for one in found["figures"]:
        assert one["images_per_second"] * one["latency_seconds"] == pytest.approx(16 * one["batch"])
        assert 0 < one["peak_share"] < 2
        assert one["ratio"] == 1 or one["name"] == BUNDLE
    assert main(["bench", str(DEFAULT_BUNDLE), *more]) == 0
    assert "GFLOP a window" in capsys.readouterr().out


def test_on_a_gpu_nothing_is_said_of_the_cpu_s_products_and_plain_may_be_lacking() -> None:
    bundle = load_bundle(DEFAULT_BUNDLE)
    who = [Contestant(BUNDLE, lambda part: part, 0, "cuda")]
    [found] = measure(who, bundle, 1e9, Plan((2,), 1, 0.001), lambda: None)
    assert (found.peak_share, found.ratio) == (None, None)
    assert found.images_per_second > 0


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="there is a GPU")
def test_the_engine_asked_for_is_measured_or_nothing_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["bench", str(DEFAULT_BUNDLE), "--engine", "tensorrt_rtx"]) == 2
    told = capsys.readouterr()
    assert "cudaErrorInsufficientDriver" in told.err
    assert told.out == ""


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--batch", "0"), "--batch ([0]) must be 1 to 1024 each"),
        (("--rounds", "0"), "--rounds must be 1 to 100"),
        (("--threads", "0"), "--threads (0) must be 1 to 1024"),
        (("--model", "ViT-B-32"), "--model and --pretrained go together"),
    ],
)
def test_flags_that_cannot_be_are_refused(
    capsys: pytest.CaptureFixture[str], more: tuple[str, ...], told: str
) -> None:
    assert main(["bench", str(DEFAULT_BUNDLE), *more]) == 2
    assert told in capsys.readouterr().err
