"""The plaza of the demo's scene: where the camera hangs and what never moves.

World axes in metres: X to the right, Y up, Z away from the camera; the ground
is Y = 0. Everything is drawn by code, so the project ships no footage.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from server.contract import Image

WIDTH, HEIGHT = 640, 360
"""Pixels of the finished frame."""

SUPERSAMPLING = 2
"""Drawn that much larger, then averaged: smooth edges that move by parts of a pixel."""

FACADE_Z = 21.0
"""Metres to the building at the far end."""

Points = npt.NDArray[np.float64]

_CAMERA_HEIGHT = 4.4
_PITCH_RADIANS = math.radians(19.0)
_FOCAL_PIXELS = 540.0
_GROUND_NEAR_Z, _GROUND_HALF_WIDTH = 4.0, 18.0
_FACADE_HEIGHT = 9.0
_PLINTH = (82, 78, 72)
_TEXELS = 36  # a metre of ground or wall


def project(points: Points) -> Points:
    """World points to the drawing canvas.

    Args:
        points: (N, 3) metres.

    Returns:
        (N, 3): column and row on the supersampled canvas, and pixels a metre there.
    """
    x, y, z = points[:, 0], points[:, 1] - _CAMERA_HEIGHT, points[:, 2]
    sine, cosine = math.sin(_PITCH_RADIANS), math.cos(_PITCH_RADIANS)
    scale = SUPERSAMPLING * _FOCAL_PIXELS / (z * cosine - y * sine)
    columns = SUPERSAMPLING * WIDTH / 2 + scale * x
    rows = SUPERSAMPLING * HEIGHT / 2 - scale * (y * cosine + z * sine)
    return np.stack([columns, rows, scale], axis=1)


def background(rng: np.random.Generator) -> Image:
    """The empty plaza.

    Returns:
        (SUPERSAMPLING * HEIGHT, SUPERSAMPLING * WIDTH, 3) uint8 RGB.
    """
    canvas = np.zeros((SUPERSAMPLING * HEIGHT, SUPERSAMPLING * WIDTH, 3), np.uint8)
    _paste(canvas, _facade(rng), _facade_corners())
    _paste(canvas, _ground(rng), _ground_corners())
    _furniture(canvas)
    return _aged(canvas, rng)


def _paste(canvas: Image, texture: Image, corners: Points) -> None:
    """Lay a texture over the quadrilateral of four world corners, clockwise from top left."""
    height, width = texture.shape[:2]
    source = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    target = project(corners)[:, :2].astype(np.float32)
    transform = cv2.getPerspectiveTransform(source, target)
    size = (canvas.shape[1], canvas.shape[0])
    warped = cv2.warpPerspective(texture, transform, size, flags=cv2.INTER_AREA)
    inside = cv2.warpPerspective(np.full(texture.shape[:2], 255, np.uint8), transform, size)
    cv2.copyTo(warped, inside, canvas)


def _ground_corners() -> Points:
    near, far, half = _GROUND_NEAR_Z, FACADE_Z, _GROUND_HALF_WIDTH
    return np.array([[-half, 0, far], [half, 0, far], [half, 0, near], [-half, 0, near]])


def _facade_corners() -> Points:
    half, top, far = _GROUND_HALF_WIDTH, _FACADE_HEIGHT, FACADE_Z
    return np.array([[-half, top, far], [half, top, far], [half, 0, far], [-half, 0, far]])


def _ground(rng: np.random.Generator) -> Image:
    """Paving slabs, a darker gutter, and a path of lighter stone."""
    rows = int((FACADE_Z - _GROUND_NEAR_Z) * _TEXELS)
    columns = int(2 * _GROUND_HALF_WIDTH * _TEXELS)
    slab = _TEXELS * 4 // 5
    shades = rng.normal(168, 4.5, (rows // slab + 1, columns // slab + 1))
    tone = np.kron(shades, np.ones((slab, slab)))[:rows, :columns]
    tone += cv2.resize(rng.normal(0, 9, (9, 17)), (columns, rows), interpolation=cv2.INTER_CUBIC)
    tone += rng.normal(0, 3.0, tone.shape)
    tone[::slab, :] -= 16
    tone[:, ::slab] -= 16
    tone[: 2 * _TEXELS] -= 14  # the pavement along the wall lies in its shade
    tone[2 * _TEXELS : 2 * _TEXELS + 9] -= 34
    middle = columns // 2
    tone[:, middle - 5 * _TEXELS : middle - 5 * _TEXELS + 14] += 13
    tone[:, middle + 6 * _TEXELS : middle + 6 * _TEXELS + 14] += 13
    return _tinted(tone, (1.03, 1.0, 0.94))


def _facade(rng: np.random.Generator) -> Image:
    """A plastered wall with a row of shop fronts under a row of windows."""
    rows, columns = int(_FACADE_HEIGHT * _TEXELS), int(2 * _GROUND_HALF_WIDTH * _TEXELS)
    tone = rng.normal(158, 2.5, (rows, columns))
    tone += np.linspace(10, -16, rows)[:, None]
    wall = _tinted(tone, (1.05, 0.98, 0.88))
    metre = _TEXELS
    wall[rows - metre // 2 :] = _PLINTH
    for index, left in enumerate(range(metre, columns - 3 * metre, 3 * metre)):
        shade = int(rng.integers(38, 62))
        front = (left, rows - 3 * metre, 9 * metre // 4, 3 * metre - 8)
        if index % 4 == 1:
            front = (left + metre // 2, rows - 5 * metre // 2, metre * 5 // 4, 5 * metre // 2)
        _pane(wall, front, (shade, shade + 5, shade + 9))
        _pane(wall, (left + 12, rows - 7 * metre, 3 * metre // 2, 5 * metre // 2), (70, 80, 90))
        if index % 3 == 0:
            colour = (128, 70, 60) if index % 2 else (66, 92, 86)
            edge = rows - 3 * metre
            right = left + 9 * metre // 4 + 8
            cv2.rectangle(wall, (left - 8, edge - 6), (right, edge + 14), colour, -1)
    return wall


def _pane(wall: Image, box: tuple[int, int, int, int], colour: tuple[int, int, int]) -> None:
    """A framed dark window with the sky's faint reflection."""
    left, top, width, height = box
    cv2.rectangle(wall, (left - 3, top - 3), (left + width + 3, top + height), (96, 92, 86), -1)
    cv2.rectangle(wall, (left, top), (left + width, top + height), colour, -1)
    glint = np.array([[left, top], [left + width // 2, top], [left, top + height // 2]], np.int32)
    cv2.fillConvexPoly(wall, glint, tuple(channel + 14 for channel in colour))


def _furniture(canvas: Image) -> None:
    """Planters along the wall, a bench, and a lamp post with its shadow."""
    for x in (-9.5, -3.2, 4.6, 11.0):
        _box(canvas, (x, 18.2), (1.5, 0.6), (92, 86, 80))
        for offset in np.linspace(-0.55, 0.55, 5):
            leaf = np.array([[x + offset, 0.75 + 0.12 * math.cos(9 * offset), 18.1]])
            column, row, scale = project(leaf)[0]
            centre = (int(column), int(row))
            cv2.circle(canvas, centre, int(0.33 * scale), (62, 84, 52), -1, cv2.LINE_AA)
            lit = (int(column - 0.08 * scale), int(row - 0.1 * scale))
            cv2.circle(canvas, lit, int(0.17 * scale), (82, 104, 66), -1, cv2.LINE_AA)
    _box(canvas, (-5.6, 10.4), (1.9, 0.42), (104, 82, 60))
    _stroke(canvas, [[6.3, 0, 12.0], [1.9, 0, 13.7]], 0.09, (88, 87, 84))
    _stroke(canvas, [[6.3, 0, 12.0], [6.3, 5.2, 12.0]], 0.13, (58, 60, 62))


def _box(
    canvas: Image, at: tuple[float, float], size: tuple[float, float], colour: tuple[int, int, int]
) -> None:
    """A block on the ground: `at` its front middle (X, Z), `size` its width and height."""
    (x, z), (width, height), depth = at, size, 0.7
    left, right = x - width / 2, x + width / 2
    faces = {
        0.55: [[left, 0, z], [right, 0, z], [right + 0.3, 0, z + depth], [left, 0, z + depth]],
        1.25: [
            [left, height, z],
            [right, height, z],
            [right, height, z + depth],
            [left, height, z + depth],
        ],
        1.0: [[left, 0, z], [right, 0, z], [right, height, z], [left, height, z]],
    }
    for light, corners in faces.items():
        outline = np.rint(project(np.array(corners))[:, :2]).astype(np.int32)
        shade = tuple(int(min(255, channel * light)) for channel in colour)
        cv2.fillConvexPoly(canvas, outline, shade, cv2.LINE_AA)


def _stroke(
    canvas: Image, ends: list[list[float]], width_metres: float, colour: tuple[int, int, int]
) -> None:
    first, last = project(np.array(ends))
    thickness = max(1, int(width_metres * (first[2] + last[2]) / 2))
    start, stop = (int(first[0]), int(first[1])), (int(last[0]), int(last[1]))
    cv2.line(canvas, start, stop, colour, thickness, cv2.LINE_AA)


def _aged(canvas: Image, rng: np.random.Generator) -> Image:
    """What a cheap lens does: soft, darker to the corners, a little grain."""
    soft = cv2.GaussianBlur(canvas, (0, 0), 1.1).astype(np.float32)
    rows = np.linspace(-1, 1, canvas.shape[0])[:, None]
    columns = np.linspace(-1, 1, canvas.shape[1])[None, :]
    soft *= (1.0 - 0.12 * (rows**2 + columns**2)).astype(np.float32)[:, :, None]
    soft += rng.normal(0, 2.0, canvas.shape[:2]).astype(np.float32)[:, :, None]
    return _bytes(soft)


def _tinted(tone: npt.NDArray[np.floating[Any]], tint: tuple[float, float, float]) -> Image:
    return _bytes(tone[:, :, None] * np.array(tint))


def _bytes(values: npt.NDArray[np.floating[Any]]) -> Image:
    clipped: Image = np.clip(values, 0, 255).astype(np.uint8)
    return clipped
