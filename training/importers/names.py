"""What a published name says of its video: label, class, group, crop."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

Label = Literal["normal", "anomalous"]

ENDINGS = (".npy", ".mp4", ".avi", ".mkv")

_WORDS: dict[str, tuple[str, ...]] = {
    "normal": ("normal", "0"),
    "anomalous": ("anomalous", "abnormal", "anomaly", "1"),
}

_REST = re.compile(r"(?:_[A-Za-z][A-Za-z0-9-]*)*(?:__?(?P<crop>\d{1,2}))?")
"""What may stand behind a video's name: encoder or view in words, then a crop's number."""


@dataclass(frozen=True, slots=True)
class Name:
    """One video, as its name tells of it.

    Attributes:
        id: of the row.
        stem: the video's name as it begins its files' names.
        label: of the whole video.
        group: camera or recording.
        dataset: where it comes from.
        class_name: kind of anomaly.
        code: the label as the dataset writes it, where it has a code for it.
        pair_id: of a generated video: joins two descriptions of one scene.
        crop: number of the view that the file holds; None where it holds all.
    """

    id: str
    stem: str
    label: Label
    group: str
    dataset: str
    class_name: str = ""
    code: str = ""
    pair_id: str | None = None
    crop: int | None = None

    @property
    def synthetic(self) -> bool:
        """Whether a generator made it."""
        return self.pair_id is not None

    @property
    def says(self) -> str:
        """Its label in words, for messages."""
        return self.class_name or self.label

    def agrees(self, word: str) -> bool:
        """Whether a label that a list or an annotation gives is this video's."""
        known = (*_WORDS[self.label], self.class_name.lower(), self.code.lower())
        return word.lower() in known


@dataclass(frozen=True, slots=True)
class Naming:
    """How a dataset names its videos.

    Attributes:
        dataset: where they come from.
        pattern: of a video's name. Where its group `anomalous` takes part, so is the video;
            `kind` stands for its class, `code` for its label, `group` for its camera or
            recording, without which every video is a recording of its own.
        classes: class by kind; a kind that is not there is the class.
    """

    dataset: str
    pattern: re.Pattern[str]
    classes: Mapping[str, str] = field(default_factory=dict)

    def parse(self, path: PurePosixPath) -> Name | None:
        """What a file's name says; None where it is no name of the dataset."""
        matched = match_name(self.pattern, path)
        if matched is None:
            return None
        found, crop = matched
        parts = {key: part or "" for key, part in found.groupdict().items()}
        stem, kind = found[0], parts.get("kind", "")
        return Name(
            id=stem,
            stem=stem,
            label="anomalous" if parts["anomalous"] else "normal",
            group=f"{self.dataset}/{parts.get('group') or stem}",
            dataset=self.dataset,
            class_name=self.classes.get(kind, kind),
            code=parts.get("code", ""),
            crop=crop,
        )


def without_ending(path: PurePosixPath) -> str:
    """A file's name without `.npy` or a video's ending; titles hold dots of their own."""
    return path.stem if path.suffix.lower() in ENDINGS else path.name


def match_name(
    pattern: re.Pattern[str], path: PurePosixPath
) -> tuple[re.Match[str], int | None] | None:
    """A file's name split into its video's name and its crop.

    Args:
        pattern: of the video's name.
        path: as listed.

    Returns:
        The match and the crop's number, if any; None where the name is another.
    """
    base = without_ending(path)
    found = pattern.match(base)
    rest = _REST.fullmatch(base, found.end()) if found else None
    if found is None or rest is None:
        return None
    return found, None if rest["crop"] is None else int(rest["crop"])
