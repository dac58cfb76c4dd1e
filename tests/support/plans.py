"""TensorRT for RTX, which builds plans without a GPU."""

from __future__ import annotations

from pathlib import Path

import tensorrt_rtx

from server.contract import encoder_tensors
from server.engine.plans import Batches
from server.engine.tensorrt_build import BuildTask, build_plan, make_log
from training.encoders import WindowEncoder

BATCHES = Batches(preferred=2, largest=4)


def built(graph: Path, encoder: WindowEncoder, width: int) -> bytes:
    """The plan of an exported encoder whose features are that wide, for any batch up to 4."""
    size = encoder.preprocess
    sampled = encoder.window.sampled_frames
    tensors = encoder_tensors(sampled, size.height, size.width, width)
    return build_plan(tensorrt_rtx, make_log(tensorrt_rtx), BuildTask(graph, *tensors, BATCHES))
