"""One detector head; RTFM, TEVAD and LAP are presets of it, and so is the embedded one.

A temporal network a modality (visual windows, and sentences about them where
there is text), their fusion, and a small network that scores every window.
`Head` is the parallel form for training; `HeadStep` is the same arithmetic one
window at a time, as it is exported.

Deviation from the released code: the text network runs once a video and its
outcome is shared by the crops, dropout included; there it runs once a crop, on
equal input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.dropout import Dropout
from training.semantic import BankSize, SemanticBranch
from training.temporal import TemporalNetwork, TemporalSpec, TemporalState, TemporalStep

Text = Literal["none", "caption", "clip_bank"]
Fusion = Literal["concat", "add"]

TEXT_STATE = "text_"
"""Beginning of the names of the text network's states."""


@dataclass(frozen=True, slots=True)
class HeadSpec:
    """What a head is.

    Attributes:
        feature_dim: D, a multiple of 8.
        dropout: in training, of features and hidden layers.
        hidden: widths of the score network's hidden layers.
        half_life_windows: of the causal form's memory; None for the papers' form.
        text: where sentences about a window come from.
        text_dim: E, a multiple of 8; None without text; D where a bank makes the text.
        bank: how much the bank holds, for text "clip_bank".
        fusion: "add" maps the visual features to E first.
        direct: a linear score of the feature beside the network's, to start from.
        frozen_norms: BatchNorm uses its running statistics in training too, set by
            `calibrate`, so that training sees the same function as service.
    """

    feature_dim: int
    dropout: float
    hidden: tuple[int, ...] = (512, 128)
    half_life_windows: float | None = None
    text: Text = "none"
    text_dim: int | None = None
    fusion: Fusion = "concat"
    bank: BankSize | None = None
    direct: bool = False
    frozen_norms: bool = False

    def __post_init__(self) -> None:
        if (self.text == "none") != (self.text_dim is None):
            raise ValueError(f"text {self.text!r} does not go with text_dim ({self.text_dim})")
        if (self.text == "clip_bank") != (self.bank is not None):
            raise ValueError(f"text {self.text!r} does not go with bank ({self.bank})")
        if self.bank is not None and self.text_dim != self.feature_dim:
            raise ValueError(
                "a bank's sentences are as wide as features: text_dim must be feature_dim"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout ({self.dropout}) must be in [0, 1)")
        if self.causal and not self.frozen_norms:
            raise ValueError("a causal head needs frozen_norms: batch statistics see the future")
        for spec in filter(None, (self.visual_temporal, self.text_temporal)):
            assert spec.width  # the specs check the widths

    @property
    def causal(self) -> bool:
        """Whether a score depends on nothing later."""
        return self.half_life_windows is not None

    @property
    def visual_temporal(self) -> TemporalSpec:
        return TemporalSpec(self.feature_dim, self.half_life_windows)

    @property
    def text_temporal(self) -> TemporalSpec | None:
        if self.text_dim is None:
            return None
        return TemporalSpec(self.text_dim, self.half_life_windows)

    @property
    def fused_dim(self) -> int:
        """F, numbers that the score network sees a window."""
        if self.text_dim is None:
            return self.feature_dim
        return self.text_dim + (self.feature_dim if self.fusion == "concat" else 0)

    @property
    def states(self) -> dict[str, tuple[int, ...]]:
        """Shape per stream of each state tensor, by name; the order is the step's."""
        named = dict(self.visual_temporal.states)
        if self.text_temporal is not None:
            named |= {TEXT_STATE + k: v for k, v in self.text_temporal.states.items()}
        return named


def rtfm(feature_dim: int) -> HeadSpec:
    """RTFM (arXiv:2101.10030): visual only, the whole video seen."""
    return HeadSpec(feature_dim, dropout=0.7)


def tevad(feature_dim: int, text_dim: int = 768, fusion: Fusion = "concat") -> HeadSpec:
    """TEVAD: captions beside the visual features; LAP keeps its head."""
    return HeadSpec(feature_dim, dropout=0.7, text="caption", text_dim=text_dim, fusion=fusion)


lap = tevad


def embedded(feature_dim: int, half_life_windows: float, dropout: float) -> HeadSpec:
    """The embedded default's: causal, visual only, beside a linear score of the feature."""
    return HeadSpec(
        feature_dim,
        dropout,
        hidden=(feature_dim // 2,),
        half_life_windows=half_life_windows,
        direct=True,
        frozen_norms=True,
    )


@dataclass(frozen=True, slots=True)
class HeadState:
    """What a causal head remembers of B streams."""

    visual: TemporalState
    text: TemporalState | None

    @classmethod
    def zero(cls, spec: HeadSpec, batch: int, like: Tensor) -> HeadState:
        """Streams' beginning, of the type of `like`."""
        text = spec.text_temporal
        return cls(
            TemporalState.zero(spec.visual_temporal, batch, like),
            None if text is None else TemporalState.zero(text, batch, like),
        )

    def tensors(self) -> tuple[Tensor, ...]:
        """In the order of `HeadSpec.states`."""
        return self.visual.tensors() + (() if self.text is None else self.text.tensors())


@dataclass(frozen=True, slots=True)
class HeadOutput:
    """What a head says of B videos of T windows in N crops.

    Attributes:
        scores: (B, T) in [0, 1], mean over the crops.
        features: what the score network saw, before dropout, as parts that stand side by
            side: (B, N, T, D) of the visual network, and (B, 1, T, E) of the text network,
            which all crops share.
    """

    scores: Tensor
    features: tuple[Tensor, ...]


class Head(nn.Module):
    """Parallel form over T windows."""

    def __init__(self, spec: HeadSpec) -> None:
        super().__init__()
        self.spec = spec
        self.visual = TemporalNetwork(spec.visual_temporal)
        text = spec.text_temporal
        self.text = None if text is None else TemporalNetwork(text)
        self.semantic = None if spec.bank is None else SemanticBranch(spec.feature_dim, spec.bank)
        self.project = None
        if spec.fusion == "add" and spec.text_dim is not None:
            self.project = nn.Sequential(
                nn.Linear(spec.feature_dim, spec.text_dim), nn.ReLU(), Dropout(spec.dropout)
            )
        self.dropout = Dropout(spec.dropout)
        self.score = _score_network(spec)
        self.direct = nn.Linear(spec.feature_dim, 1) if spec.direct else None
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        # A memory starts as the identity, as in LAP.
        for network in filter(None, (self.visual, self.text)):
            nn.init.zeros_(network.expand_norm.weight)
        if self.direct is not None:
            # What the temporal network adds starts as nothing.
            last = self.score[-1]
            assert isinstance(last, nn.Linear)
            nn.init.zeros_(last.weight)

    def start_from(self, weight: Tensor, bias: Tensor) -> None:
        """Begin as a linear score of the feature: weight (D,), bias ()."""
        assert self.direct is not None, "only a head with a direct path can start from one"
        with torch.no_grad():
            self.direct.weight.copy_(weight[None])
            self.direct.bias.copy_(bias[None])

    def train(self, mode: bool = True) -> Head:
        """Dropout follows `mode`; so does BatchNorm unless it is frozen."""
        super().train(mode)
        for norm in self._norms() if self.spec.frozen_norms else ():
            norm.eval()
        return self

    def _norms(self) -> list[nn.BatchNorm1d]:
        return [module for module in self.modules() if isinstance(module, nn.BatchNorm1d)]

    def calibrate(self, visual: Tensor, text: Tensor | None = None) -> None:
        """Set BatchNorm's statistics from videos, from zero states; as `forward`."""
        self.eval()
        for norm in self._norms():
            norm.reset_running_stats()
            norm.momentum = None  # one pass: the exact mean
            norm.train()
        with torch.no_grad():
            self(visual, text)
        self.eval()

    def forward(self, visual: Tensor, text: Tensor | None = None) -> HeadOutput:
        """Score whole videos, or streams from their beginning.

        Args:
            visual: (B, N, T, D).
            text: (B, T, E) sentence embeddings, where the head reads captions.
        """
        if self.semantic is not None:
            text = self.semantic(visual.mean(1))[0]
        crops = visual.shape[1]
        seen = self.visual(visual.flatten(0, 1)).unflatten(0, (-1, crops))
        read = None
        if self.text is not None:
            assert text is not None, f"a head that reads text ({self.spec.text}) got none"
            read = self.text(text)
        parts = self._fuse(seen, read)
        logits = self._logits(parts, visual)
        return HeadOutput(torch.sigmoid(logits).mean(1), parts)

    def run(
        self, visual: Tensor, state: HeadState, text: Tensor | None = None
    ) -> tuple[Tensor, HeadState]:
        """The causal form on a stretch of streams of one view.

        Args:
            visual: (B, T, D); a stream padded at its end scores the rest alike.
            state: before the first window.
            text: (B, T, E), where the head reads captions.

        Returns:
            Logits (B, T), whose sigmoid is the score, and the state after the last window.
        """
        if self.semantic is not None:
            text = self.semantic(visual)[0]
        seen, after = self.visual.run(visual, state.visual)
        read = text_after = None
        if self.text is not None:
            assert text is not None
            assert state.text is not None
            read, text_after = self.text.run(text, state.text)
        parts = self._fuse(seen.unsqueeze(1), read)
        return self._logits(parts, visual.unsqueeze(1))[:, 0], HeadState(after, text_after)

    def _fuse(self, seen: Tensor, read: Tensor | None) -> tuple[Tensor, ...]:
        """(B, N, T, D) and (B, T, E) to parts as in `HeadOutput`."""
        if read is None:
            return (seen,)
        shared = read.unsqueeze(1)
        return (seen, shared) if self.project is None else (self.project(seen) + shared,)

    def _logits(self, parts: tuple[Tensor, ...], visual: Tensor) -> Tensor:
        # The first layer of parts side by side is the sum of its layers of each: what the crops
        # share is multiplied once.
        first, *rest = self.score
        assert isinstance(first, nn.Linear)
        weights = torch.split(first.weight, [part.shape[3] for part in parts], 1)
        hidden = first.bias + sum(
            functional.linear(self.dropout(part), weight)
            for part, weight in zip(parts, weights, strict=True)
        )
        logits: Tensor = nn.Sequential(*rest)(hidden)
        if self.direct is not None:
            logits = logits + self.direct(visual)
        return logits.squeeze(3)


def _score_network(spec: HeadSpec) -> nn.Sequential:
    layers: list[nn.Module] = []
    width = spec.fused_dim
    for hidden in spec.hidden:
        layers += [nn.Linear(width, hidden), nn.ReLU(), Dropout(spec.dropout)]
        width = hidden
    return nn.Sequential(*layers, nn.Linear(width, 1))


class HeadStep(nn.Module):
    """A causal head one window at a time, as it is exported.

    Args:
        head: fitted.
        describe: maps a feature (B, D) to text (B, E) and to the nearest sentences'
            indices (B, a) and weights (B, a); a head that reads a bank brings its own.

    Raises:
        ValueError: the head sees the future, or reads text that nothing makes.
    """

    def __init__(self, head: Head, describe: nn.Module | None = None) -> None:
        super().__init__()
        describe = describe or head.semantic
        if (head.text is None) != (describe is None):
            raise ValueError("a head that reads text needs what makes the text, no other does")
        self.spec = head.spec
        self.visual = TemporalStep(head.visual)
        self.text = None if head.text is None else TemporalStep(head.text)
        self.describe = describe
        self.project, self.score, self.direct = head.project, head.score, head.direct
        self.eval()

    def forward(self, feature: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """One window of B streams.

        Args:
            feature: (B, D).
            state: as `HeadSpec.states`, each (B, ...).

        Returns:
            score (B,) in [0, 1], the next state in the same order, and with a
            bank the nearest sentences' indices (B, a) int64 and weights (B, a).
        """
        count = len(self.spec.visual_temporal.states)
        seen, *after = self.visual(feature, *state[:count])
        explanation: tuple[Tensor, ...] = ()
        if self.text is not None and self.describe is not None:
            text, *explanation = self.describe(feature)
            read, *text_after = self.text(text, *state[count:])
            after += text_after
            seen = torch.cat([seen, read], 1) if self.project is None else self.project(seen) + read
        logit = self.score(seen)
        if self.direct is not None:
            logit = logit + self.direct(feature)
        return (torch.sigmoid(logit).squeeze(1), *after, *explanation)
