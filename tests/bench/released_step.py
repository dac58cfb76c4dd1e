"""A training step as the released code takes it, to be timed against: LAP with captions.

Written from ALGORITHM.md's description of it, with its costs: the text network
runs once a crop on equal input, features of all crops are gathered for the
magnitude terms, and windows are selected crop by crop.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

CROPS, WINDOWS, WIDTH, KEPT = 10, 64, 768, 3


class ReleasedTemporal(nn.Module):
    """(B, T, D) to (B, T, D); three dilations, a non-local block without softmax, a fusion."""

    def __init__(self, width: int) -> None:
        super().__init__()
        quarter = width // 4
        self.dilated = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(width, quarter, 3, dilation=d, padding=d),
                nn.ReLU(),
                nn.BatchNorm1d(quarter),
            )
            for d in (1, 2, 4)
        )
        self.narrow = nn.Sequential(nn.Conv1d(width, quarter, 1, bias=False), nn.ReLU())
        self.theta, self.phi, self.g = (nn.Conv1d(quarter, quarter // 2, 1) for _ in range(3))
        self.widen = nn.Sequential(nn.Conv1d(quarter // 2, quarter, 1), nn.BatchNorm1d(quarter))
        self.fuse = nn.Sequential(
            nn.Conv1d(width, width, 3, padding=1, bias=False), nn.ReLU(), nn.BatchNorm1d(width)
        )

    def forward(self, features: Tensor) -> Tensor:
        x = features.permute(0, 2, 1)
        narrow = self.narrow(x)
        affinity = torch.matmul(self.theta(narrow).permute(0, 2, 1), self.phi(narrow))
        mixed = torch.matmul(affinity / affinity.shape[-1], self.g(narrow).permute(0, 2, 1))
        memory = self.widen(mixed.permute(0, 2, 1).contiguous()) + narrow
        joined = torch.cat([*(branch(x) for branch in self.dilated), memory], 1)
        return (self.fuse(joined) + x).permute(0, 2, 1)


class ReleasedDetector(nn.Module):
    """Losses of a batch, as released; normal videos first."""

    def __init__(self) -> None:
        super().__init__()
        self.visual, self.text = ReleasedTemporal(WIDTH), ReleasedTemporal(WIDTH)
        self.layers = nn.ModuleList(
            nn.Linear(a, b) for a, b in ((2 * WIDTH, 512), (512, 128), (128, 1))
        )
        self.dropout = nn.Dropout(0.7)

    def forward(self, visual: Tensor, text: Tensor, bank: Tensor) -> Tensor:
        """Loss.

        Args:
            visual: (2b, N, T, D).
            text: (2b, T, D).
            bank: (P, D) of prompts, in the text's space.
        """
        videos, crops, windows, width = visual.shape
        tiled = text.unsqueeze(1).repeat(1, crops, 1, 1).view(-1, windows, width)
        seen = self.dropout(self.visual(visual.view(-1, windows, width)))
        read = self.dropout(self.text(tiled))
        features = torch.cat([seen, read], 2)
        scores = self._score(features).view(videos, crops, windows).mean(1)
        per_crop = features.view(videos, crops, windows, -1)
        half = videos // 2
        normal, anomalous = (self._select(per_crop[part], scores[part]) for part in _halves(half))
        similarity = functional.cosine_similarity(text[half:, :, None], bank, -1).amax(2)
        return self._losses(scores, normal, anomalous, similarity)

    def _score(self, features: Tensor) -> Tensor:
        x = features
        for layer in self.layers[:2]:
            x = self.dropout(functional.relu(layer(x)))
        return torch.sigmoid(self.layers[2](x)).squeeze(-1)

    def _select(self, features: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Of the windows of largest magnitude: features (N b, k, F) and mean score (b,)."""
        magnitude = features.norm(p=2, dim=3).mean(1)
        chosen = torch.topk(magnitude * self.dropout(torch.ones_like(magnitude)), KEPT, 1).indices
        index = chosen.unsqueeze(2).expand(-1, -1, features.shape[3])
        kept = [torch.gather(crop, 1, index) for crop in features.permute(1, 0, 2, 3)]
        return torch.cat(kept), torch.gather(scores, 1, chosen).mean(1)

    def _losses(
        self,
        scores: Tensor,
        normal: tuple[Tensor, Tensor],
        anomalous: tuple[Tensor, Tensor],
        similarity: Tensor,
    ) -> Tensor:
        half = len(scores) // 2
        bag_scores = torch.cat([normal[1], anomalous[1]])
        labels = (torch.arange(2 * half) >= half).float()
        mil = functional.binary_cross_entropy(bag_scores, labels)
        far = torch.abs(100 - anomalous[0].mean(1).norm(p=2, dim=1))
        near = normal[0].mean(1).norm(p=2, dim=1)
        steps = (scores[:, 1:] - scores[:, :-1]).square().sum()
        suspects = (similarity > similarity.mean() + similarity.std()).float()
        aligned = functional.binary_cross_entropy(1 - scores[half:], suspects)
        return (
            mil
            + 1e-4 * (far + near).square().mean()
            + 8e-4 * steps
            + 8e-3 * scores[half:].norm()
            + 1e-3 * aligned
        )


def _halves(half: int) -> tuple[slice, slice]:
    return slice(None, half), slice(half, None)
