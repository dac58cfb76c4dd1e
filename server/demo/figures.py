"""The people of the demo's scene: a skeleton of thirteen joints, drawn with its shadow.

A pose is a set of joint angles; `joints` turns it into points in metres, and
the lowest point always stands on the ground, so that walkers bob and the fallen
lie without further rules.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import cv2
import numpy as np

from server.contract import Image
from server.demo.plaza import Points, project

Colour = tuple[int, int, int]
Canvas = list[tuple[float, float, float]]  # column, row, pixels a metre of each joint

# Light from the upper right, behind the camera: metres of shadow a metre of height.
_SHADOW_X, _SHADOW_Z = -0.75, 0.3
_TORSO, _HEAD, _UPPER_ARM, _FOREARM, _THIGH, _SHIN = 0.52, 0.19, 0.29, 0.27, 0.44, 0.45
_SHOULDER_HALF, _HIP_HALF = 0.19, 0.1
_SHIFT = 4  # OpenCV draws in sixteenths of a pixel
_SUBPIXELS = 1 << _SHIFT


@dataclass(frozen=True, slots=True)
class Look:
    """What somebody wears.

    Attributes:
        top: RGB of jacket and sleeves.
        trousers: RGB.
        hair: RGB.
        height: factor on everything; 1 is 1.72 m.
    """

    top: Colour
    trousers: Colour
    hair: Colour
    height: float = 1.0


SKIN: Colour = (176, 138, 112)


@dataclass(frozen=True, slots=True)
class Pose:
    """Joint angles in radians, 0 = standing with arms down.

    Attributes:
        leg_left: thigh, forward positive.
        leg_right: the same on the right.
        knee_left: bend, 0 or more.
        knee_right: the same on the right.
        arm_left: upper arm, forward positive.
        arm_right: the same on the right.
        elbow_left: bend, 0 or more.
        elbow_right: the same on the right.
        spread: arms away from the body.
        lean: upper body, forward positive.
        tilt: the whole body, forward positive; a quarter turn is lying.
    """

    leg_left: float = 0.0
    leg_right: float = 0.0
    knee_left: float = 0.0
    knee_right: float = 0.0
    arm_left: float = 0.0
    arm_right: float = 0.0
    elbow_left: float = 0.0
    elbow_right: float = 0.0
    spread: float = 0.12
    lean: float = 0.0
    tilt: float = 0.0

    def towards(self, other: Pose, weight: float) -> Pose:
        """The pose `weight` (0 to 1) of the way to `other`."""
        mixed = {
            name: getattr(self, name) * (1 - weight) + getattr(other, name) * weight
            for name in (field.name for field in fields(self))
        }
        return Pose(**mixed)


@dataclass(frozen=True, slots=True)
class Limb:
    """A tapered part between two joints."""

    first: int
    last: int
    first_radius: float
    last_radius: float
    wears: str


# Joints: 0 pelvis, 1 neck, 2 head, 3/4 elbows, 5/6 hands, 7/8 knees, 9/10 feet, 11/12 shoulders.
_LIMBS = (
    Limb(0, 7, 0.1, 0.075, "trousers"),
    Limb(0, 8, 0.1, 0.075, "trousers"),
    Limb(7, 9, 0.07, 0.05, "trousers"),
    Limb(8, 10, 0.07, 0.05, "trousers"),
    Limb(0, 1, 0.145, 0.16, "top"),
    Limb(11, 3, 0.075, 0.06, "top"),
    Limb(12, 4, 0.075, 0.06, "top"),
    Limb(3, 5, 0.055, 0.045, "top"),
    Limb(4, 6, 0.055, 0.045, "top"),
    Limb(5, 5, 0.055, 0.055, "skin"),
    Limb(6, 6, 0.055, 0.055, "skin"),
    Limb(2, 2, 0.125, 0.125, "hair"),
)


def joints(pose: Pose, heading_radians: float, at: Points, height: float) -> Points:
    """Where the joints are.

    Args:
        pose: joint angles.
        heading_radians: 0 looks along +Z, a quarter turn along +X.
        at: (2,) metres, X and Z of the pelvis.
        height: factor on every length.

    Returns:
        (13, 3) metres, the lowest joint at foot height.
    """
    local = height * _local_joints(pose)
    sine, cosine = math.sin(pose.tilt), math.cos(pose.tilt)
    right, up, forward = local[:, 0], local[:, 1], local[:, 2]
    up, forward = up * cosine - forward * sine, up * sine + forward * cosine
    up = up - up.min() + 0.06
    sine, cosine = math.sin(heading_radians), math.cos(heading_radians)
    x = at[0] + right * cosine + forward * sine
    z = at[1] - right * sine + forward * cosine
    return np.stack([x, up, z], axis=1)


def draw_shadow(mask: Image, body: Points) -> None:
    """Mark where the body keeps the sun off the ground.

    Args:
        mask: (H, W) uint8 of the canvas, changed in place.
        body: (13, 3) joints.
    """
    ground = body * [1.0, 0.0, 1.0]
    ground[:, 0] += _SHADOW_X * body[:, 1]
    ground[:, 2] += _SHADOW_Z * body[:, 1]
    points = _on_canvas(ground)
    for limb in _LIMBS:
        first, last = points[limb.first], points[limb.last]
        thickness = max(1, round(1.6 * limb.first_radius * first[2]))
        start, end = (int(first[0]), int(first[1])), (int(last[0]), int(last[1]))
        cv2.line(mask, start, end, (255,), thickness)


def draw_body(canvas: Image, body: Points, look: Look) -> None:
    """Draw somebody, the far limbs first.

    Args:
        canvas: (H, W, 3) uint8 RGB, changed in place.
        body: (13, 3) joints.
        look: colours.
    """
    points = _on_canvas(body)
    colours = {"top": look.top, "trousers": look.trousers, "skin": SKIN, "hair": look.hair}
    middle = float(body[0, 2])
    for limb in sorted(_LIMBS, key=lambda limb: -(body[limb.first, 2] + body[limb.last, 2])):
        depth = float(body[limb.first, 2] + body[limb.last, 2]) / 2 - middle
        light = 1.0 - 0.5 * max(-0.25, min(0.35, depth))
        red, green, blue = (int(min(255, channel * light)) for channel in colours[limb.wears])
        _capsule(canvas, points, limb, (red, green, blue))
    _face(canvas, points)


def _face(canvas: Image, points: Canvas) -> None:
    """The lower half of the head, seen from above, is skin."""
    (neck_x, neck_y, _), (head_x, head_y, scale) = points[1], points[2]
    x, y = (2 * head_x + neck_x) / 3, (2 * head_y + neck_y) / 3
    centre = (int(x * _SUBPIXELS), int(y * _SUBPIXELS))
    cv2.circle(canvas, centre, int(0.085 * scale * _SUBPIXELS), SKIN, -1, cv2.LINE_AA, _SHIFT)


def _on_canvas(points: Points) -> Canvas:
    return [(column, row, scale) for column, row, scale in project(points).tolist()]


def _local_joints(pose: Pose) -> Points:
    """(13, 3) right, up, forward of the pelvis."""
    sine, cosine = math.sin(pose.lean), math.cos(pose.lean)
    neck = np.array([0.0, _TORSO * cosine, _TORSO * sine])
    head = neck + np.array([0.0, _HEAD * math.cos(pose.lean * 0.7), _HEAD * sine])
    points = np.zeros((13, 3))
    points[1], points[2] = neck, head
    arms = ((-1, pose.arm_left, pose.elbow_left), (1, pose.arm_right, pose.elbow_right))
    for side, (sign, arm, elbow) in enumerate(arms):
        shoulder = neck + np.array([sign * _SHOULDER_HALF, -0.06, 0.0])
        points[11 + side] = shoulder
        points[3 + side] = shoulder + _UPPER_ARM * _direction(arm, sign * pose.spread)
        points[5 + side] = points[3 + side] + _FOREARM * _direction(
            arm + elbow, sign * pose.spread * 0.4
        )
    legs = ((-1, pose.leg_left, pose.knee_left), (1, pose.leg_right, pose.knee_right))
    for side, (sign, leg, knee) in enumerate(legs):
        hip = np.array([sign * _HIP_HALF, 0.0, 0.0])
        points[7 + side] = hip + _THIGH * _direction(leg, sign * 0.04)
        points[9 + side] = points[7 + side] + _SHIN * _direction(leg - knee, 0.0)
    return points


def _direction(swing: float, spread: float) -> Points:
    """Unit vector (right, up, forward) of a limb that hangs down at 0, 0."""
    return np.array(
        [
            math.sin(spread),
            -math.cos(spread) * math.cos(swing),
            math.cos(spread) * math.sin(swing),
        ]
    )


def _capsule(canvas: Image, points: Canvas, limb: Limb, colour: tuple[int, ...]) -> None:
    """A tapered stroke with round ends, to a sixteenth of a pixel."""
    x0, y0, scale0 = points[limb.first]
    x1, y1, scale1 = points[limb.last]
    r0, r1 = limb.first_radius * scale0, limb.last_radius * scale1
    for x, y, radius in ((x0, y0, r0), (x1, y1, r1)):
        centre = (int(x * _SUBPIXELS), int(y * _SUBPIXELS))
        radius = max(0.6, radius) * _SUBPIXELS
        cv2.circle(canvas, centre, int(radius), colour, -1, cv2.LINE_AA, _SHIFT)
    length = math.hypot(x1 - x0, y1 - y0)
    if length < 1e-6:
        return
    across_x, across_y = (y0 - y1) / length * _SUBPIXELS, (x1 - x0) / length * _SUBPIXELS
    x0, y0, x1, y1 = x0 * _SUBPIXELS, y0 * _SUBPIXELS, x1 * _SUBPIXELS, y1 * _SUBPIXELS
    outline = (
        (x0 + across_x * r0, y0 + across_y * r0),
        (x1 + across_x * r1, y1 + across_y * r1),
        (x1 - across_x * r1, y1 - across_y * r1),
        (x0 - across_x * r0, y0 - across_y * r0),
    )
    cv2.fillConvexPoly(canvas, np.array(outline, np.int32), colour, cv2.LINE_AA, _SHIFT)
