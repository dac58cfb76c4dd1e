"""The folder of a run: what is done there, what failed, and what a killed run left.

A video is done if its file is there: it tells its description, seed and settings itself,
and there is no list beside it that could disagree.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from training.clips import TrainingError
from training.generate.backend import Backend
from training.generate.film import Film, Note, read_film, write_whole
from training.generate.generator import Order
from training.manifest import Generation, Row

VIDEOS = "videos"
MANIFEST = "manifest.jsonl"

_SCRATCH = re.compile(r"\.(?P<id>.+)\.(?:mp4|failed\.json)\.[0-9a-f]{8}\.part")
_BITS_PER_PIXEL = 1.0
"""Several times what H.264 takes for footage at this quality; pure noise takes seven."""

_SPARE_BYTES = 16 << 20

# Names and versions: they may change between videos without changing what is seen.
_FREE = {"backend", "model", "diffusers"}


@dataclass(frozen=True, slots=True)
class Shard:
    """One of several runs that share a folder, each with every `count`-th row."""

    index: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise TrainingError(f"--shard ({self}) must be i/n with 1 <= i <= n, as 1/4")

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def of(self, orders: Sequence[Order]) -> list[Order]:
        """Its part, by the place of a row in the file."""
        return list(orders[self.index - 1 :: self.count])


WHOLE = Shard()


@dataclass(frozen=True, slots=True)
class Folder:
    """Where videos go."""

    path: Path

    @property
    def manifest(self) -> Path:
        return self.path / MANIFEST

    def video(self, name: str) -> Path:
        return self.path / VIDEOS / f"{name}.mp4"

    @contextmanager
    def held(self, shard: Shard) -> Iterator[None]:
        """Keep a second run of the same shard out, until the block ends or the process dies.

        Raises:
            TrainingError: one is at work, or the folder cannot be made.
        """
        try:
            (self.path / VIDEOS).mkdir(parents=True, exist_ok=True)
            lock = (self.path / f".shard-{shard.index}-of-{shard.count}.lock").open("wb")
        except OSError as error:
            raise TrainingError(
                f"{self.path} cannot be written to ({error.strerror}); give another --out"
            ) from None
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise TrainingError(
                    f"another run makes the same videos in {self.path}; wait for it, or give "
                    "each run its --shard"
                ) from None
            yield

    def sweep(self, orders: Iterable[Order]) -> None:
        """Remove what killed runs left of these videos, and failures of those that are there."""
        names = {order.id for order in orders}
        for path in (self.path / VIDEOS).iterdir():
            left = _SCRATCH.fullmatch(path.name)
            if left and left["id"] in names:
                path.unlink(missing_ok=True)
        for name in names:
            if self.video(name).exists():
                self._failure(name).unlink(missing_ok=True)

    def films(self, orders: Iterable[Order], generation: Generation) -> dict[str, Film]:
        """The videos that are there, by id.

        Raises:
            TrainingError: one was made otherwise than it would be now.
        """
        there = {path.name for path in (self.path / VIDEOS).iterdir()}
        found = {}
        for order in orders:
            if f"{order.id}.mp4" in there:
                found[order.id] = film = read_film(self.video(order.id))
                _check_same(
                    film.note,
                    Note(
                        id=order.id,
                        description=order.description,
                        seed=order.seed,
                        generation=generation,
                    ),
                    self.video(order.id),
                )
        return found

    def in_turn(self, orders: Iterable[Order]) -> list[Order]:
        """As they come, those that failed before last, the longest ago first.

        So a few that always fail never keep the others from being made.
        """
        return sorted(orders, key=lambda order: self._failed_at(order.id))

    def _failed_at(self, name: str) -> float:
        try:
            return self._failure(name).stat().st_mtime
        except OSError:
            return 0.0

    def save(self, name: str, content: bytes) -> None:
        """Put a video under its name, whole, and forget that it failed before."""
        write_whole(self.video(name), content, _scratch(self.video(name)))
        self._failure(name).unlink(missing_ok=True)

    def save_failure(self, name: str, reason: str) -> None:
        """Keep why a video could not be made."""
        at = datetime.now(UTC).isoformat(timespec="seconds")
        path = self._failure(name)
        text = json.dumps({"reason": reason, "at": at}, ensure_ascii=False)
        write_whole(path, text.encode() + b"\n", _scratch(path))

    def _failure(self, name: str) -> Path:
        return self.path / VIDEOS / f"{name}.failed.json"

    def write_manifest(
        self, rows: Sequence[Row], orders: Sequence[Order], generation: Generation, shard: Shard
    ) -> list[Row]:
        """Rows of all videos that are there, of other shards too.

        It looks again after it wrote: where another shard finished a video meanwhile, either
        it or this one writes a manifest with that video after all others.
        """
        films: dict[str, Film] = {}
        while True:
            new = [order for order in orders if order.id not in films]
            films |= self.films(new, generation)
            made = [_with_film(row, films[row.id]) for row in rows if row.id in films]
            text = "".join(f"{row.to_line()}\n" for row in made)
            scratch = f".{MANIFEST}.{shard.index}-of-{shard.count}.part"
            write_whole(self.manifest, text.encode(), scratch)
            if not any(self.video(o.id).exists() for o in orders if o.id not in films):
                return made

    def check_space(self, missing: int, backend: Backend, films: Iterable[Film]) -> None:
        """Refuse to begin what the disk cannot hold.

        A video is taken to be as large as the largest so far.

        Raises:
            TrainingError: it cannot.
        """
        pixels = backend.frames * backend.height * backend.width
        each = max((film.size for film in films), default=int(pixels * _BITS_PER_PIXEL / 8))
        needed = missing * each + _SPARE_BYTES
        free = shutil.disk_usage(self.path).free
        if needed > free:
            raise TrainingError(
                f"{missing} videos of about {each / 1e6:.1f} MB need {needed / 1e6:.0f} MB in "
                f"{self.path} and {free / 1e6:.0f} MB are free; free some, or give another --out"
            )


def _scratch(path: Path) -> str:
    """A name that `_SCRATCH` knows; by chance, for a worker of a killed run may still write."""
    return f".{path.name}.{secrets.token_hex(4)}.part"


def _with_film(row: Row, film: Film) -> Row:
    generation = film.note.generation
    # What a row told of another video, one that it may have had before, is dropped.
    of_before = {"features": None, "captions": None, "spans": None, "anomalous": None}
    return row.model_copy(
        update=of_before
        | {
            "encoder": None,
            "whole_first": False,
            "source": "synthetic",
            "video": f"{VIDEOS}/{row.id}.mp4",
            "video_sha256": film.sha256,
            "frames": film.frames,
            "fps": generation.fps,
            "seed": film.note.seed,
            "generation": generation,
        }
    )


def _check_same(found: Note, asked: Note, path: Path) -> None:
    before, now = _told(found), _told(asked)
    for name in before:
        if before[name] != now[name]:
            raise TrainingError(
                f"{path} was made with {name} {before[name][:80]} and {now[name][:80]} is asked "
                "for now; give another --out, or what it was begun with"
            )


def _told(note: Note) -> dict[str, str]:
    """All that decides what is seen, by name."""
    values = note.model_dump(exclude={"generation"}) | note.generation.model_dump(exclude=_FREE)
    return {
        name: json.dumps(value, sort_keys=True, ensure_ascii=False)
        for name, value in values.items()
    }


def is_safe_name(name: str) -> bool:
    """Whether an id can name a file everywhere."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", name) is not None


def writing_failed(error: OSError, folder: Path) -> TrainingError:
    """What is told where a file could not be written; see `write_whole`."""
    return TrainingError(
        f"{folder} cannot be written to ({os.strerror(error.errno or 0)}); what is finished is "
        "kept: mend that, or free some space, and the same command goes on"
    )
