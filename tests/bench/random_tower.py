"""A bundle of a CLIP tower that nobody has trained, to measure speed with.

    python -m tests.bench.random_tower ViT-B-32 --precision int8 --calibrate CLIPS --out DIR

The project's own commands make it: features of rendered footage, a head trained on them
for a few steps, the export. Speed does not depend on what weights say; scores mean nothing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from pathlib import Path

import torch
import yaml

from export.cli import main as export
from tests.support.footage import make_footage
from training.cli import main as train
from training.clip import open_clip_module

_FEW = {"steps": 4, "each": 2, "hidden": [8], "validate_every": 2, "validation_share": 0.3}


def random_weights(model: str, path: Path) -> Path:
    """A state dict of `model` as it is before any training, by seed 0."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        made = open_clip_module().create_model(model, pretrained=None)
    torch.save(made.state_dict(), path)
    return path


def make(model: str, out: Path, further: list[str]) -> int:
    """Make the bundle; `further` are flags of `gvvad-export bundle`. Returns an exit code."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        tower = [model, "--pretrained", str(random_weights(model, folder / "weights.pt"))]
        data = make_footage(folder / "data", sources=4)
        features = folder / "features"
        given = [str(data), "--model", *tower, "--frames", "1", "--workers", "1"]
        recipe = folder / "recipe.yaml"
        built_in = yaml.safe_load(Path("training/recipes/lap-causal.yaml").read_text())
        recipe.write_text(yaml.safe_dump(built_in | _FEW | {"held_out_share": 0.3}))
        manifest = ["--manifest", str(features / "manifest.jsonl"), "--recipe", str(recipe)]
        head = ["--head", str(folder / "run")]
        return (
            train(["extract", *given, "--out", str(features)])
            or train(["train", *manifest, "--out", head[1]])
            or export(["bundle", "--encoder", *tower, *head, "--out", str(out), *further])
        )


def main() -> int:
    """Make it as the flags say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a tower's name in open_clip")
    parser.add_argument("--out", type=Path, required=True, help="the bundle")
    options, further = parser.parse_known_args()
    return make(options.model, options.out, further)


if __name__ == "__main__":
    sys.exit(main())
