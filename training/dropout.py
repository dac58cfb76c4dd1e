"""Dropout whose masks cost little where there is much to drop.

torch draws a mask number by number on one core, 13 % of a step at UCF-Crime's size. Large
masks are cut from random bytes instead; small ones stay torch's.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

LARGE = 1_000_000
"""Numbers from which on masks are made here."""

_LEVELS = 2**16


class Dropout(nn.Module):
    """As `torch.nn.Dropout`, its chance following from torch's generator.

    Args:
        rate: share that is dropped, in [0, 1); of large tensors rounded to 1 / 65536.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Of any shape."""
        if not self.training or self.rate == 0 or x.numel() < LARGE:
            return functional.dropout(x, self.rate, self.training)
        dropped = round(self.rate * _LEVELS)
        seed = int(torch.randint(2**63 - 1, (), dtype=torch.int64))
        drawn = np.random.Generator(np.random.SFC64(seed)).bytes(2 * x.numel())
        levels = torch.from_numpy(np.frombuffer(bytearray(drawn), np.int16)).view(x.shape)
        kept = (levels >= dropped - _LEVELS // 2).to(x.dtype)
        return x * kept.mul_(_LEVELS / (_LEVELS - dropped))
