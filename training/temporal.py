"""LAP's multi-scale temporal network, of one modality; causal or as in the papers.

Three dilated convolutions and a non-local block look at a video's windows, a
convolution fuses what they found, and the input is added. In the papers' form
all of them see the whole video. In the causal form convolutions see only the
past, and the non-local block, which has no softmax and is therefore linear
attention, forgets: its memory and its normaliser decay with a half-life.

Source: Sun et al., LAP (arXiv:2403.01169), after RTFM (arXiv:2101.10030).
Deviations of the causal form: past only, and a mean with half-life for the
mean over all T.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.nn import functional

DILATIONS = (1, 2, 4)
CONV_IN_WINDOWS = 2 * max(DILATIONS)
CONV_OUT_WINDOWS = 2


@dataclass(frozen=True, slots=True)
class TemporalSpec:
    """Size and form of a temporal network.

    Attributes:
        width: D, a multiple of 8.
        half_life_windows: windows after which the causal form's memory has
            halved; None for the papers' form, which sees the future.
    """

    width: int
    half_life_windows: float | None

    def __post_init__(self) -> None:
        if self.width < 8 or self.width % 8:
            raise ValueError(f"width ({self.width}) must be a multiple of 8")
        if self.half_life_windows is not None and not self.half_life_windows > 0:
            raise ValueError(f"half_life_windows ({self.half_life_windows}) must be over 0")

    @property
    def causal(self) -> bool:
        """Whether a window's output depends on nothing later."""
        return self.half_life_windows is not None

    @property
    def decay(self) -> float:
        """Rho, the memory's weight after one window; 1 where nothing is forgotten."""
        if self.half_life_windows is None:
            return 1.0
        return float(2 ** (-1 / self.half_life_windows))

    @property
    def states(self) -> dict[str, tuple[int, ...]]:
        """Shape per stream of each state tensor, by name."""
        quarter = self.width // 4
        return {
            "conv_in": (CONV_IN_WINDOWS, self.width),
            "conv_out": (CONV_OUT_WINDOWS, 4 * quarter),
            "attn": (quarter // 2, quarter // 2),
            "count": (1,),
        }


@dataclass(frozen=True, slots=True)
class TemporalState:
    """What a causal network remembers of a stream; zero at the start.

    Attributes:
        conv_in: (B, 8, D) the last inputs.
        conv_out: (B, 2, 4q) the last inputs of the fusing convolution.
        attn: (B, q/2, q/2) the memory S.
        count: (B, 1) its normaliser n.
    """

    conv_in: Tensor
    conv_out: Tensor
    attn: Tensor
    count: Tensor

    @classmethod
    def zero(cls, spec: TemporalSpec, batch: int, like: Tensor) -> TemporalState:
        """A stream's beginning, of the type of `like`."""
        return cls(**{name: like.new_zeros(batch, *shape) for name, shape in spec.states.items()})

    def tensors(self) -> tuple[Tensor, ...]:
        """In the order of their names."""
        return tuple(getattr(self, field.name) for field in fields(self))


class TemporalNetwork(nn.Module):
    """Parallel form over T windows."""

    def __init__(self, spec: TemporalSpec) -> None:
        super().__init__()
        self.spec = spec
        wide, quarter = spec.width, spec.width // 4
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

    def forward(self, x: Tensor) -> Tensor:
        """From a zero state, or of a whole video: (B, T, D) to (B, T, D)."""
        if self.spec.causal:
            return self.run(x, TemporalState.zero(self.spec, len(x), x))[0]
        inputs = x.transpose(1, 2)
        reach = max(DILATIONS)
        memory = self._recall(inputs)
        joined = torch.cat([*self._dilate(functional.pad(inputs, (reach, reach))), memory], 1)
        return x + self._fused(functional.pad(joined, (1, 1)))

    def run(self, x: Tensor, state: TemporalState) -> tuple[Tensor, TemporalState]:
        """The causal form, with the state after the last window."""
        ring = torch.cat([state.conv_in, x], 1)
        memory, attn, count = self._remember(x.transpose(1, 2), state)
        joined = torch.cat([*self._dilate(ring.transpose(1, 2)), memory], 1)
        out_ring = torch.cat([state.conv_out.transpose(1, 2), joined], 2)
        after = TemporalState(
            ring[:, -CONV_IN_WINDOWS:],
            out_ring[..., -CONV_OUT_WINDOWS:].transpose(1, 2),
            attn,
            count,
        )
        return x + self._fused(out_ring), after

    def _dilate(self, padded: Tensor) -> list[Tensor]:
        """Dilated convolutions of (B, D, T + 8), each (B, q, T)."""
        parts = []
        for conv, norm, dilation in zip(self.dilated, self.dilated_norm, DILATIONS, strict=True):
            # Both forms pad for the widest convolution; the others leave theirs unread.
            spare = CONV_IN_WINDOWS - 2 * dilation
            ends = (spare, 0) if self.spec.causal else (spare // 2, spare // 2)
            unread = padded[..., ends[0] : padded.shape[2] - ends[1]]
            parts.append(norm(functional.relu_(conv(unread))))
        return parts

    def _fused(self, padded: Tensor) -> Tensor:
        fused: Tensor = self.fuse_norm(functional.relu_(self.fuse(padded)))
        return fused.transpose(1, 2)

    def _recall(self, inputs: Tensor) -> Tensor:
        """Non-local block over the whole video: (B, D, T) to (B, q, T)."""
        narrow = functional.relu_(self.squeeze(inputs))
        theta, phi, g = self.theta(narrow), self.phi(narrow), self.g(narrow)
        # Without a softmax the order of the products is free: the smaller one comes first.
        memory = phi @ g.transpose(1, 2) / inputs.shape[2]
        y = memory.transpose(1, 2) @ theta
        recalled: Tensor = narrow + self.expand_norm(self.expand(y))
        return recalled

    def _remember(self, inputs: Tensor, state: TemporalState) -> tuple[Tensor, Tensor, Tensor]:
        """Causal non-local block: its (B, q, T), then memory and count after it."""
        narrow = functional.relu_(self.squeeze(inputs))
        theta, phi, g = self.theta(narrow), self.phi(narrow), self.g(narrow)
        ages = torch.arange(inputs.shape[2], dtype=inputs.dtype)
        lags = ages[:, None] - ages[None, :]
        weights = torch.where(lags >= 0, self.spec.decay ** lags.clamp_min(0), lags.new_zeros(()))
        carried = self.spec.decay ** (ages + 1)
        counts = weights.sum(1) + carried * state.count
        recent = (theta.transpose(1, 2) @ phi * weights) @ g.transpose(1, 2)
        old = theta.transpose(1, 2) @ state.attn * carried[:, None]
        y = ((recent + old) / counts[..., None]).transpose(1, 2)
        attn = (phi * weights[-1]) @ g.transpose(1, 2) + carried[-1] * state.attn
        return narrow + self.expand_norm(self.expand(y)), attn, counts[:, -1:]


class TemporalStep(nn.Module):
    """The causal form one window at a time, BatchNorm folded; what is exported.

    LAP normalises after ReLU, so those norms become one multiply-add; only the
    memory's own norm, which follows a linear layer, folds into its weights.
    """

    dilated_gain: Tensor
    dilated_shift: Tensor
    fuse_gain: Tensor
    fuse_shift: Tensor
    expand_weight: Tensor
    expand_bias: Tensor

    def __init__(self, network: TemporalNetwork) -> None:
        super().__init__()
        if not network.spec.causal:
            raise ValueError("only a causal network can be stepped; this one sees the future")
        self.spec = network.spec
        self.dilated, self.fuse = network.dilated, network.fuse
        self.squeeze, self.theta = network.squeeze, network.theta
        self.phi, self.g = network.phi, network.g
        affines = [_affine(norm) for norm in network.dilated_norm]
        self.register_buffer("dilated_gain", torch.cat([gain for gain, _ in affines]))
        self.register_buffer("dilated_shift", torch.cat([shift for _, shift in affines]))
        gain, shift = _affine(network.fuse_norm)
        self.register_buffer("fuse_gain", gain)
        self.register_buffer("fuse_shift", shift)
        gain, shift = _affine(network.expand_norm)
        expand = network.expand
        assert expand.bias is not None
        self.register_buffer("expand_weight", expand.weight.detach()[..., 0] * gain[:, None])
        self.register_buffer("expand_bias", expand.bias.detach() * gain + shift)
        self.eval()

    def forward(
        self, x: Tensor, conv_in: Tensor, conv_out: Tensor, attn: Tensor, count: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """One window of B streams: (B, D), then the next state; shapes as `TemporalState`."""
        ring = torch.cat([conv_in, x.unsqueeze(1)], 1)
        parts = [
            functional.relu(_taps(conv, ring, dilation))
            for conv, dilation in zip(self.dilated, DILATIONS, strict=True)
        ]
        scaled = torch.cat(parts, 1) * self.dilated_gain + self.dilated_shift
        memory, attn, count = self._remember(x, attn, count)
        out_ring = torch.cat([conv_out, torch.cat([scaled, memory], 1).unsqueeze(1)], 1)
        fused = functional.relu(_taps(self.fuse, out_ring, 1)) * self.fuse_gain + self.fuse_shift
        return x + fused, ring[:, 1:], out_ring[:, 1:], attn, count

    def _remember(self, x: Tensor, attn: Tensor, count: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        narrow = functional.relu(_pointwise(self.squeeze, x))
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
