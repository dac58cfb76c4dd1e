"""Towers as large as those of service, with weights by chance: time, memory and numbers."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from export.calibration import Windows, calibration_windows
from export.quantise import Wanted, quantise
from export.tower import TowerForm, export_tower
from training.clip import open_clip_module
from training.encoders import ClipEncoder

pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]

MOST_BYTES = 6e9

EXPORT = """
import json, resource, sys
from pathlib import Path
import numpy as np, onnxruntime as ort, torch
from export.tower import TowerForm, export_tower
from training.encoders import ClipEncoder

torch.set_num_threads(2)
weights, graph = map(Path, sys.argv[1:])
encoder = ClipEncoder("ViT-L-14", str(weights), 1)
said = str(export_tower(encoder, TowerForm(), graph))
images = np.random.default_rng(0).integers(0, 256, (2, 1, 224, 224, 3), np.uint8)
expected = encoder.encode(images)
found = ort.InferenceSession(str(graph)).run(None, {"images": images})[0]
print(json.dumps({
    "said": said,
    "error": float(np.abs(found - expected).max()),
    "cosine": float((found * expected).sum(1).min() / 100),
    "bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
}))
"""


def by_chance(model: str, path: Path) -> Path:
    """Weights of a model that nobody has trained."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        made = open_clip_module().create_model(model, pretrained=None)
    torch.save(made.state_dict(), path)
    return path


def test_the_largest_tower_is_exported_in_six_gigabytes_and_equals_torch(tmp_path: Path) -> None:
    weights = by_chance("ViT-L-14", tmp_path / "weights.pt")
    command = [sys.executable, "-W", "ignore", "-c", EXPORT, str(weights), str(tmp_path / "l.onnx")]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300)
    weights.unlink()
    (tmp_path / "l.onnx").unlink(missing_ok=True)
    assert finished.returncode == 0, finished.stderr
    found = json.loads(finished.stdout.splitlines()[-1])
    assert found["said"] == "24 of 24 attentions are one node, 24 GELUs fused"
    assert found["error"] <= 1e-3
    assert found["cosine"] > 0.9999
    assert found["bytes"] < MOST_BYTES


@pytest.mark.clips
def test_eight_bits_stay_near_on_real_pictures(tmp_path: Path, clips: Path) -> None:
    weights = by_chance("ViT-B-32", tmp_path / "weights.pt")
    encoder = ClipEncoder("ViT-B-32", str(weights), 1)
    weights.unlink()
    found = calibration_windows(clips / "ucsd_ped2", encoder.window, encoder.preprocess)
    windows = Windows(found.calibration[::3], found.held_out[::2])
    export_tower(encoder, TowerForm("onnxruntime", "int8"), tmp_path / "exact.onnx")
    rounded = quantise(
        tmp_path / "exact.onnx", tmp_path / "rounded.onnx", windows, Wanted("int8", 0.99)
    )
    assert rounded.cosine > 0.99
    assert rounded.multiplications == 73
    assert len(rounded.spared) < 10
