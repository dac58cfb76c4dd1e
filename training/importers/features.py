"""Feature files: found by name, checked against each other, stacked where one view is a file.

A row has one feature file, (n, D) or (n, crops, D). Where a dataset has a file a crop,
or keeps crops first, one such file is written below the manifest's folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
from numpy.lib.format import open_memmap

from server.contract import WINDOW_FRAMES
from training.clips import Split, TrainingError
from training.importers.lists import Entry
from training.importers.names import Name, without_ending
from training.importers.options import ImportOptions

STACKED_FOLDER = "stacked"

Array = npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Features:
    """Features of one video, still in their files.

    Attributes:
        where: line of the list that names them.
        split: of that list.
        files: one, or one a crop in order.
        windows: n.
        crops: views; None where the file is (n, D).
        width: D.
        crops_first: the one file is (crops, n, D).
    """

    where: str
    split: Split
    files: tuple[Path, ...]
    windows: int
    crops: int | None
    width: int
    crops_first: bool

    @property
    def ready(self) -> bool:
        """Whether the one file is as a row's must be."""
        return len(self.files) == 1 and not self.crops_first

    @property
    def frames(self) -> int:
        """As many as its windows cover."""
        return self.windows * WINDOW_FRAMES

    @property
    def shape(self) -> tuple[int, int, int]:
        """(n, crops, D) as stacked."""
        return self.windows, self.crops or 1, self.width


def find_features(name: Name, entries: Sequence[Entry], options: ImportOptions) -> Features | None:
    """The feature files of one video, their headers read.

    Args:
        name: of the video.
        entries: lines that name it, one, or one a crop in order.
        options: folder, suffix and order of axes.

    Returns:
        None where a video is listed and no feature folder is given.

    Raises:
        TrainingError: a file is missing, no array of floats or of another shape.
    """
    files = _files(name, entries, options)
    if not files:
        return None
    where, split = entries[0].where, entries[0].split
    shapes = {_header(where, file).shape for file in files}
    shape = shapes.pop()
    if len(files) > 1:
        if shapes or len(shape) != 2 or 0 in shape:
            raise TrainingError(
                f"{where}: {len(files)} crops of {name.id!r} must be files of one shape "
                "(windows, D); extract them alike"
            )
        return Features(where, split, files, shape[0], len(files), shape[1], crops_first=False)
    if len(shape) not in (2, 3) or 0 in shape:
        raise TrainingError(
            f"{where}: {files[0]} must be (windows, D) or (windows, crops, D), got {shape}; "
            "give feature files"
        )
    if len(shape) == 2:
        return Features(where, split, files, shape[0], None, shape[1], crops_first=False)
    crops, windows = shape[:2] if options.crops_first else shape[1::-1]
    return Features(where, split, files, windows, crops, shape[2], options.crops_first)


def check_alike(found: Sequence[Features]) -> None:
    """Refuse what cannot be trained on together.

    A published test list may name one crop where the training list names ten, so
    crops are compared inside a split.

    Raises:
        TrainingError: features differ in width, or those of a split in crops.
    """
    firsts: dict[Split, Features] = {}
    for each in found:
        first = firsts.setdefault(each.split, each)
        if each.width != found[0].width:
            raise TrainingError(
                f"{each.where}: {each.files[0]} has {each.width} numbers a window, "
                f"{found[0].width} were expected as in {found[0].where}; give features of one "
                "encoder"
            )
        if each.crops != first.crops:
            raise TrainingError(
                f"{each.where}: {each.files[0]} has {each.crops or 'no'} crops, "
                f"{first.crops or 'none'} were expected as in {first.where}; extract them alike, "
                "or give --crops-first where files are (crops, windows, D)"
            )


def feature_file(name: Name, found: Features, options: ImportOptions) -> Path:
    """The one file that a row can name: as published, or below the manifest's folder."""
    if found.ready:
        return found.files[0]
    folder = (options.features or found.files[0].parent).name
    return options.output / STACKED_FOLDER / folder / f"{name.id}.npy"


def stack(found: Features, target: Path) -> None:
    """Write (n, crops, D); a file that holds the same already is kept.

    Crops are copied one by one through a memory map under a scratch name, so that the
    file is there whole or not at all.

    Raises:
        TrainingError: a file can no longer be read.
    """
    views = list(_views(found))
    if target.exists() and _holds(target, found, views):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(f".{target.name}")
    try:
        whole = open_memmap(scratch, mode="w+", dtype=views[0].dtype, shape=found.shape)
        for crop, view in enumerate(views):
            whole[:, crop] = view
        whole.flush()
        scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)


def find_below(folder: Path, listed: PurePosixPath, base: str) -> Path | None:
    """A file by its listed path, its folder and name, or its name, below a folder."""
    relative = () if listed.is_absolute() else listed.parent.parts
    for parts in (relative, (listed.parent.name,), ()):
        file = folder.joinpath(*parts, base)
        if file.exists():
            return file
    return None


def _files(name: Name, entries: Sequence[Entry], options: ImportOptions) -> tuple[Path, ...]:
    if options.features is None:
        return tuple(_as_listed(entry) for entry in entries if entry.is_array)
    # A suffix names all that a video has, however many lines list it.
    listed = entries if options.feature_suffix is None else entries[:1]
    return tuple(
        file for entry in listed for file in _files_below(options.features, name, entry, options)
    )


def _files_below(folder: Path, name: Name, entry: Entry, options: ImportOptions) -> list[Path]:
    """One file, or those of all crops."""
    base = entry.path.name if entry.is_array else f"{name.stem}.npy"
    if options.feature_suffix is not None:
        base = f"{name.stem}{options.feature_suffix}"
    file = find_below(folder, entry.path, base)
    if file is not None:
        return [file]
    found = _crops(folder, entry.path, (without_ending(PurePosixPath(base)), name.stem))
    if not found:
        raise TrainingError(
            f"{entry.where}: {base} was expected in {folder} and is missing; give the folder "
            "that holds it, or the suffix that its name has there"
        )
    return found


def _as_listed(entry: Entry) -> Path:
    file = Path(entry.path)
    if not file.exists():
        raise TrainingError(
            f"{entry.where}: {file} is missing; give the folder that holds the feature files here"
        )
    return file


def _crops(folder: Path, listed: PurePosixPath, stems: tuple[str, ...]) -> list[Path]:
    for stem in stems:
        for mark in ("__", "_"):
            found: list[Path] = []
            while file := find_below(folder, listed, f"{stem}{mark}{len(found)}.npy"):
                found.append(file)
            if found:
                return found
    return []


def _header(where: str, file: Path) -> Array:
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise TrainingError(f"{where}: {file} cannot be read as .npy ({error}); mend it") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        raise TrainingError(f"{where}: {file} must hold one array of floats; give feature files")
    return array


def _views(found: Features) -> Iterator[Array]:
    """(n, D) of each crop in order."""
    arrays = [_header(found.where, file) for file in found.files]
    return iter(arrays[0] if found.crops_first else arrays)


def _holds(target: Path, found: Features, views: Sequence[Array]) -> bool:
    """Whether a file written earlier is of these features, by its shape and both its ends."""
    whole = _header(found.where, target)
    ends = [0, -1]
    return whole.shape == found.shape and all(
        np.array_equal(whole[ends, crop], view[ends]) for crop, view in enumerate(views)
    )
