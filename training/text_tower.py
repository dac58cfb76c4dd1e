"""Texts to vectors, by a text tower of open_clip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from training.clip import load_clip

BATCH = 64


@dataclass(frozen=True, slots=True)
class TextTower:
    """Encodes texts.

    Attributes:
        name: of the model.
        weights: its pretrained tag, or the sha256 of its weights' file.
        encode: up to BATCH texts to (n, D).
    """

    name: str
    weights: str
    encode: Callable[[Sequence[str]], Tensor]

    def vectors(
        self, texts: Sequence[str], templates: Sequence[str], tick: Callable[[int], None]
    ) -> Tensor:
        """(n, D) Unit vectors: of each text, the mean over the templates' unit vectors.

        `tick` is called with the number of texts done since its last call.

        Source: template averaging as in CLIP (arXiv:2103.00020), section 3.1.4.
        """
        rows = []
        for first in range(0, len(texts), BATCH):
            part = texts[first : first + BATCH]
            turns = [
                functional.normalize(self.encode([template.format(t) for t in part]).float(), dim=1)
                for template in templates
            ]
            rows.append(functional.normalize(torch.stack(turns).mean(0), dim=1))
            tick(len(part))
        return torch.cat(rows)


def load_tower(model: str, pretrained: str) -> TextTower:
    """A text tower; see `load_clip`.

    Raises:
        TrainingError: no such model or weights, or they cannot be had here.
    """
    clip = load_clip(model, pretrained)

    @torch.no_grad()
    def encode(texts: Sequence[str]) -> Tensor:
        found: Tensor = clip.model.encode_text(clip.tokenizer(list(texts)))
        return found

    return TextTower(clip.name, clip.weights, encode)
