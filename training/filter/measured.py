"""Measurements at rest: a video is measured once by an encoder, on any worker."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from server.bundle import file_sha256
from server.ingest.video import SourceError
from training.clips import TrainingError
from training.crew import Crew
from training.encoders import EncoderChoice, WindowEncoder
from training.filter.footage import Footage, Sampling, measure
from training.filter.judging import Seen
from training.manifest import Row

FOLDER = "measured"

Job = tuple[str, Path]
"""A video's id, and where it is."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a worker needs to know.

    Attributes:
        folder: where measurements rest.
        choice: which encoder.
        sampling: how footage is looked at.
    """

    folder: Path
    choice: EncoderChoice
    sampling: Sampling

    def begin(self) -> Callable[[Job], str | None]:
        """Make a worker ready."""
        return self.using(self.choice.load())

    def using(self, encoder: WindowEncoder) -> Callable[[Job], str | None]:
        """The same with an encoder that is ready; a job's result is why it cannot be done."""
        return lambda job: self._measured(job[1], encoder)

    def path(self, video: Path, encoder_id: str) -> Path:
        """Where a video's measurement rests.

        Raises:
            OSError: the video cannot be read.
        """
        told = f"{file_sha256(video)} {encoder_id} {asdict(self.sampling)}"
        return self.folder / f"{hashlib.sha256(told.encode()).hexdigest()[:24]}.npz"

    def _measured(self, video: Path, encoder: WindowEncoder) -> str | None:
        try:
            path = self.path(video, encoder.id)
        except OSError as error:
            return f"{video} cannot be read ({error.strerror})"
        if _load(path) is None:
            try:
                footage = measure(video, encoder, self.sampling)
            except (SourceError, TrainingError) as error:
                return str(error)
            _save(path, footage)
        return None


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of many videos.

    Attributes:
        encoder: hash of all that decides a feature.
        seen: those that could be measured.
        skipped: why each other one could not, by id.
    """

    encoder: str
    seen: tuple[Seen, ...]
    skipped: dict[str, str]


def measure_all(
    videos: Sequence[tuple[Row, Path]], work: Work, crew: Crew, tick: Callable[[int], None]
) -> Measured:
    """Measure every video that is not at rest yet.

    Args:
        videos: rows, and where their videos are.
        work: with what, and where to.
        crew: who does it.
        tick: told how many more videos are done.

    Raises:
        TrainingError: no encoder.
    """
    work.folder.mkdir(parents=True, exist_ok=True)
    encoder = work.choice.load()  # a mistake is told before any worker starts
    jobs = [(row.id, path) for row, path in videos]
    begin = work.begin if not crew.is_alone else lambda: work.using(encoder)
    skipped: dict[str, str] = {}
    for index, reason in crew.share(begin, jobs):
        if reason is not None:
            skipped[videos[index][0].id] = reason
        tick(1)
    seen = []
    for row, path in videos:
        if row.id not in skipped:
            footage = _load(work.path(path, encoder.id))
            assert footage is not None
            seen.append(Seen(row, footage))
    return Measured(encoder.id, tuple(seen), skipped)


def _load(path: Path) -> Footage | None:
    try:
        with np.load(path, allow_pickle=False) as file:
            return Footage(file["features"], float(file["motion"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _save(path: Path, footage: Footage) -> None:
    scratch = path.with_name(f".{os.getpid()}.{path.name}")
    np.savez(scratch, features=footage.features, motion=np.float64(footage.motion))
    scratch.replace(path)
