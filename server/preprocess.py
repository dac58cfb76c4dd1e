"""Decoded frame to model image: the one definition.

One swscale pass goes from the decoder's YUV to RGB at model size, with accurate
rounding and bit-exact code paths, so that a frame gives the same bytes on every
machine, in training and in service. A picture that its file or camera declares
as turned or mirrored is set upright.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from server.contract import Image
from server.masks import MaskPainter, Place
from server.tuning import Mask

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
_LIMITED_TO_FULL = np.rint(np.clip((np.arange(256) - 16) * 255 / 219, 0, 255)).astype(np.uint8)
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


@dataclass(frozen=True, slots=True)
class _Turn:
    """How a picture is brought upright: first the axes swap, then they are reversed."""

    swaps_axes: bool = False
    reverses_rows: bool = False
    reverses_columns: bool = False

    @classmethod
    def of(cls, frame: av.VideoFrame) -> _Turn:
        """What the frame's display matrix asks for, to the nearest quarter turn.

        The matrix sends column p and row q to column a p + c q and row b p + d q
        (FFmpeg, libavutil/display.h).
        """
        # Not frame.side_data: frame and container would hold each other, and frames
        # would stay until the garbage collector comes round.
        side_data: Any = SideDataContainer(frame)  # type: ignore[call-arg]  # stub lacks it
        if "DISPLAYMATRIX" not in side_data:
            return cls()
        matrix = side_data["DISPLAYMATRIX"]
        a, b, _, c, d = np.frombuffer(matrix, np.int32, 5).tolist()
        if abs(b) > abs(a):
            return cls(True, reverses_rows=b < 0, reverses_columns=c < 0)
        return cls(False, reverses_rows=d < 0, reverses_columns=a < 0)

    def apply(self, image: Image) -> Image:
        """(H, W, 3), or (W, H, 3) where the axes swap."""
        if self.swaps_axes:
            image = image.swapaxes(0, 1)
        rows = slice(None, None, -1 if self.reverses_rows else 1)
        columns = slice(None, None, -1 if self.reverses_columns else 1)
        return np.ascontiguousarray(image[rows, columns])


class Preprocessor:
    """Renders frames by one spec. Keeps swscale's context, so use one a thread.

    Args:
        spec: how.
        masks: regions that are painted out; others may be set between two frames.
    """

    def __init__(self, spec: PreprocessSpec, masks: Sequence[Mask] = ()) -> None:
        self._spec = spec
        self._scaler = VideoReformatter()
        self.set_masks(masks)

    def set_masks(self, masks: Sequence[Mask]) -> None:
        """Paint other regions out from the next frame on; from any thread."""
        self._painter = MaskPainter(masks)

    def __call__(self, frame: av.VideoFrame) -> Image:
        """Render one frame.

        Returns:
            (height, width, 3) uint8 RGB.
        """
        painter, (image, place) = self._painter, self._rendered(frame)
        painter.paint(image, place)
        return image

    def upright(self, frame: av.VideoFrame, longest: int) -> Image:
        """A frame as people look at it, as it is turned and in the colours that the model sees.

        Returns:
            (H, W, 3) uint8 RGB of the frame's own size, or smaller so that the longer side
            has `longest` pixels; the masks are painted out.
        """
        painter, turn = self._painter, _Turn.of(frame)
        height, width = _turned(frame, turn)
        scale = min(1.0, longest / max(height, width))
        height, width = max(1, round(height * scale)), max(1, round(width * scale))
        image = self._upright(frame, turn, height, width)
        painter.paint(image, Place(0, 0, height, width))
        return image

    def _rendered(self, frame: av.VideoFrame) -> tuple[Image, Place]:
        spec = self._spec
        turn = _Turn.of(frame)
        if spec.view == "squash":
            image = self._upright(frame, turn, spec.height, spec.width)
            return image, Place(0, 0, spec.height, spec.width)
        height, width = _turned(frame, turn)
        scale = min(spec.height / height, spec.width / width)
        height, width = max(1, round(height * scale)), max(1, round(width * scale))
        canvas = np.zeros((spec.height, spec.width, 3), np.uint8)
        top, left = (spec.height - height) // 2, (spec.width - width) // 2
        canvas[top : top + height, left : left + width] = self._upright(frame, turn, height, width)
        return canvas, Place(top, left, height, width)

    def _upright(self, frame: av.VideoFrame, turn: _Turn, height: int, width: int) -> Image:
        if turn.swaps_axes:
            height, width = width, height
        return turn.apply(self._scale(frame, height, width))

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
        image = scaled.to_ndarray().astype(np.uint8, copy=False)
        return _LIMITED_TO_FULL[image] if self._is_unstretched(frame) else image

    def _is_unstretched(self, frame: av.VideoFrame) -> bool:
        """Whether the frame is grey in the limited range, which swscale takes for the full one."""
        if not frame.format.name.startswith("gray"):
            return False
        declared_full = frame.color_range == ColorRange.JPEG
        given = self._spec.colour_range
        return given == "limited" or (given == "declared" and not declared_full)


def _turned(frame: av.VideoFrame, turn: _Turn) -> tuple[int, int]:
    """Height and width of a frame once it is upright."""
    height, width = frame.height, frame.width
    return (width, height) if turn.swaps_axes else (height, width)
