"""Feature files to bags: checked once, then read as segments or as contiguous windows.

A feature file is `.npy`: (n, D) of one view, or (n, N, D) of N crops, a row a
window in order. Published files keep the crops second; so do we.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.clips import TrainingError
from training.manifest import Manifest, Row

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Bag:
    """A video's features, still in their files.

    Attributes:
        row: of the manifest.
        features: (n, N, D) float32, memory-mapped.
        captions: (n, E) float32 sentence embeddings, or None.
    """

    row: Row
    features: Floats
    captions: Floats | None

    @property
    def windows(self) -> int:
        """How many there are."""
        return len(self.features)


@dataclass(frozen=True, slots=True)
class Contents:
    """What every bag of a run must hold.

    Attributes:
        encoder: what made the features; None accepts any, as long as it is one.
        captions: whether sentence embeddings are needed.
    """

    encoder: str | None = None
    captions: bool = False


def open_bags(
    manifest: Manifest,
    rows: Sequence[Row],
    contents: Contents,
    progress: Callable[[Sequence[Row]], Iterable[Row]] = iter,
) -> list[Bag]:
    """Open and check every feature file.

    Args:
        manifest: what `rows` are of.
        rows: videos to open.
        contents: what is needed.
        progress: wraps the rows, for a bar: every number is read once.

    Raises:
        TrainingError: a row without features, features of another encoder, a
            file that is missing or no `.npy`, another shape than the other
            files', numbers that are not finite.
    """
    bags: list[Bag] = []
    for row in progress(rows):
        _check_encoder(row, contents.encoder or rows[0].encoder)
        bag = _open_bag(manifest, row, captions=contents.captions)
        if bags:
            _check_alike(bag, bags[0])
        bags.append(bag)
    return bags


def _check_encoder(row: Row, expected: str | None) -> None:
    if row.encoder != expected:
        raise TrainingError(
            f"features of {row.id!r} are of encoder {row.encoder}, {expected} was expected; "
            "extract them again with one encoder"
        )


def _open_bag(manifest: Manifest, row: Row, *, captions: bool) -> Bag:
    if row.features is None:
        raise TrainingError(f"{row.id!r} has no features in {manifest.path}; extract them first")
    path = manifest.file(row.features)
    features = _open_array(path)
    if features.ndim == 2:
        features = features[:, None]
    if features.ndim != 3 or 0 in features.shape:
        raise TrainingError(
            f"{path} must be (windows, D) or (windows, crops, D), got {features.shape}"
        )
    if not captions:
        return Bag(row, features, None)
    if row.captions is None:
        raise TrainingError(f"{row.id!r} has no captions in {manifest.path}; the recipe needs them")
    path = manifest.file(row.captions)
    texts = _open_array(path)
    if texts.ndim == 3 and texts.shape[1] == 1:
        texts = texts[:, 0]
    if texts.ndim != 2 or len(texts) != len(features):
        raise TrainingError(
            f"{path} must be ({len(features)}, E), a sentence embedding a window, got {texts.shape}"
        )
    return Bag(row, features, texts)


def _open_array(path: Path) -> Floats:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise TrainingError(f"{path} cannot be read as .npy ({error})") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        raise TrainingError(f"{path} must hold one array of floats")
    if not np.isfinite(array).all():
        raise TrainingError(f"{path} holds numbers that are not finite; extract it again")
    return np.asarray(array, np.float32)


def _check_alike(bag: Bag, first: Bag) -> None:
    if bag.features.shape[1:] != first.features.shape[1:]:
        raise TrainingError(
            f"features of {bag.row.id!r} are (crops, D) = {bag.features.shape[1:]}, those of "
            f"{first.row.id!r} {first.features.shape[1:]}; all files must be of one encoder and "
            "one number of crops"
        )
    if bag.row.whole_first != first.row.whole_first:
        raise TrainingError(
            f"{bag.row.id!r} and {first.row.id!r} differ in whole_first; extract them alike"
        )
    if bag.captions is not None and first.captions is not None:
        width, expected = bag.captions.shape[1], first.captions.shape[1]
        if width != expected:
            raise TrainingError(
                f"captions of {bag.row.id!r} have {width} numbers, {expected} were expected"
            )


def feed_digest(digest: hashlib._Hash, bags: Iterable[Bag]) -> None:
    """Add to a hash which videos there are and of which features.

    A file counts by its length, first and last window: reading all of it again would take
    minutes, and features that are made anew differ there as well.
    """
    for bag in bags:
        digest.update(bag.row.to_line().encode())
        for array in (bag.features, *(() if bag.captions is None else (bag.captions,))):
            digest.update(f"{array.shape}".encode() + array[0].tobytes() + array[-1].tobytes())


def segments(windows: Floats, count: int) -> Floats:
    """A video as equal parts: mean inside each, the nearest window where a part is empty.

    Args:
        windows: (n, ...) of a whole video, n >= 1.
        count: T, parts.

    Returns:
        (T, ...) float32.

    Source: Sultani et al. 2018 (arXiv:1801.04264), as LAP and RTFM read features.
    """
    cuts = np.linspace(0, len(windows), count + 1).astype(np.int64)
    starts = np.minimum(cuts[:-1], len(windows) - 1)
    lengths = np.maximum(cuts[1:] - cuts[:-1], 1)
    if len(windows) < count:
        return np.asarray(windows[starts], np.float32)
    sums = np.add.reduceat(np.asarray(windows, np.float64), starts)
    shape = (-1,) + (1,) * (windows.ndim - 1)
    means: Floats = (sums / lengths.reshape(shape)).astype(np.float32)
    return means


def stretched(windows: int, count: int) -> npt.NDArray[np.int64]:
    """(T,) Indices that repeat `windows` items evenly until there are `count`.

    A video shorter than the context is scored window by window, and its scores are
    stretched as its segments would be: its top T/10 is still a tenth of it.
    """
    return np.arange(count, dtype=np.int64) * windows // count
