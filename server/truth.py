"""Ground-truth files: which frames of which clips are anomalous.

`ground_truth.json` stands beside the clips: `{"name.mp4": {"frames": N, "fps": F,
"anomalous": [[start, end), ...]}}`, 0-based half-open frame intervals. Other keys
of a clip are other people's notes and are left alone. No name leads out of the folder.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from server.wording import one_line, quoted

TRUTH_FILE = "ground_truth.json"

MAX_FRAMES = 10_000_000
"""Over four days at 25 Hz; every frame takes memory, and a longer clip is a slip of the pen."""


class TruthError(ValueError):
    """A ground-truth file that cannot be used; the message names file, clip and field."""


@dataclass(frozen=True, slots=True)
class ClipTruth:
    """Truth of one clip.

    Attributes:
        frames: frames of the clip, 1 to 10 million.
        fps: rate in Hz.
        anomalous: half-open frame intervals, ascending, inside the clip.
    """

    frames: int
    fps: float
    anomalous: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        if not 1 <= self.frames <= MAX_FRAMES:
            raise ValueError(f"frames ({quoted(self.frames)}) must be 1 to {MAX_FRAMES}")
        if not 0 < self.fps <= 1000:
            raise ValueError(f"fps ({self.fps}) must be over 0 and at most 1000")
        last_end = 0
        for start, end in self.anomalous:
            if not last_end <= start < end <= self.frames:
                raise ValueError(
                    f"anomalous interval [{quoted(start)}, {quoted(end)}) must be ascending "
                    f"and inside [0, {self.frames})"
                )
            last_end = end

    def labels(self) -> npt.NDArray[np.bool_]:
        """(frames,) true where anomalous."""
        labels = np.zeros(self.frames, np.bool_)
        for start, end in self.anomalous:
            labels[start:end] = True
        return labels

    def overlaps(self, first_frame: int, end_frame: int) -> bool:
        """Whether any frame of [first_frame, end_frame) is anomalous."""
        return any(start < end_frame and first_frame < end for start, end in self.anomalous)


def load_truth(path: Path) -> dict[str, ClipTruth]:
    """Read a ground-truth file.

    Returns:
        Truth by clip, its name relative to the file's folder and inside it.

    Raises:
        TruthError: not JSON, or a clip's name or entry does not make sense.
    """
    try:
        content = json.loads(path.read_bytes(), object_pairs_hook=_without_twins)
    except (OSError, ValueError, RecursionError) as error:
        reason = one_line(getattr(error, "strerror", None) or str(error))
        raise TruthError(f"{path} cannot be read as JSON ({reason}); mend it") from None
    if not isinstance(content, dict):
        raise TruthError(f"{path} must be an object of clips by name, got {type(content).__name__}")
    return {name: _clip(path, name, entry) for name, entry in content.items()}


def _without_twins(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object; of two equal keys the parser would drop one in silence."""
    content: dict[str, object] = {}
    for key, value in pairs:
        if key in content:
            raise ValueError(f"it has {one_line(key)} twice")
        content[key] = value
    return content


def _clip(path: Path, name: str, entry: object) -> ClipTruth:
    shown = one_line(name)
    if not _stays_inside(name):
        raise TruthError(
            f"{path} names {quoted(name)}, which is no plain path below its folder; "
            "give it as folder/clip.mp4"
        )
    if not isinstance(entry, dict):
        raise TruthError(f"{path}: {shown} must be an object, got {type(entry).__name__}")
    try:
        intervals = _intervals(entry["anomalous"])
        return ClipTruth(_whole(entry["frames"]), _rate(entry["fps"]), intervals)
    except KeyError as error:
        raise TruthError(f"{path}: {shown} lacks {error}; see README") from None
    except ValueError as error:
        raise TruthError(f"{path}: {shown}: {error}") from None


def _stays_inside(name: str) -> bool:
    """Whether a name is a relative path in its shortest form that a file could have."""
    place = PurePosixPath(name)
    if not place.parts or place.is_absolute() or ".." in place.parts:
        return False
    # A surrogate is half a letter; no file system takes it, nor a zero.
    return str(place) == name and not any("\ud800" <= c <= "\udfff" or c == "\0" for c in name)


def _intervals(value: object) -> tuple[tuple[int, int], ...]:
    pairs: list[Any] = value if isinstance(value, list) else [value]
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2:
            raise ValueError(f"anomalous ({quoted(value)}) must be a list of [start, end]")
    return tuple((_whole(start), _whole(end)) for start, end in pairs)


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{quoted(value)} must be a whole number of frames")
    return value


def _rate(value: object) -> float:
    # A whole number of hundreds of digits is no float: it is held back here, not converted.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1000:
        raise ValueError(f"fps ({quoted(value)}) must be a number over 0 and at most 1000")
    return float(value)
