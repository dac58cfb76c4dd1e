"""The files of evidence: `DIRECTORY/STREAM/ALERT.jpg` and `.mp4`, whole or absent.

A file is written under a scratch name, brought to the disk and renamed, so that
whoever finds it by its name finds all of it, after a power cut too. They show
people: nobody but their owner may read them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import BinaryIO

from server.streams import STREAM_ID

_ALERT_ID = re.compile(r"[0-9a-f]{16}")
_SCRATCH = ".part"


class EvidenceKind(Enum):
    """A file of evidence; the value is the end of its name."""

    SNAPSHOT = ".jpg"
    CLIP = ".mp4"


@dataclass(frozen=True, slots=True)
class KeptFiles:
    """What the directory holds of one alert.

    Attributes:
        stream_id: the stream.
        alert_id: the alert.
        sizes: bytes by kind; at least one.
        written_seconds: UTC at which the newest was written.
    """

    stream_id: str
    alert_id: str
    sizes: dict[EvidenceKind, int]
    written_seconds: float

    @property
    def size_bytes(self) -> int:
        """Of all its files."""
        return sum(self.sizes.values())


def evidence_path(directory: Path, stream_id: str, alert_id: str, kind: EvidenceKind) -> Path:
    """Where a file of evidence stands.

    Raises:
        ValueError: an id is none, and could lead out of the directory.
    """
    if not STREAM_ID.fullmatch(stream_id) or not _ALERT_ID.fullmatch(alert_id):
        raise ValueError(f"stream {stream_id!r} and alert {alert_id!r} must be ids")
    return directory / stream_id / f"{alert_id}{kind.value}"


def prepare(directory: Path) -> None:
    """Make the directory, for its owner alone, and clear it of what was left half written.

    Raises:
        OSError: it cannot be made.
    """
    directory.mkdir(0o700, parents=True, exist_ok=True)
    for scratch in directory.glob(f"*/.*{_SCRATCH}"):
        scratch.unlink(missing_ok=True)


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file that stands at `path` once the block has ended well, and not at all otherwise.

    Raises:
        OSError: it cannot be written.
    """
    scratch = scratch_of(path)
    path.parent.mkdir(0o700, exist_ok=True)
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC
        with os.fdopen(os.open(scratch, flags, 0o600), "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        scratch.rename(path)
    except BaseException:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def scratch_of(path: Path) -> Path:
    """The name of a file before it is whole."""
    return path.with_name(f".{path.name}{_SCRATCH}")


def kept_files(directory: Path) -> list[KeptFiles]:
    """What the directory holds, by alert; files of other names are nobody's evidence."""
    found: dict[tuple[str, str], list[tuple[EvidenceKind, os.stat_result]]] = {}
    for path in directory.glob("*/*"):
        if path.suffix not in _KINDS or not _ALERT_ID.fullmatch(path.stem):
            continue
        with suppress(FileNotFoundError):  # deleted meanwhile
            entry = (EvidenceKind(path.suffix), path.stat())
            found.setdefault((path.parent.name, path.stem), []).append(entry)
    return [
        KeptFiles(
            stream_id,
            alert_id,
            {kind: status.st_size for kind, status in entries},
            max(status.st_mtime for _, status in entries),
        )
        for (stream_id, alert_id), entries in found.items()
    ]


def files_of(directory: Path, stream_id: str, alert_id: str) -> KeptFiles | None:
    """What the directory holds of one alert."""
    entries: dict[EvidenceKind, os.stat_result] = {}
    for kind in EvidenceKind:
        with suppress(FileNotFoundError):
            entries[kind] = evidence_path(directory, stream_id, alert_id, kind).stat()
    if not entries:
        return None
    sizes = {kind: status.st_size for kind, status in entries.items()}
    return KeptFiles(
        stream_id, alert_id, sizes, max(status.st_mtime for status in entries.values())
    )


def discard_scratch(directory: Path, stream_id: str, alert_id: str) -> None:
    """Delete what was half written of an alert by somebody who is gone."""
    for kind in EvidenceKind:
        with suppress(OSError):  # it goes at the next start
            scratch_of(evidence_path(directory, stream_id, alert_id, kind)).unlink()


def delete_files(directory: Path, stream_id: str, alert_id: str) -> int:
    """Delete what there is of an alert, half written files too; returns how many files went.

    Raises:
        OSError: one cannot be deleted.
    """
    deleted = 0
    for kind in EvidenceKind:
        path = evidence_path(directory, stream_id, alert_id, kind)
        scratch_of(path).unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            path.unlink()
            deleted += 1
    return deleted


def _sync_directory(directory: Path) -> None:
    """Bring a directory's names to the disk."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


_KINDS = frozenset(kind.value for kind in EvidenceKind)
