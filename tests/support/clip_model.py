"""Small models of open_clip with weights by chance."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import torch

from training.clip import open_clip_module

EMBED_DIM = 16
CONTENT = {
    "embed_dim": EMBED_DIM,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
TWO_LAYERS = CONTENT | {
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 128, "patch_size": 8},
}
RESNET = CONTENT | {
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
}


def write_clip_model(
    folder: Path, name: str = "gvvad-tiny", content: dict[str, object] = CONTENT
) -> tuple[Path, Path]:
    """The model's JSON and its weights."""
    config, weights = folder / f"{name}.json", folder / "weights.pt"
    config.write_text(json.dumps(content))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        open_clip = open_clip_module()
        open_clip.add_model_config(config)
        torch.manual_seed(0)
        torch.save(open_clip.create_model(name).state_dict(), weights)
    return config, weights
