"""Annotation files and folders in the layouts in which they are published."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import numpy.typing as npt

from training.clips import TrainingError
from training.importers.lists import read_lines
from training.importers.names import Name
from training.importers.truths import Truth, ordered, truth_of_mask

Parse = Callable[[PurePosixPath], Name | None]

_NO_INTERVAL = (-1, -1)
_MATLAB_ENTRY = re.compile(r"TestVideoFile\{end\+1\}\.gt_frame\s*=\s*\[(?P<ranges>[^\]]*)\]")
_MATLAB_RANGE = re.compile(r"(\d+)\s*:\s*(\d+)")


def read_truths(path: Path, parse: Parse, names: Sequence[Name]) -> dict[str, Truth]:
    """Truth by row id, of whatever annotations there are.

    Args:
        path: a folder of masks by video: `NAME.npy`, one number a frame, or `NAME_gt`
            of bitmaps, one a frame; a `.m` file of UCSD; or lines of
            `name [class] [frames] start end start end ...`.
        parse: what a name says.
        names: videos in question.

    Raises:
        TrainingError: it cannot be read, contradicts a name, or intervals overlap.
    """
    if path.is_dir():
        found = {name.id: _read_masks(path, name) for name in names}
        return {key: truth for key, truth in found.items() if truth is not None}
    if path.suffix.lower() == ".m":
        return _read_matlab(path, parse)
    return _read_interval_lines(path, parse)


def _read_masks(folder: Path, name: Name) -> Truth | None:
    file, bitmaps = folder / f"{name.stem}.npy", folder / f"{name.stem}_gt"
    if file.exists():
        return truth_of_mask(str(file), _load(file))
    return _read_bitmaps(bitmaps) if bitmaps.is_dir() else None


def _load(file: Path) -> npt.NDArray[np.generic]:
    try:
        return np.asarray(np.load(file, allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise TrainingError(f"{file} cannot be read as .npy ({error}); mend it") from None


def _read_bitmaps(folder: Path) -> Truth:
    # An archive made on a Mac holds a hidden twin of every file.
    files = sorted(file for file in folder.glob("*.bmp") if not file.name.startswith("."))
    marked = []
    for file in files:
        image = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
        if image is None:
            raise TrainingError(f"{file} cannot be read as a bitmap; mend it")
        marked.append(bool(image.any()))
    return truth_of_mask(str(folder), np.array(marked, np.bool_))


def _read_matlab(path: Path, parse: Parse) -> dict[str, Truth]:
    """Truths of UCSD's `.m`, whose n-th assignment is of TestNNN; 1-based, last included."""
    truths: dict[str, Truth] = {}
    for where, line in read_lines(path):
        entry = _MATLAB_ENTRY.match(line)
        if entry is None:
            continue
        name = parse(PurePosixPath(f"Test{len(truths) + 1:03d}"))
        if name is None:
            raise TrainingError(f"{where}: only UCSD annotates in MATLAB; give lines of intervals")
        ranges = _MATLAB_RANGE.findall(entry["ranges"])
        pairs = [(int(first) - 1, int(last)) for first, last in ranges]
        truths[name.id] = Truth(where, ordered(where, pairs))
    if not truths:
        raise TrainingError(f"{path} assigns no gt_frame; give UCSD's own file")
    return truths


def _read_interval_lines(path: Path, parse: Parse) -> dict[str, Truth]:
    """Truths of lines of `name [class] [frames] start end start end ...`.

    -1 to -1 is no interval. Frame numbers are taken as they stand: `165 240` is frames
    165 to 239, counted from 0, as the published ground truth of UCF-Crime and
    XD-Violence uses them. If they count from 1 and include the last, every interval
    begins one frame late; that is below the annotators' precision.
    """
    truths: dict[str, Truth] = {}
    for where, line in read_lines(path):
        first, *columns = line.replace(",", " ").split()
        name = parse(PurePosixPath(first))
        if name is None:
            raise TrainingError(
                f"{where}: {first!r} is no name of the dataset; give the dataset's own annotations"
            )
        if name.id in truths:
            raise TrainingError(
                f"{where}: {name.id!r} stands there twice, first in {truths[name.id].where}; "
                "keep one line a video"
            )
        truths[name.id] = _truth_of_line(where, name, columns)
    if not truths:
        raise TrainingError(f"{path} annotates no video; one a line was expected")
    return truths


def _truth_of_line(where: str, name: Name, columns: list[str]) -> Truth:
    if columns and not columns[0].lstrip("-").isdigit():
        word = columns.pop(0)
        if not name.agrees(word):
            raise TrainingError(
                f"{where}: two labels, {word!r} for {name.id!r} whose name says {name.says}; "
                "mend one"
            )
    try:
        numbers = [int(column) for column in columns]
    except ValueError:
        raise TrainingError(
            f"{where}: frame numbers were expected, got {' '.join(columns)!r}; mend it"
        ) from None
    frames = numbers.pop(0) if len(numbers) % 2 else None
    if not numbers or (frames is not None and frames < 1):
        raise TrainingError(f"{where}: pairs of frame numbers were expected; mend it")
    pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
    intervals = ordered(where, [pair for pair in pairs if pair != _NO_INTERVAL])
    return Truth(where, intervals, frames)
