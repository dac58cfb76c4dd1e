"""From lists to rows: what all published layouts have in common.

A label comes from a video's name; what a list or an annotation says of it must agree.
Nothing is read from a row's number or from the order of a list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from training.clips import TrainingError
from training.importers.annotations import read_truths
from training.importers.datasets import Layout
from training.importers.features import (
    Features,
    check_alike,
    feature_file,
    find_below,
    find_features,
    stack,
)
from training.importers.lists import ListFile, read_entries
from training.importers.options import ImportOptions
from training.importers.truths import Truth, settled
from training.importers.videos import Video, find_videos
from training.manifest import Row

Bar = Callable[[Sequence[Video]], Iterable[Video]]


def import_lists(
    layout: Layout, lists: Sequence[ListFile], options: ImportOptions, progress: Bar = iter
) -> list[Row]:
    """Rows of the videos that list files name, in the lists' order.

    Frames that nobody counted are those that the features' windows cover, 16 a window.
    A normal video has no anomalous frames; an anomalous one without annotation is
    unknown, and refused in a test split whose annotations are given. Feature files are
    written after all checks.

    Args:
        layout: of the dataset.
        lists: of every split.
        options: where features and annotations lie.
        progress: wraps the videos, while files are checked and again while they are written.

    Raises:
        TrainingError: a list that is missing or empty, a name that does not parse, a
            video twice or with two labels, a file that is missing, features that
            differ, an annotation that does not fit.
    """
    videos = find_videos(layout, read_entries(lists))
    features = [find_features(video.name, video.entries, options) for video in progress(videos)]
    check_alike([found for found in features if found])
    truths: Mapping[str, Truth] = {}
    if options.annotations is not None:
        names = [video.name for video in videos]
        truths = read_truths(options.annotations, layout.parse, names)
    both = list(zip(videos, features, strict=True))
    rows = [_row(video, found, _truth(video, truths, options), options) for video, found in both]
    for video, found in zip(progress(videos), features, strict=True):
        if found and not found.ready:
            stack(found, feature_file(video.name, found, options))
    return rows


def mark_kept(layout: Layout, rows: Sequence[Row], lists: Sequence[Path]) -> list[Row]:
    """Rows whose generated videos say whether a filter kept them.

    Args:
        layout: of the dataset.
        rows: of the full lists.
        lists: list files of what the filter left.

    Raises:
        TrainingError: such a list names no generated video, or one that no full list names.
    """
    entries = read_entries([ListFile(path, "train") for path in lists])
    kept = {video.name.id: video for video in find_videos(layout, entries) if video.name.synthetic}
    if not kept:
        raise TrainingError(f"{lists[0]} names no generated video; give the filtered list")
    strange = sorted(kept.keys() - {row.id for row in rows})
    if strange:
        raise TrainingError(
            f"{kept[strange[0]].where}: {strange[0]!r} was kept, but no full list names it; give "
            "the list from which the filter chose"
        )
    return [
        row.model_copy(update={"kept": row.id in kept}) if row.synthetic else row for row in rows
    ]


def _truth(video: Video, truths: Mapping[str, Truth], options: ImportOptions) -> Truth | None:
    name, found = video.name, truths.get(video.name.id)
    if found or name.label == "normal":
        return found or Truth(video.where)
    if options.annotations is not None and video.entry.split == "test":
        raise TrainingError(
            f"{video.where}: {options.annotations} says nothing of {name.id!r}, an anomalous test "
            "video; add its frames"
        )
    return None


def _row(video: Video, found: Features | None, truth: Truth | None, options: ImportOptions) -> Row:
    name, clip, captions = video.name, _clip(video, options), _captions(video, options)
    if found is None and clip is None:
        raise TrainingError(
            f"{video.where}: {name.id!r} is listed without features; give the folder of its "
            "features or of the videos"
        )
    frames = found.frames if found else None
    if truth is not None:
        truth = settled(name, truth, frames)
        frames = truth.frames
    try:
        return Row(
            id=name.id,
            label=name.label,
            source="synthetic" if name.synthetic else "real",
            group=name.group,
            split=video.entry.split,
            dataset=name.dataset,
            class_name=name.class_name,
            features=options.relative(feature_file(name, found, options)) if found else None,
            captions=options.relative(captions) if captions else None,
            video=options.relative(clip) if clip else None,
            encoder=options.encoder if found else None,
            frames=frames,
            fps=options.fps,
            anomalous=truth.intervals if truth else None,
            pair_id=name.pair_id,
        )
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise TrainingError(f"{video.where}: {key}: {first['msg']}; mend it") from None


def _clip(video: Video, options: ImportOptions) -> Path | None:
    entry = video.entry
    if options.videos is None or entry.is_array:
        return None
    file = find_below(options.videos, entry.path, entry.path.name)
    if file is None:
        raise TrainingError(
            f"{entry.where}: {entry.path} was expected in {options.videos} and is missing; give "
            "the folder of the videos"
        )
    return file


def _captions(video: Video, options: ImportOptions) -> Path | None:
    if options.captions is None:
        return None
    entry = video.entry
    base = f"{video.name.stem}{options.captions_suffix}"
    file = find_below(options.captions, entry.path, base)
    if file is None:
        raise TrainingError(
            f"{entry.where}: {base} was expected in {options.captions} and is missing; give the "
            "folder and the suffix of the sentence embeddings"
        )
    return file
