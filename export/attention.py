"""Attention in the form in which engines recognise it.

`nn.MultiheadAttention` exports as one projection that is cut in three, which the fusions of ONNX
Runtime pass over. Here each of query, key and value has its own projection, and the
scale is folded into the query's.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


class Attention(nn.Module):
    """Self-attention over (B, T, width), weights taken from a `nn.MultiheadAttention`."""

    def __init__(self, source: nn.MultiheadAttention) -> None:
        super().__init__()
        width, heads = source.embed_dim, source.num_heads
        self.heads, self.head_dim = heads, width // heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.output = copy.deepcopy(source.out_proj)
        with torch.no_grad():
            parts = zip(
                (self.query, self.key, self.value),
                source.in_proj_weight.chunk(3),
                source.in_proj_bias.chunk(3),
                strict=True,
            )
            for linear, weight, bias in parts:
                linear.weight.copy_(weight)
                linear.bias.copy_(bias)

    def forward(self, query: Tensor, *others: Tensor, **options: Any) -> tuple[Tensor, None]:
        """As `nn.MultiheadAttention` is called for self-attention without weights."""
        q, k, v = (self._split(one(query)) for one in (self.query, self.key, self.value))
        weights = torch.softmax(q @ k.transpose(2, 3) * self.head_dim**-0.5, dim=-1)
        joined = (weights @ v).transpose(1, 2).flatten(2)
        return self.output(joined), None

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.heads, self.head_dim)).transpose(1, 2)


def with_open_attention(module: nn.Module) -> nn.Module:
    """A copy in which every self-attention is written out."""
    copied = copy.deepcopy(module)
    for parent in list(copied.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.MultiheadAttention) and child.in_proj_bias is not None:
                setattr(parent, name, Attention(child))
    return copied
