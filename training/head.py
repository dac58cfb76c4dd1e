"""The causal LAP head: features of a stream to anomaly scores, window by window.

One modality of LAP's multi-scale temporal network (arXiv:2403.01169), made
causal: convolutions see only the past, and the non-local block, which has no
softmax, becomes linear attention with forgetting. `CausalHead.forward` is the
parallel form for training; `HeadStep` is the same arithmetic one window at a
time, with BatchNorm folded away, as it is exported.

Deviations from LAP: no captions, hence one modality; BatchNorm frozen from
calibration on; the mean over all T becomes a mean with half-life; a direct
linear term, from which training starts, so that the temporal network learns
what the window alone does not say.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

DILATIONS = (1, 2, 4)
CONV_IN_WINDOWS = 2 * max(DILATIONS)
CONV_OUT_WINDOWS = 2


@dataclass(frozen=True, slots=True)
class HeadSpec:
    """Size of a head.

    Attributes:
        feature_dim: D, a multiple of 8.
        half_life_windows: windows after which the memory's weight has halved.
        dropout: in training.
    """

    feature_dim: int
    half_life_windows: float
    dropout: float

    def __post_init__(self) -> None:
        if self.feature_dim < 8 or self.feature_dim % 8:
            raise ValueError(f"feature_dim ({self.feature_dim}) must be a multiple of 8")
        if not self.half_life_windows > 0:
            raise ValueError(f"half_life_windows ({self.half_life_windows}) must be over 0")

    @property
    def decay(self) -> float:
        """rho, the memory's weight after one window."""
        return float(2 ** (-1 / self.half_life_windows))

    @property
    def states(self) -> dict[str, tuple[int, ...]]:
        """Shape per stream of each state tensor, by name."""
        quarter = self.feature_dim // 4
        return {
            "conv_in": (CONV_IN_WINDOWS, self.feature_dim),
            "conv_out": (CONV_OUT_WINDOWS, 4 * quarter),
            "attn": (quarter // 2, quarter // 2),
            "count": (1,),
        }


@dataclass(frozen=True, slots=True)
class HeadState:
    """What a stream's head remembers; zero at the start.

    Attributes:
        conv_in: (B, 8, D) the last features.
        conv_out: (B, 2, 4q) the last inputs of the fusing convolution.
        attn: (B, q/2, q/2) the memory S.
        count: (B, 1) its normaliser n.
    """

    conv_in: Tensor
    conv_out: Tensor
    attn: Tensor
    count: Tensor

    @classmethod
    def zero(cls, spec: HeadSpec, batch: int, dtype: torch.dtype = torch.float32) -> HeadState:
        """A stream's beginning."""
        return cls(**{k: torch.zeros(batch, *v, dtype=dtype) for k, v in spec.states.items()})


class CausalHead(nn.Module):
    """Parallel form over T windows; causal.

    BatchNorm always uses its running statistics, so that training sees the
    same function as service; `calibrate` sets them from data.
    """

    def __init__(self, spec: HeadSpec) -> None:
        super().__init__()
        self.spec = spec
        wide, quarter = spec.feature_dim, spec.feature_dim // 4
        half = quarter // 2
        self.dilated = nn.ModuleList(nn.Conv1d(wide, quarter, 3, dilation=d) for d in DILATIONS)
        self.dilated_norm = nn.ModuleList(nn.BatchNorm1d(quarter) for _ in DILATIONS)
        self.squeeze = nn.Conv1d(wide, quarter, 1, bias=False)
        self.theta = nn.Conv1d(quarter, half, 1)
        self.phi = nn.Conv1d(quarter, half, 1)
        self.g = nn.Conv1d(quarter, half, 1)
        self.expand = nn.Conv1d(half, quarter, 1)
        self.expand_norm = nn.BatchNorm1d(quarter)
        self.fuse = nn.Conv1d(4 * quarter, wide, 3, bias=False)
        self.fuse_norm = nn.BatchNorm1d(wide)
        self.dropout = nn.Dropout(spec.dropout)
        self.score = nn.Sequential(
            nn.Linear(wide, wide // 2), nn.ReLU(), nn.Dropout(spec.dropout), nn.Linear(wide // 2, 1)
        )
        self.direct = nn.Linear(wide, 1)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        # The memory starts as the identity, as in LAP, and the temporal score as nothing.
        nn.init.zeros_(self.expand_norm.weight)
        last = self.score[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)

    def start_from(self, weight: Tensor, bias: Tensor) -> None:
        """Begin as a linear score of the feature: weight (D,), bias ()."""
        with torch.no_grad():
            self.direct.weight.copy_(weight[None])
            self.direct.bias.copy_(bias[None])

    def train(self, mode: bool = True) -> CausalHead:
        """Dropout follows `mode`; BatchNorm stays frozen."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.eval()
        return self

    def calibrate(self, features: Tensor) -> None:
        """Set BatchNorm's statistics from (B, T, D) features of streams, from zero states."""
        norms = [module for module in self.modules() if isinstance(module, nn.BatchNorm1d)]
        self.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # one pass: the exact mean
            norm.train()
        with torch.no_grad():
            self(features)
        self.eval()

    def forward(self, features: Tensor, state: HeadState | None = None) -> Tensor:
        """Logits of anomaly.

        Args:
            features: (B, T, D); a stream padded at its end scores the rest alike.
            state: of each stream before its first window; None for zero.

        Returns:
            (B, T); the score is their sigmoid.
        """
        return self.run(features, state)[0]

    def run(self, features: Tensor, state: HeadState | None = None) -> tuple[Tensor, HeadState]:
        """`forward`, with the state after the last window."""
        if state is None:
            state = HeadState.zero(self.spec, features.shape[0], features.dtype)
        ring = torch.cat([state.conv_in, features], 1)
        x = ring.transpose(1, 2)
        parts = []
        for conv, norm, dilation in zip(self.dilated, self.dilated_norm, DILATIONS, strict=True):
            parts.append(norm(functional.relu(conv(x[..., CONV_IN_WINDOWS - 2 * dilation :]))))
        memory, attn, count = self._remember(features.transpose(1, 2), state)
        joined = torch.cat([*parts, memory], 1)
        out_ring = torch.cat([state.conv_out.transpose(1, 2), joined], 2)
        fused = self.fuse_norm(functional.relu(self.fuse(out_ring))).transpose(1, 2)
        temporal = self.score(self.dropout(fused + features))
        logits = (temporal + self.direct(features)).squeeze(2)
        after = HeadState(
            ring[:, -CONV_IN_WINDOWS:],
            out_ring[..., -CONV_OUT_WINDOWS:].transpose(1, 2),
            attn,
            count,
        )
        return logits, after

    def _remember(self, x: Tensor, state: HeadState) -> tuple[Tensor, Tensor, Tensor]:
        """Non-local block on (B, D, T): its (B, q, T), then the memory and count after it."""
        narrow = functional.relu(self.squeeze(x))
        theta, phi, g = self.theta(narrow), self.phi(narrow), self.g(narrow)
        ages = torch.arange(x.shape[2], dtype=x.dtype)
        lags = ages[:, None] - ages[None, :]
        weights = torch.where(lags >= 0, self.spec.decay ** lags.clamp_min(0), lags.new_zeros(()))
        carried = self.spec.decay ** (ages + 1)
        counts = weights.sum(1) + carried * state.count
        recent = (theta.transpose(1, 2) @ phi * weights) @ g.transpose(1, 2)
        old = theta.transpose(1, 2) @ state.attn * carried[:, None]
        y = ((recent + old) / counts[..., None]).transpose(1, 2)
        attn = (phi * weights[-1]) @ g.transpose(1, 2) + carried[-1] * state.attn
        return narrow + self.expand_norm(self.expand(y)), attn, counts[:, -1:]


class HeadStep(nn.Module):
    """One window at a time, BatchNorm folded; what is exported.

    LAP normalises after ReLU, so those norms become one multiply-add; only the
    memory's own norm, which follows a linear layer, folds into its weights.
    """

    dilated_gain: Tensor
    dilated_shift: Tensor
    fuse_gain: Tensor
    fuse_shift: Tensor
    expand_weight: Tensor
    expand_bias: Tensor

    def __init__(self, head: CausalHead) -> None:
        super().__init__()
        self.spec = head.spec
        self.dilated = head.dilated
        self.squeeze, self.theta, self.phi, self.g = head.squeeze, head.theta, head.phi, head.g
        self.fuse, self.score, self.direct = head.fuse, head.score, head.direct
        affines = [_affine(norm) for norm in head.dilated_norm]
        self.register_buffer("dilated_gain", torch.cat([gain for gain, _ in affines]))
        self.register_buffer("dilated_shift", torch.cat([shift for _, shift in affines]))
        gain, shift = _affine(head.fuse_norm)
        self.register_buffer("fuse_gain", gain)
        self.register_buffer("fuse_shift", shift)
        gain, shift = _affine(head.expand_norm)
        assert head.expand.bias is not None
        self.register_buffer("expand_weight", head.expand.weight.detach()[..., 0] * gain[:, None])
        self.register_buffer("expand_bias", head.expand.bias.detach() * gain + shift)
        self.eval()

    def forward(
        self, feature: Tensor, conv_in: Tensor, conv_out: Tensor, attn: Tensor, count: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """One window of B streams.

        Args:
            feature: (B, D).
            conv_in: (B, 8, D).
            conv_out: (B, 2, 4q).
            attn: (B, q/2, q/2).
            count: (B, 1).

        Returns:
            score (B,) in [0, 1], then the next state in the same order.
        """
        ring = torch.cat([conv_in, feature.unsqueeze(1)], 1)
        parts = [
            functional.relu(_taps(conv, ring, dilation))
            for conv, dilation in zip(self.dilated, DILATIONS, strict=True)
        ]
        scaled = torch.cat(parts, 1) * self.dilated_gain + self.dilated_shift
        memory, attn, count = self._remember(feature, attn, count)
        out_ring = torch.cat([conv_out, torch.cat([scaled, memory], 1).unsqueeze(1)], 1)
        fused = functional.relu(_taps(self.fuse, out_ring, 1)) * self.fuse_gain + self.fuse_shift
        score = torch.sigmoid(self.score(fused + feature) + self.direct(feature)).squeeze(1)
        return score, ring[:, 1:], out_ring[:, 1:], attn, count

    def _remember(
        self, feature: Tensor, attn: Tensor, count: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        narrow = functional.relu(_pointwise(self.squeeze, feature))
        theta, phi, g = (_pointwise(conv, narrow) for conv in (self.theta, self.phi, self.g))
        attn = self.spec.decay * attn + phi.unsqueeze(2) * g.unsqueeze(1)
        count = self.spec.decay * count + 1
        y = (theta.unsqueeze(2) * attn).sum(1) / count
        return narrow + functional.linear(y, self.expand_weight, self.expand_bias), attn, count


def _affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Gain and shift of a frozen BatchNorm."""
    assert isinstance(norm, nn.BatchNorm1d)
    assert norm.running_var is not None
    assert norm.running_mean is not None
    gain = norm.weight.detach() / torch.sqrt(norm.running_var + norm.eps)
    return gain, norm.bias.detach() - norm.running_mean * gain


def _taps(conv: nn.Module, ring: Tensor, dilation: int) -> Tensor:
    """A three-tap convolution at the newest of (B, R, C) windows: (B, outputs)."""
    assert isinstance(conv, nn.Conv1d)
    newest = ring.shape[1] - 1
    taps = [ring[:, newest - lag * dilation] for lag in (2, 1, 0)]
    weight = conv.weight.permute(0, 2, 1).flatten(1)
    return functional.linear(torch.cat(taps, 1), weight, conv.bias)


def _pointwise(conv: nn.Conv1d, x: Tensor) -> Tensor:
    return functional.linear(x, conv.weight[..., 0], conv.bias)
