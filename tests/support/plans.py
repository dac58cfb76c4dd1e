"""TensorRT for RTX, which builds plans without a GPU."""

from __future__ import annotations

from pathlib import Path

import tensorrt_rtx

from server.contract import TensorSpec, encoder_tensors
from server.engine.plans import Batches
from server.engine.tensorrt_build import BuildTask, build_plan, make_log
from training.encoders import WindowEncoder

BATCHES = Batches(preferred=2, largest=4)


def built(graph: Path, encoder: WindowEncoder, width: int) -> bytes:
    """The plan of an exported encoder whose features are that wide, for any batch up to 4."""
    size = encoder.preprocess
    sampled = encoder.window.sampled_frames
    return built_of(graph, encoder_tensors(sampled, size.height, size.width, width))


def built_of(graph: Path, tensors: tuple[list[TensorSpec], list[TensorSpec]]) -> bytes:
    """The plan of a graph with these inputs and outputs, for any batch up to 4."""
    return build_plan(tensorrt_rtx, make_log(tensorrt_rtx), BuildTask(graph, *tensors, BATCHES))
