"""A visual tower of CLIP as a bundle's encoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export.bundle import graph_file
from export.calibration import calibration_windows
from export.qdq import EightBits
from export.quantise import Quantised, Wanted, quantise
from export.tower import Recognised, TowerForm, export_tower
from server.bundle import EncoderPart, Precision
from training.clips import TrainingError
from training.encoders import CLIP_FEATURE_SCALE, ClipEncoder

_FILES: dict[Precision, str] = {
    "fp32": "encoder.onnx",
    "fp16": "encoder.fp16.onnx",
    "bf16": "encoder.bf16.onnx",
    "int8": "encoder.int8-cpu.onnx",
    "int8-symmetric": "encoder.int8-trt.onnx",
    "fp8": "encoder.fp8.onnx",
}

Told = Callable[[Recognised | Quantised], None]


@dataclass(frozen=True, slots=True)
class Rounding:
    """What 8 bits need.

    Attributes:
        clips: folder of real footage to find ranges by.
        min_cosine: see `Wanted`.
    """

    clips: Path
    min_cosine: float = 0.995


class ClipSource:
    """A tower with all that decides its graph.

    Args:
        encoder: the tower.
        form: engine and precision.
        rounding: for int8 and fp8, and for nothing else.
        told: called with what was found.
        tick: told what is being done, how much of it is, and of how much.

    Raises:
        TrainingError: 8 bits without clips.
    """

    def __init__(
        self,
        encoder: ClipEncoder,
        form: TowerForm,
        rounding: Rounding | None = None,
        told: Told = lambda found: None,
        tick: Callable[[str, int, int], None] = lambda what, done, total: None,
    ) -> None:
        if form.needs_rounding and rounding is None:
            raise TrainingError(
                f"{form.precision} needs real frames to find ranges by; give --calibrate CLIPS"
            )
        self.id, self.called = encoder.id, encoder.name
        self.window, self.preprocess = encoder.window, encoder.preprocess
        self.feature_dim = _feature_dim(encoder)
        self.clips: list[str] = []
        self._encoder, self._form, self._rounding = encoder, form, rounding
        self._told, self._tick = told, tick

    def export(self, folder: Path) -> tuple[EncoderPart, Path]:
        """What a manifest says of it, and its graph, made in `folder`.

        Raises:
            TrainingError: see `export_tower`, `calibration_windows` and `quantise`.
        """
        precision = self._precision()
        graph = folder / _FILES[precision]
        if precision == "int8" or precision == "int8-symmetric" or precision == "fp8":
            self._export_rounded(precision, graph)
        else:
            self._told(export_tower(self._encoder, self._form, graph))
        part = EncoderPart(
            name=self._encoder.name,
            feature_dim=self.feature_dim,
            feature_scale=CLIP_FEATURE_SCALE,
            graph=graph_file(graph, precision),
        )
        return part, graph

    def _export_rounded(self, kind: EightBits, graph: Path) -> None:
        assert self._rounding is not None
        rounding = self._rounding
        wanted = Wanted(kind, rounding.min_cosine, self._encoder.encode)
        windows = calibration_windows(
            rounding.clips,
            self.window,
            self.preprocess,
            lambda done, total: self._tick("clips", done, total),
        )
        exact = graph.with_name("exact.onnx")
        self._told(export_tower(self._encoder, self._form, exact))
        self._told(quantise(exact, graph, windows, wanted, self._tick))

    def _precision(self) -> Precision:
        if self._form.precision != "int8":
            return self._form.precision
        return "int8-symmetric" if self._form.engine == "tensorrt" else "int8"


def _feature_dim(encoder: ClipEncoder) -> int:
    size = encoder.preprocess
    black = np.zeros((1, encoder.window.sampled_frames, size.height, size.width, 3), np.uint8)
    return int(encoder.encode(black).shape[1])
