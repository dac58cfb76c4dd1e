"""What turns a window into a feature: a bundle's encoder, or a visual tower of open_clip."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from server.bundle import load_bundle
from server.contract import Feature, Image, WindowSpec
from server.engine.onnxruntime import EngineOptions, OnnxDetector
from server.preprocess import PreprocessSpec
from training.clip import load_clip
from training.clips import TrainingError

CLIP_FEATURE_SCALE = 10.0
"""Norm of features made here: near that of CLIP's raw ones, which published margins assume."""


class WindowEncoder(Protocol):
    """Encodes windows.

    Attributes:
        id: of all that decides a feature; features of two ids never mix.
        window: how footage is cut.
        preprocess: how frames are rendered.
    """

    id: str
    window: WindowSpec
    preprocess: PreprocessSpec

    def encode(self, images: Image) -> Feature:
        """(B, S, H, W, 3) uint8 to (B, D) float32."""


@dataclass(frozen=True, slots=True)
class EncoderChoice:
    """Which encoder; small enough to be sent to another process.

    Attributes:
        bundle: whose encoder; or None for
        model: open_clip's name, or a model's JSON, with
        pretrained: its tag, or a weights file, and
        frames: S, the frames of a window that it sees.
    """

    bundle: Path | None = None
    model: str | None = None
    pretrained: str | None = None
    frames: int = 1

    def load(self) -> WindowEncoder:
        """Make it ready, on one thread.

        Raises:
            TrainingError: the model or its weights cannot be had.
            BundleError: the bundle cannot be used.
        """
        torch.set_num_threads(1)
        if self.bundle is not None:
            return BundleEncoder(self.bundle)
        if self.model is None or self.pretrained is None:
            raise TrainingError(
                "no encoder: give --encoder BUNDLE, or --model NAME and --pretrained TAG_OR_FILE"
            )
        return ClipEncoder(self.model, self.pretrained, self.frames)


class BundleEncoder:
    """A bundle's, run as the server runs it."""

    def __init__(self, directory: Path) -> None:
        bundle = load_bundle(directory)
        self.id = bundle.manifest.encoder_id()
        self.window = bundle.manifest.window
        self.preprocess = bundle.manifest.preprocess
        self._detector = OnnxDetector(bundle, EngineOptions(threads=1))

    def encode(self, images: Image) -> Feature:
        return self._detector.encode(images)


class ClipEncoder:
    """A visual tower of open_clip, in torch.

    Attributes:
        name: of the model and, in brackets, its weights.
        tower: from windows to features.
    """

    def __init__(self, model: str, pretrained: str, frames: int) -> None:
        clip = load_clip(model, pretrained)
        of_file = Path(pretrained).is_file()
        self.name = f"{clip.name} ({clip.weights[:12] if of_file else clip.weights})"
        visual = clip.model.visual
        size = visual.image_size
        height, width = (size, size) if isinstance(size, int) else size
        self.window = WindowSpec(frames, fps=None)
        self.preprocess = PreprocessSpec(height, width, "letterbox", "area", "bt601", "declared")
        self.tower = ClipWindows(visual, CLIP_FEATURE_SCALE)
        content = {
            "model": clip.name,
            "weights": clip.weights,
            "scale": CLIP_FEATURE_SCALE,
            "window": asdict(self.window),
            "preprocess": asdict(self.preprocess),
        }
        if clip.quick_gelu:  # features made without it must not pass for these
            content["quick_gelu"] = True
        self.id = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @torch.inference_mode()
    def encode(self, images: Image) -> Feature:
        found: Feature = self.tower(torch.from_numpy(images)).numpy()
        return found


class ClipWindows(nn.Module):
    """Windows through a visual tower: each frame to a unit vector, their mean, unit, scaled.

    Attributes:
        see: frames (B S, 3, H, W) in 0 to 255 to vectors (B S, D) of any norm.
        scale: norm of a feature.

    Source: ALGORITHM.md, section 5.
    """

    def __init__(self, visual: Any, scale: float) -> None:
        super().__init__()
        self.see: nn.Module = Normalised(visual)
        self.scale = scale
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """(B, S, H, W, 3) uint8 to (B, D)."""
        frames = images.float().flatten(0, 1).permute(0, 3, 1, 2)
        seen = functional.normalize(self.see(frames), dim=1)
        mean = seen.view(*images.shape[:2], -1).mean(1)
        return functional.normalize(mean, dim=1) * self.scale


class Normalised(nn.Module):
    """A visual tower that takes pictures in 0 to 255; CLIP's normalisation of images."""

    visual: nn.Module
    mean: Tensor
    deviation: Tensor

    def __init__(self, visual: Any) -> None:
        super().__init__()
        self.visual = visual
        for name, values in (("mean", visual.image_mean), ("deviation", visual.image_std)):
            self.register_buffer(name, 255 * torch.tensor(values).view(3, 1, 1))

    def forward(self, frames: Tensor) -> Tensor:
        return pooled(self.visual((frames - self.mean) / self.deviation))


def pooled(found: Tensor | tuple[Tensor, ...]) -> Tensor:
    """A tower's vector of a picture; some add those of its parts, which are left out."""
    return found[0] if isinstance(found, tuple) else found
