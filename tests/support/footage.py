"""Small labelled clips to train on: a square that walks, or squares that jump about."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import yaml

from tests.support.clips import write_clip

HEIGHT, WIDTH, FPS = 48, 64, 10
RECIPE = """
name: tiny
seed: 3
fps: 10.0
folds: 2
synthetic_weight: 0.5
same_source: 0.5
other_normals: 0.25
false_positive_rate: 0.1
leave_out: []
encoder: {members: 1, width: 4, embedding: 8, dropout: 0.2, steps: 12, batch: 8,
  learning_rate: 0.01, weight_decay: 0.01, label_smoothing: 0.1, contrast: 0.5, average: 0.5}
head: {half_life_windows: 8.0, dropout: 0.2, member_dropout: 0.2, steps: 6, streams: 4,
  longest: 6, variants: 2, learning_rate: 0.01, weight_decay: 0.01, label_smoothing: 0.1,
  smoothness: 0.01, average: 0.5}
"""


def frames(seed: int, count: int, *, wild: bool) -> list[np.ndarray]:
    """Frames of one scene: one square walks, or five jump."""
    rng = np.random.default_rng(seed)
    ground = rng.integers(40, 90, (HEIGHT, WIDTH, 3), np.uint8)
    images = []
    for index in range(count):
        image = ground.copy()
        corners = rng.integers(0, 36, (5, 2)) if wild else [(20, (3 + index) % 50)]
        for top, left in corners:
            image[top : top + 10, left : left + 10] = 230
        images.append(image)
    return images


def make_footage(folder: Path, sources: int = 4) -> Path:
    """A dataset folder: a normal and a wild clip of 2 s for each source, and their truth."""
    dataset = folder / "scenes"
    dataset.mkdir(parents=True)
    truth = {}
    for source in range(sources):
        for wild in (False, True):
            name = f"{'wild' if wild else 'calm'}{source}.mp4"
            write_clip(dataset / name, frames(source, 20, wild=wild), fps=FPS)
            truth[name] = {
                "frames": 20,
                "fps": FPS,
                "source": f"camera{source}",
                "anomalous": [[0, 20]] if wild else [],
            }
    (dataset / "ground_truth.json").write_text(json.dumps(truth))
    pairs = [["calm0.mp4", "wild0.mp4", 0.9]]
    (dataset / "same_camera_pairs.json").write_text(json.dumps(pairs))
    return folder


def write_recipe(path: Path, **changes: object) -> Path:
    """The tiny recipe; `changes` replace or add top-level values."""
    path.write_text(yaml.safe_dump(yaml.safe_load(RECIPE) | changes))
    return path
