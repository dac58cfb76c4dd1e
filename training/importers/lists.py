"""List files: a path a line, with or without columns behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from training.clips import Split, TrainingError
from training.importers.names import ENDINGS

_HEADER = "path,label"


@dataclass(frozen=True, slots=True)
class ListFile:
    """A list of videos.

    Attributes:
        path: of the list.
        split: where its videos belong.
    """

    path: Path
    split: Split


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a list.

    Attributes:
        where: list and line, for messages.
        path: as listed.
        split: of the list.
        label: what the line's last column says; None where it is a path alone.
    """

    where: str
    path: PurePosixPath
    split: Split
    label: str | None = None

    @property
    def is_array(self) -> bool:
        """Whether it names a feature file; otherwise it names a video."""
        return self.path.suffix.lower() == ".npy"


def read_lines(path: Path) -> list[tuple[str, str]]:
    """Lines that are not empty, each with where it stands.

    Raises:
        TrainingError: the file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"{path} cannot be read as text ({error}); mend its path") from None
    found = [(f"{path}, line {n}", line.strip()) for n, line in enumerate(lines, 1)]
    return [(where, line) for where, line in found if line]


def read_entries(lists: Sequence[ListFile]) -> list[Entry]:
    """Entries of list files, in order.

    A line is a path, `path,label` or a path and columns between blanks, the last of
    which is the label. A line that ends as a feature file or a video is a path as a
    whole, blanks included. The header `path,label` is left out.

    Raises:
        TrainingError: a list that cannot be read or that names no video.
    """
    entries: list[Entry] = []
    for file in lists:
        lines = read_lines(file.path)
        named = [line for line in lines if line[1].lower() != _HEADER]
        if not named:
            raise TrainingError(
                f"{file.path} names no video, so the {file.split} split is empty; one video a "
                "line was expected"
            )
        entries.extend(_entry(where, line, file.split) for where, line in named)
    return entries


def _entry(where: str, line: str, split: Split) -> Entry:
    if "," in line:
        columns = [column.strip() for column in line.split(",")]
    elif line.lower().endswith(ENDINGS):
        columns = [line]
    else:
        columns = line.split()
    path = PurePosixPath(columns[0].replace("\\", "/"))
    return Entry(where, path, split, columns[-1] or None if len(columns) > 1 else None)
