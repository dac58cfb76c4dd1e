"""Visual towers of open_clip in the form that an engine runs fastest, as ONNX.

`nn.MultiheadAttention` exports as one projection that is cut in three, which no engine
recognises. Here query, key and value have projections of their own, and what stands between
them and the output is one node, or is written out where an engine lacks that node.
"""

from __future__ import annotations

import copy
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnx
import onnxruntime as ort
import torch
from torch import Tensor, nn
from torch.nn import functional

from export.graphs import OPSET, export_encoder
from training.clips import TrainingError
from training.encoders import ClipEncoder, ClipWindows, Normalised, pooled

EngineName = Literal["onnxruntime", "tensorrt"]
Exactness = Literal["fp32", "fp16", "bf16", "int8", "fp8"]

PRECISIONS: dict[EngineName, tuple[Exactness, ...]] = {
    "onnxruntime": ("fp32", "fp16", "int8"),
    "tensorrt": ("fp32", "fp16", "bf16", "int8", "fp8"),
}
"""What each engine runs; the CPU of ONNX Runtime lacks most operators in bf16."""

MAX_GRAPH_BYTES = 2**31 - 2**24
"""An ONNX file is one message of protobuf, at most 2 GiB; the nodes need a little of it."""

_ATTENTION_OPSET = 23  # the first that has the node
_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
_ATTENTIONS = ("Attention", "MultiHeadAttention")
_GELUS = ("Gelu", "BiasGelu", "FastGelu", "QuickGelu")
_PATCHES = ("conv1", "trunk.patch_embed.proj")

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Query, key and value (B, heads, T, width of a head) to the values' mixture."""


@dataclass(frozen=True, slots=True)
class TowerForm:
    """Which engine a graph is for, and how exact it is.

    Raises:
        TrainingError: the engine lacks the precision.
    """

    engine: EngineName = "onnxruntime"
    precision: Exactness = "fp32"

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS[self.engine]:
            has = "; ".join(f"{name} {', '.join(has)}" for name, has in PRECISIONS.items())
            raise TrainingError(f"--engine {self.engine} has no {self.precision}; there are: {has}")

    @property
    def dtype(self) -> torch.dtype:
        """Of the graph before anything in it is rounded to 8 bits."""
        if self.needs_rounding and self.engine == "tensorrt":
            return torch.float16
        return _DTYPES.get(self.precision, torch.float32)

    @property
    def needs_rounding(self) -> bool:
        """Whether the graph is to be quantised by ranges that real pictures have."""
        return self.precision in ("int8", "fp8")

    @property
    def has_attention_node(self) -> bool:
        """TensorRT has no kernel for the node in fp32, but fuses what is written out."""
        return self.engine == "onnxruntime" or self.dtype != torch.float32


@dataclass(frozen=True, slots=True)
class Recognised:
    """What an engine sees in a graph.

    Attributes:
        attentions: of the tower, that were rewritten.
        nodes: of them, in one node each; None where they are written out on purpose.
        gelus: activations in one node each.
    """

    attentions: int
    nodes: int | None
    gelus: int

    def __str__(self) -> str:
        if not self.attentions:
            return "no attention to rewrite: exported as it is"
        if self.nodes is None:
            return f"{self.attentions} attentions written out, as TensorRT takes them"
        return (
            f"{self.nodes} of {self.attentions} attentions are one node, {self.gelus} GELUs fused"
        )


def export_tower(encoder: ClipEncoder, form: TowerForm, path: Path) -> Recognised:
    """Write images (B, S, H, W, 3) uint8 -> feature (B, D) float32.

    A graph that is to be quantised is written in fp32, for TensorRT in fp16.

    Args:
        encoder: whose tower; it stays as it is.
        form: for which engine; its weights have the precision, all around them is float32.
        path: the ONNX file.

    Raises:
        TrainingError: the tower is larger than an ONNX file can be.
    """
    _check_size(encoder, form.dtype)
    attend = functional.scaled_dot_product_attention if form.has_attention_node else written_out
    tower = _copied(encoder.tower, form.dtype)
    attentions = replace_attention(tower, attend)
    fold_normalisation(tower)
    opset = _ATTENTION_OPSET if form.has_attention_node else OPSET
    export_encoder(tower, encoder.window, encoder.preprocess, path, opset)
    del tower
    counts = _counted(path) if form.engine == "tensorrt" else counted_after_optimising(path)
    nodes = sum(counts[name] for name in _ATTENTIONS) if form.has_attention_node else None
    return Recognised(attentions, nodes, sum(counts[name] for name in _GELUS))


class Attention(nn.Module):
    """A `nn.MultiheadAttention` whose inputs are (B, T, width) each.

    Args:
        source: whose weights these are.
        attend: what stands between the projections.
    """

    def __init__(self, source: nn.MultiheadAttention, attend: Attend) -> None:
        super().__init__()
        self.heads, self.attend = source.num_heads, attend
        weights, biases = source.in_proj_weight.chunk(3), source.in_proj_bias.chunk(3)
        self.query, self.key, self.value = map(_linear, weights, biases)
        self.output = source.out_proj

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, **options: Any
    ) -> tuple[Tensor, None]:
        """As `nn.MultiheadAttention` answers where nobody needs the weights."""
        assert options.get("attn_mask") is None, "a visual tower masks nothing"
        q, k, v = map(self._split, (self.query(query), self.key(key), self.value(value)))
        return self.output(self.attend(q, k, v).transpose(1, 2).flatten(2)), None

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)


def written_out(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """`scaled_dot_product_attention` in three operations that every opset has."""
    weights = torch.softmax(query @ key.transpose(2, 3) * query.shape[3] ** -0.5, dim=-1)
    return weights @ value


def replace_attention(tower: nn.Module, attend: Attend) -> int:
    """Let attention be `attend`'s; how many of them there are.

    Whatever is not `nn.MultiheadAttention` of one width stays.
    """
    count = 0
    for parent in list(tower.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.MultiheadAttention) and _is_plain(child):
                setattr(parent, name, Attention(child, attend))
                count += 1
    return count


def _is_plain(attention: nn.MultiheadAttention) -> bool:
    return (
        attention.batch_first
        and attention.in_proj_weight is not None
        and attention.in_proj_bias is not None
        and attention.bias_k is None
        and not attention.add_zero_attn
    )


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    linear.weight, linear.bias = nn.Parameter(weight), nn.Parameter(bias)
    return linear


class Folded(nn.Module):
    """A tower whose own convolution normalises pictures in 0 to 255."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual

    def forward(self, frames: Tensor) -> Tensor:
        return pooled(self.visual(frames))


class Reduced(nn.Module):
    """A tower in 16 bits after a normalisation in 32."""

    def __init__(self, tower: Normalised, dtype: torch.dtype) -> None:
        super().__init__()
        self.mean, self.deviation = tower.mean, tower.deviation
        self.visual, self.dtype = tower.visual, dtype

    def forward(self, frames: Tensor) -> Tensor:
        pictures = (frames - self.mean) / self.deviation
        return pooled(self.visual(pictures.to(self.dtype))).float()


def _copied(tower: ClipWindows, dtype: torch.dtype) -> ClipWindows:
    """A copy that may be changed: its weights are the same memory where they have `dtype`."""
    assert isinstance(tower.see, Normalised)
    visual = tower.see.visual
    memo: dict[int, Any] = {
        id(one): nn.Parameter(one.detach().to(dtype), requires_grad=False)
        for one in visual.parameters()
    }
    memo |= {id(one): one.to(dtype) for one in visual.buffers() if one.is_floating_point()}
    copied = copy.deepcopy(tower, memo)
    if dtype != torch.float32 and isinstance(copied.see, Normalised):
        copied.see = Reduced(copied.see, dtype)
    return copied


@torch.no_grad()
def fold_normalisation(tower: ClipWindows) -> bool:
    """Put the pictures' mean and deviation into the convolution of patches; whether it was done.

    w (x - m) / d = (w / d) x - sum(w m / d), exact up to rounding where nothing is padded: a
    padding of 0 would be another colour. In 16 bits w / d would lose digits.
    """
    see = tower.see
    if not isinstance(see, Normalised):
        return False
    patches = _patches(see.visual)
    if patches is None:
        return False
    weight = patches.weight / see.deviation
    shift = (weight * see.mean).sum((1, 2, 3))
    bias = -shift if patches.bias is None else patches.bias - shift
    patches.weight, patches.bias = nn.Parameter(weight), nn.Parameter(bias)
    tower.see = Folded(see.visual)
    return True


def _patches(visual: nn.Module) -> nn.Conv2d | None:
    for name in _PATCHES:
        try:
            found = visual.get_submodule(name)
        except AttributeError:
            continue
        if isinstance(found, nn.Conv2d) and found.padding == (0, 0) and found.in_channels == 3:
            return found
    return None


def _check_size(encoder: ClipEncoder, dtype: torch.dtype) -> None:
    count = sum(one.numel() for one in encoder.tower.parameters())
    if count * dtype.itemsize > MAX_GRAPH_BYTES:
        raise TrainingError(
            f"the tower of {encoder.name} takes {count * dtype.itemsize / 1e9:.1f} GB, an ONNX "
            "file at most 2.1; take a precision of 16 bits, or a smaller tower"
        )


def _counted(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def counted_after_optimising(path: Path) -> Counter[str]:
    """Operators that ONNX Runtime runs, by name.

    Raises:
        TrainingError: it takes the graph for broken, or its own form of it finds no room.
    """
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        # Beyond it come layouts of memory, which count nothing together.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(Path(scratch) / "optimised.onnx")
        try:
            ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's errors have no common base but Exception
            raise TrainingError(
                f"ONNX Runtime cannot load {path.name}, or write its own form of it beside it "
                f"({str(error).strip().splitlines()[0]}); see that the disk is not full"
            ) from None
        return _counted(Path(scratch) / "optimised.onnx")
