"""Ground-truth files: which frames of which clips are anomalous.

`ground_truth.json` stands beside the clips: `{"name.mp4": {"frames": N, "fps": F,
"anomalous": [[start, end), ...]}}`, 0-based half-open frame intervals. Other keys
of a clip are other people's notes and are left alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

TRUTH_FILE = "ground_truth.json"


class TruthError(ValueError):
    """A ground-truth file that cannot be used; the message names file, clip and field."""


@dataclass(frozen=True, slots=True)
class ClipTruth:
    """Truth of one clip.

    Attributes:
        frames: frames of the clip, at least 1.
        fps: rate in Hz.
        anomalous: half-open frame intervals, ascending, inside the clip.
    """

    frames: int
    fps: float
    anomalous: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise ValueError(f"frames ({self.frames}) must be at least 1")
        if not 0 < self.fps <= 1000:
            raise ValueError(f"fps ({self.fps}) must be over 0 and at most 1000")
        last_end = 0
        for start, end in self.anomalous:
            if not last_end <= start < end <= self.frames:
                raise ValueError(
                    f"anomalous interval [{start}, {end}) must be ascending and inside "
                    f"[0, {self.frames})"
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
        Truth by clip, its name relative to the file's folder.

    Raises:
        TruthError: not JSON, or a clip's entry does not make sense.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise TruthError(f"{path} cannot be read as JSON ({error})") from None
    if not isinstance(content, dict):
        raise TruthError(f"{path} must be an object of clips by name, got {type(content).__name__}")
    return {name: _clip(path, name, entry) for name, entry in content.items()}


def _clip(path: Path, name: str, entry: object) -> ClipTruth:
    if not isinstance(entry, dict):
        raise TruthError(f"{path}: {name} must be an object, got {type(entry).__name__}")
    try:
        intervals = tuple((_whole(start), _whole(end)) for start, end in entry["anomalous"])
        return ClipTruth(_whole(entry["frames"]), float(entry["fps"]), intervals)
    except KeyError as error:
        raise TruthError(f"{path}: {name} lacks {error}; see README, Backtest") from None
    except (TypeError, ValueError, OverflowError) as error:
        raise TruthError(f"{path}: {name}: {error}") from None


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{value!r} must be a whole number of frames")
    return value
