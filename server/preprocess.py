"""Decoded frame to model image: the one definition.

One swscale pass goes from the decoder's YUV to RGB at model size, with accurate
rounding and bit-exact code paths, so that a frame gives the same bytes on every
machine, in training and in service.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from server.contract import Image

View = Literal["letterbox", "squash"]
InterpolationName = Literal["bilinear", "bicubic", "area"]
ColourMatrix = Literal["bt601", "bt709"]
ColourRange = Literal["declared", "limited", "full"]

MAX_SIDE = 4096

_EXACT = Interpolation.ACCURATE_RND | Interpolation.BITEXACT | Interpolation.FULL_CHR_H_INT
_INTERPOLATION = {
    "bilinear": Interpolation.BILINEAR,
    "bicubic": Interpolation.BICUBIC,
    "area": Interpolation.AREA,
}
_MATRIX = {"bt601": Colorspace.ITU601, "bt709": Colorspace.ITU709}
_RANGE = {"declared": None, "limited": ColorRange.MPEG, "full": ColorRange.JPEG}


@dataclass(frozen=True, slots=True)
class PreprocessSpec:
    """How a frame becomes a model image.

    Attributes:
        height: rows of the image, pixels.
        width: columns of the image, pixels.
        view: "squash" fills the image, "letterbox" keeps the aspect ratio on black.
        interpolation: swscale's filter.
        colour_matrix: how YUV is read; cameras rarely declare it, so it is fixed.
        colour_range: "declared" follows the frame, limited where it says nothing.
    """

    height: int
    width: int
    view: View
    interpolation: InterpolationName
    colour_matrix: ColourMatrix
    colour_range: ColourRange

    def __post_init__(self) -> None:
        for name in ("height", "width"):
            side = getattr(self, name)
            if not 8 <= side <= MAX_SIDE:
                raise ValueError(f"{name} ({side}) must be 8 to {MAX_SIDE} pixels")
        allowed_by_name = {
            "view": View,
            "interpolation": InterpolationName,
            "colour_matrix": ColourMatrix,
            "colour_range": ColourRange,
        }
        for name, allowed in allowed_by_name.items():
            value, choices = getattr(self, name), get_args(allowed)
            if value not in choices:
                raise ValueError(f"{name} ({value!r}) must be one of {', '.join(choices)}")


class Preprocessor:
    """Renders frames by one spec. Keeps swscale's context, so use one a thread."""

    def __init__(self, spec: PreprocessSpec) -> None:
        self._spec = spec
        self._scaler = VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> Image:
        """Render one frame.

        Returns:
            (height, width, 3) uint8 RGB.
        """
        spec = self._spec
        if spec.view == "squash":
            return self._scale(frame, spec.height, spec.width)
        scale = min(spec.height / frame.height, spec.width / frame.width)
        height = max(1, round(frame.height * scale))
        width = max(1, round(frame.width * scale))
        canvas = np.zeros((spec.height, spec.width, 3), np.uint8)
        top, left = (spec.height - height) // 2, (spec.width - width) // 2
        canvas[top : top + height, left : left + width] = self._scale(frame, height, width)
        return canvas

    def _scale(self, frame: av.VideoFrame, height: int, width: int) -> Image:
        spec = self._spec
        scaled = self._scaler.reformat(
            frame,
            width=width,
            height=height,
            format="rgb24",
            src_colorspace=_MATRIX[spec.colour_matrix],
            dst_colorspace=_MATRIX[spec.colour_matrix],
            src_color_range=_RANGE[spec.colour_range],
            dst_color_range=ColorRange.JPEG,
            interpolation=_INTERPOLATION[spec.interpolation] | _EXACT,
            threads=1,
        )
        return scaled.to_ndarray().astype(np.uint8, copy=False)
