"""A small model of open_clip with weights by chance."""

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


def write_clip_model(folder: Path) -> tuple[Path, Path]:
    """The model's JSON and its weights."""
    config, weights = folder / "gvvad-tiny.json", folder / "weights.pt"
    config.write_text(json.dumps(CONTENT))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        open_clip = open_clip_module()
        open_clip.add_model_config(config)
        torch.manual_seed(0)
        torch.save(open_clip.create_model("gvvad-tiny").state_dict(), weights)
    return config, weights
