"""The embedded default's networks in torch, with the weights of a bundle's ONNX files.

A user who trained them would load a checkpoint; a bundle holds the same weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from export.bundle import ENCODER_NAME
from export.steps import HEAD_NAME
from server.bundle import Bundle, BundleError
from training.encoder import Encoder, EncoderSpec
from training.head import Head, HeadStep, embedded

Weights = Mapping[str, Tensor]

_STEP_LAYERS = ("dilated.0", "dilated.1", "dilated.2", "squeeze", "theta", "phi", "g")


def torch_encoder(bundle: Bundle) -> Encoder:
    """The bundle's encoder: (B, 16, H, W, 3) uint8 to (B, D).

    Raises:
        BundleError: it is of another architecture.
    """
    name = bundle.manifest.encoder.name
    if name != ENCODER_NAME:
        raise BundleError(
            f"the encoder is {name}, and torch is given weights of {ENCODER_NAME} alone; "
            "measure the embedded bundle"
        )
    weights = _initialisers(bundle.encoder_path)
    members = sum(key.endswith("project.bias") for key in weights)
    width = len(weights["members.0.layers.0.weight"])
    embedding = len(weights["members.0.project.bias"])
    encoder = Encoder(EncoderSpec(members, width, embedding, dropout=0.0))
    encoder.load_state_dict(_with_folded_norms(encoder, weights))
    return encoder.eval()


def _with_folded_norms(encoder: Encoder, weights: Weights) -> dict[str, Tensor]:
    """Every tensor by name; a norm that was folded into its convolution is the identity."""
    state = dict(encoder.state_dict())
    state |= {key: tensor for key, tensor in weights.items() if key in state}
    for name, module in encoder.named_modules():
        if isinstance(module, nn.BatchNorm2d) and f"{name}.weight" not in weights:
            place, _, layer = name.rpartition(".")
            state[f"{name}.running_var"] = torch.full_like(module.bias, 1 - module.eps)
            state[f"{name}.bias"] = weights[f"{place}.{int(layer) - 1}.weight_bias"]
    return state


def torch_head(bundle: Bundle) -> HeadStep:
    """The bundle's head, one window at a time: as `HeadStep`.

    Raises:
        BundleError: it is of another architecture.
    """
    part = bundle.manifest.head
    if part.name != HEAD_NAME or part.half_life_windows is None or bundle.manifest.bank:
        raise BundleError(
            f"the head is {part.name}, and torch is given weights of {HEAD_NAME} without a bank "
            "alone; measure the embedded bundle"
        )
    spec = embedded(bundle.manifest.encoder.feature_dim, part.half_life_windows, dropout=0.0)
    step = HeadStep(Head(spec))
    weights, layers = _initialisers(bundle.head_path), _layers(bundle.head_path)
    with torch.no_grad():
        for name in _STEP_LAYERS:
            _fill(step.visual.get_submodule(name), *next(layers))
        step.visual.expand_weight, step.visual.expand_bias = _both(*next(layers))
        _fill(step.visual.fuse, *next(layers))
        for module in (step.score[0], step.score[-1], step.direct):
            _fill(module, *next(layers))
        for name in ("dilated_gain", "dilated_shift", "fuse_gain", "fuse_shift"):
            getattr(step.visual, name).copy_(weights[name])
    return step.eval()


def _both(weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    assert bias is not None
    return weight, bias


def _fill(module: nn.Module | None, weight: Tensor, bias: Tensor | None) -> None:
    """Weights (outputs, taps * inputs) of a matrix product into a layer of a tap or three."""
    assert isinstance(module, nn.Linear | nn.Conv1d)
    if isinstance(module, nn.Conv1d):
        weight = weight.unflatten(1, (module.kernel_size[0], -1)).permute(0, 2, 1)
    module.weight.copy_(weight)
    assert (module.bias is None) == (bias is None)
    if module.bias is not None and bias is not None:
        module.bias.copy_(bias)


def _layers(path: Path) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Weight and bias of every matrix product, in the graph's order."""
    weights = _initialisers(path)
    for node in onnx.load(path).graph.node:
        if node.op_type == "Gemm":
            _, weight, *bias = node.input
            yield weights[weight], weights[bias[0]] if bias else None


def _initialisers(path: Path) -> dict[str, Tensor]:
    found = onnx.load(path).graph.initializer
    return {one.name: torch.from_numpy(numpy_helper.to_array(one).copy()) for one in found}
