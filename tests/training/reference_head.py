"""The head in NumPy and double precision, written from the papers' formulas alone.

Arrays are (videos, windows, channels) throughout. Weights come by the names of
the head's state_dict, which is all that is shared with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
EPSILON = 1e-5
MOMENTUM = 0.1


@dataclass
class ReferenceHead:
    """A head with dropout 0.

    Attributes:
        weights: of the state_dict, by name.
        half_life: windows; None for the papers' form.
        training: batch statistics instead of running ones.
        add: text and projected vision are added instead of joined.
        updated: running statistics after a pass in training.
    """

    weights: dict[str, Array]
    half_life: float | None = None
    training: bool = False
    add: bool = False
    updated: dict[str, Array] = field(default_factory=dict)

    def scores(self, visual: Array, text: Array | None) -> Array:
        """(B, N, T, D) and (B, T, E) to (B, T)."""
        return sigmoid(self.logits(visual, text)).mean(1)

    def logits(self, visual: Array, text: Array | None) -> Array:
        """(B, N, T)."""
        batch, crops, windows, _ = visual.shape
        features = self.features(visual, text)
        layers = sorted(int(k.split(".")[1]) for k in self.weights if k.startswith("score."))
        hidden = features
        for layer in sorted(set(layers)):
            weight, bias = (self.weights[f"score.{layer}.{part}"] for part in ("weight", "bias"))
            hidden = hidden @ weight.T + bias
            if layer != max(layers):
                hidden = np.maximum(hidden, 0)
        if "direct.weight" in self.weights:
            hidden = hidden + visual @ self.weights["direct.weight"].T + self.weights["direct.bias"]
        return hidden.reshape(batch, crops, windows)

    def features(self, visual: Array, text: Array | None) -> Array:
        """(B, N, T, F)."""
        batch, crops, windows, width = visual.shape
        flat = visual.reshape(batch * crops, windows, width)
        seen = self.temporal("visual", flat).reshape(batch, crops, windows, -1)
        if text is None:
            return seen
        read = self.temporal("text", text)[:, None].repeat(crops, 1)
        if not self.add:
            return np.concatenate([seen, read], -1)
        projected = seen @ self.weights["project.0.weight"].T + self.weights["project.0.bias"]
        return np.maximum(projected, 0) + read

    def temporal(self, name: str, x: Array) -> Array:
        """Multi-scale temporal network, (B, T, D) to (B, T, D)."""
        w = {k.removeprefix(f"{name}."): v for k, v in self.weights.items()}
        parts = []
        for index, dilation in enumerate((1, 2, 4)):
            kernel, bias = w[f"dilated.{index}.weight"], w[f"dilated.{index}.bias"]
            convolved = np.maximum(self.convolve(x, kernel, dilation) + bias, 0)
            parts.append(self.normalise(f"{name}.dilated_norm.{index}", convolved))
        narrow = np.maximum(x @ w["squeeze.weight"][..., 0].T, 0)
        mixed = self.mix(*(narrow @ w[f"{p}.weight"][..., 0].T + w[f"{p}.bias"] for p in KERNELS))
        widened = mixed @ w["expand.weight"][..., 0].T + w["expand.bias"]
        memory = narrow + self.normalise(f"{name}.expand_norm", widened)
        joined = np.concatenate([*parts, memory], -1)
        fused = np.maximum(self.convolve(joined, w["fuse.weight"], 1), 0)
        return x + self.normalise(f"{name}.fuse_norm", fused)

    def convolve(self, x: Array, kernel: Array, dilation: int) -> Array:
        """Three taps, zeros outside: around each window, or up to it."""
        offsets = (-2, -1, 0) if self.half_life else (-1, 0, 1)
        out = np.zeros((*x.shape[:2], kernel.shape[0]))
        for tap, offset in enumerate(offsets):
            for t in range(x.shape[1]):
                source = t + offset * dilation
                if 0 <= source < x.shape[1]:
                    out[:, t] += x[:, source] @ kernel[:, :, tap].T
        return out

    def mix(self, theta: Array, phi: Array, g: Array) -> Array:
        """Non-local block without softmax, a loop over windows where it is causal."""
        if self.half_life is None:
            affinity = np.einsum("btc,bsc->bts", theta, phi) / theta.shape[1]
            return np.einsum("bts,bsc->btc", affinity, g)
        decay = 2 ** (-1 / self.half_life)
        memory, count = np.zeros((len(theta), phi.shape[2], g.shape[2])), 0.0
        out = np.zeros_like(g)
        for t in range(theta.shape[1]):
            memory = decay * memory + phi[:, t, :, None] * g[:, t, None, :]
            count = decay * count + 1
            out[:, t] = np.einsum("bi,bij->bj", theta[:, t], memory) / count
        return out

    def normalise(self, name: str, x: Array) -> Array:
        """BatchNorm over videos and windows; running variance is the unbiased one."""
        mean, variance = self.weights[f"{name}.running_mean"], self.weights[f"{name}.running_var"]
        if self.training:
            flat = x.reshape(-1, x.shape[-1])
            for part, old, new in (
                ("mean", mean, flat.mean(0)),
                ("var", variance, flat.var(0, ddof=1)),
            ):
                self.updated[f"{name}.running_{part}"] = (1 - MOMENTUM) * old + MOMENTUM * new
            mean, variance = flat.mean(0), flat.var(0)
        unit = (x - mean) / np.sqrt(variance + EPSILON)
        return unit * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]


KERNELS = ("theta", "phi", "g")


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))
