"""From lines to videos: each once, in one split, under one label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from training.clips import TrainingError
from training.importers.datasets import Layout
from training.importers.lists import Entry
from training.importers.names import Name


@dataclass(frozen=True, slots=True)
class Video:
    """A video and the lines that name it: one, or one a crop in order."""

    name: Name
    entries: tuple[Entry, ...]

    @property
    def entry(self) -> Entry:
        """The first of its lines."""
        return self.entries[0]

    @property
    def where(self) -> str:
        """List and line, for messages."""
        return self.entry.where


def find_videos(layout: Layout, entries: Sequence[Entry]) -> list[Video]:
    """The videos that lines name, in their order.

    Raises:
        TrainingError: a name that does not parse or that another label contradicts, a
            video that is listed twice or in two splits.
    """
    lines: dict[str, dict[int | None, tuple[Name, Entry]]] = {}
    for entry in entries:
        name = _name(layout, entry)
        crops = lines.setdefault(name.id, {})
        if crops:
            _check_again(name, entry, crops)
        crops[name.crop] = name, entry
    return [_video(list(crops.values())) for crops in lines.values()]


def _name(layout: Layout, entry: Entry) -> Name:
    name = layout.parse(entry.path)
    if name is None:
        raise TrainingError(
            f"{entry.where}: {entry.path.name!r} is no name of the dataset; expected one like "
            f"{layout.example}"
        )
    if entry.label is not None and not name.agrees(entry.label):
        raise TrainingError(
            f"{entry.where}: two labels, {entry.label!r} for {name.id!r} whose name says "
            f"{name.says}; mend one"
        )
    return name


def _check_again(name: Name, entry: Entry, crops: dict[int | None, tuple[Name, Entry]]) -> None:
    """Only another crop in the same split may name a video again."""
    _, first = next(iter(crops.values()))
    if first.split != entry.split:
        raise TrainingError(
            f"{entry.where}: {name.id!r} is in the {entry.split} split and, by {first.where}, in "
            f"the {first.split} split; take it out of one"
        )
    if name.crop in crops or None in (name.crop, *crops):
        raise TrainingError(
            f"{entry.where}: {name.id!r} is listed twice, first in {first.where}; keep one"
        )


def _video(lines: list[tuple[Name, Entry]]) -> Video:
    lines.sort(key=lambda line: line[0].crop or 0)
    return Video(lines[0][0], tuple(entry for _, entry in lines))
