"""Torch modules to ONNX graphs with the names and shapes of the contract."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import onnx
import torch
from torch import nn

from export.steps import ExportedStep
from server.contract import (
    EXPLANATION_INDEX,
    EXPLANATION_WEIGHT,
    FEATURE,
    IMAGES,
    NEXT_STATE_PREFIX,
    SCORE,
    STATE_PREFIX,
    WindowSpec,
)
from server.preprocess import PreprocessSpec

OPSET = 18
_TRACED_BATCH = 2  # one would be taken for a constant


def export_encoder(
    encoder: nn.Module,
    window: WindowSpec,
    preprocess: PreprocessSpec,
    path: Path,
    opset: int = OPSET,
) -> None:
    """Write images (B, S, H, W, 3) uint8 -> feature (B, D) float32."""
    shape = (_TRACED_BATCH, window.sampled_frames, preprocess.height, preprocess.width, 3)
    images = torch.zeros(shape, dtype=torch.uint8)
    _export(encoder, (images,), path, ([IMAGES], [FEATURE]), opset)


def export_head(step: ExportedStep, path: Path) -> None:
    """Write feature and state_* -> score and next_state_*, with a bank also explanation_*."""
    inputs = [torch.zeros(_TRACED_BATCH, step.feature_dim)]
    inputs += [torch.zeros(_TRACED_BATCH, *shape) for shape in step.states.values()]
    before = [STATE_PREFIX + name for name in step.states]
    after = [NEXT_STATE_PREFIX + name for name in step.states]
    told = [EXPLANATION_INDEX, EXPLANATION_WEIGHT] if step.explains else []
    names = ([FEATURE, *before], [SCORE, *after, *told])
    _export(step.module, tuple(inputs), path, names)


def _export(
    module: nn.Module,
    inputs: tuple[torch.Tensor, ...],
    path: Path,
    names: tuple[list[str], list[str]],
    opset: int = OPSET,
) -> None:
    batch = {0: torch.export.Dim("batch")}
    # A step takes its states as one parameter that holds them all.
    _, *many = inputs
    dynamic = (batch, tuple(batch for _ in many)) if many else (batch,)
    with _quiet():
        torch.onnx.export(
            module.eval(),
            inputs,
            path,
            input_names=names[0],
            output_names=names[1],
            dynamic_shapes=dynamic,
            opset_version=opset,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    _forget_origins(path)


def _forget_origins(path: Path) -> None:
    """Remove the exporter's notes: each node carries the source paths of the machine it ran on."""
    model = onnx.load(path)
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    onnx.save(model, path)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells of packages that are not installed and of its own deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
