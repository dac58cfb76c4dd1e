"""Manifests of small feature files with a planted anomaly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from training.bank import Bank
from training.manifest import Row, write_manifest
from training.semantic import BankVectors
from training.sentences import SURVEILLANCE, load_wording

WIDTH = 8


def make_features(
    folder: Path,
    *,
    videos: int = 24,
    crops: int = 1,
    captions: bool = False,
    synthetic: int = 0,
    filtered: bool = False,
    windows: tuple[int, int] = (10, 50),
) -> Path:
    """Write a manifest of as many normal as anomalous videos, two a group; its path.

    Args:
        folder: for the files.
        videos: real ones; every sixth group is marked as test.
        crops: N.
        captions: whether each has sentence embeddings.
        synthetic: generated ones beside them.
        filtered: whether a filter has judged these: it discards every third pair.
        windows: shortest and longest video.
    """
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    rows = []
    for number in range(videos + synthetic):
        count, anomalous = int(random.integers(*windows)), number % 2 == 1
        features = random.normal(size=(count, crops, WIDTH)).astype(np.float32)
        start = int(random.integers(count - 4))
        features[start : start + 4, :, 0] += 4 * anomalous
        np.save(folder / f"{number}.npy", features if crops > 1 else features[:, 0])
        if captions:
            np.save(folder / f"{number}-text.npy", features[:, 0] + 1)
        made = number >= videos
        group = f"{'made' if made else 'camera'}-{number // 2}"
        content = {
            "id": f"video-{number}",
            "label": "anomalous" if anomalous else "normal",
            "source": "synthetic" if made else "real",
            "group": group,
            "split": "test" if number // 2 % 6 == 5 and not made else None,
            "features": f"{number}.npy",
            "captions": f"{number}-text.npy" if captions else None,
            "encoder": "tiny",
            "kept": number // 2 % 3 != 2 if made and filtered else None,
            "frames": 16 * count,
            "anomalous": [[16 * start, 16 * (start + 4)]] if anomalous else [],
        }
        rows.append(Row.model_validate(content))
    write_manifest(folder / "manifest.jsonl", rows)
    return folder / "manifest.jsonl"


def a_bank(path: Path, width: int = WIDTH) -> Path:
    """Write a bank of our sentences whose vectors are chance; its path."""
    wording = load_wording(SURVEILLANCE)
    random = torch.Generator().manual_seed(0)
    counts = (len(wording.sentences), 30, 30)
    vectors = BankVectors(*(torch.randn(n, width, generator=random) for n in counts))
    Bank(wording, vectors, "tiny", "none").save(path)
    return path
