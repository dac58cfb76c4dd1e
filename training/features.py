"""Extract: videos to features at rest, resumable to the video.

A video becomes one `.npy` of (windows, D), or (windows, 11, D) with crops, which
training maps into memory, and one of the frames that each window covers. Both are
named by the video's hash and the encoder, so what is there already is kept, and a
changed video or encoder makes new ones.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from server.bundle import file_sha256
from server.contract import Feature, Image
from server.ingest.video import SourceError, decode_file, open_file
from server.preprocess import Preprocessor, PreprocessSpec
from server.windows import SourceFrame, Window, WindowAssembler
from training.clips import TrainingError
from training.crew import Crew
from training.encoders import EncoderChoice, WindowEncoder
from training.manifest import MANIFEST as MANIFEST
from training.manifest import Row, rebased, write_manifest

FEATURES = "features"
SKIPPED = "skipped.json"

CROPS = 10
_BATCH = 8
_CROP_SHARE = 8 / 7
"""Pictures that crops are taken from, in relation to the model's: 256 to 224, as published."""

ALONE = Crew()

Spans = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Extracted:
    """What came of a video.

    Attributes:
        sha256: of the file.
        name: beginning of its files' names.
        frames: that it has.
        reason: why there are no features, in a sentence; None where there are.
    """

    sha256: str = ""
    name: str = ""
    frames: int = 0
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """What a worker needs to know.

    Attributes:
        folder: where features go.
        choice: which encoder.
        crops: whether crops are encoded beside the whole picture.
    """

    folder: Path
    choice: EncoderChoice
    crops: bool = False

    def begin(self) -> Callable[[Job], Extracted]:
        """Make a worker ready."""
        return self.using(self.choice.load())

    def using(self, encoder: WindowEncoder) -> Callable[[Job], Extracted]:
        """The same with an encoder that is ready."""
        return lambda job: _extracted(*job, self, encoder)


Job = tuple[Row, Path]
"""A video, and where it is."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an extraction left.

    Attributes:
        manifest: rows with features, of the videos that have some.
        rows: how many.
        skipped: why each other video has none, by id.
    """

    manifest: Path
    rows: int
    skipped: dict[str, str]


def extract(
    rows: Sequence[Row],
    base: Path,
    work: Work,
    crew: Crew = ALONE,
    tick: Callable[[str], None] = lambda name: None,
) -> Outcome:
    """Make features of every video that has none yet; one that cannot be read is skipped.

    Rows that name features of this very video and encoder keep them where they are.

    Args:
        rows: videos.
        base: folder that their paths are relative to.
        work: with what, and where to.
        crew: who does it.
        tick: called with each video's id once it is done.

    Raises:
        TrainingError: a row without a video, no encoder, or no video that can be used.
    """
    for row in rows:
        if row.video is None:
            raise TrainingError(f"{row.id!r} has no video to extract features from")
    (work.folder / FEATURES).mkdir(parents=True, exist_ok=True)
    encoder = work.choice.load()  # a mistake is told before any worker starts
    at_rest = {row.id for row in rows if _is_extracted(row, base, work, encoder)}
    for name in sorted(at_rest):
        tick(name)
    left = [row for row in rows if row.id not in at_rest]
    found: dict[str, Extracted] = {}
    jobs = [(row, (base / str(row.video)).absolute()) for row in left]
    begin = work.begin if not crew.is_alone else lambda: work.using(encoder)
    for index, extracted in crew.share(begin, jobs):
        found[left[index].id] = extracted
        tick(left[index].id)
    usable = [
        rebased(row, base, work.folder)
        if row.id in at_rest
        else _with_features(row, found[row.id], base, work, encoder)
        for row in rows
        if row.id in at_rest or found[row.id].reason is None
    ]
    skipped = {row.id: str(found[row.id].reason) for row in left if found[row.id].reason}
    (work.folder / SKIPPED).write_text(json.dumps(skipped, indent=1) + "\n")
    if not usable:
        first = next(iter(skipped.values()))
        raise TrainingError(f"none of {len(rows)} videos can be used; the first: {first}")
    write_manifest(work.folder / MANIFEST, usable)
    return Outcome(work.folder / MANIFEST, len(usable), skipped)


def _is_extracted(row: Row, base: Path, work: Work, encoder: WindowEncoder) -> bool:
    if row.encoder != encoder.id or row.whole_first != work.crops:
        return False
    files = [base / str(name) for name in (row.video, row.features, row.spans)]
    if not all(file.is_file() for file in files):
        return False
    return file_sha256(files[0]) == row.video_sha256


def _with_features(
    row: Row, found: Extracted, base: Path, work: Work, encoder: WindowEncoder
) -> Row:
    video = os.path.relpath(base / str(row.video), work.folder)
    return row.model_copy(
        update={
            "features": f"{FEATURES}/{found.name}.npy",
            "spans": f"{FEATURES}/{found.name}.spans.npy",
            "whole_first": work.crops,
            "video": video,
            "video_sha256": found.sha256,
            "encoder": encoder.id,
            "frames": found.frames,
        }
    )


def _extracted(row: Row, path: Path, work: Work, encoder: WindowEncoder) -> Extracted:
    try:
        sha256 = file_sha256(path)
    except OSError as error:
        return Extracted(reason=f"{path} cannot be read ({error.strerror})")
    key = hashlib.sha256(f"{sha256} {encoder.id} {work.crops}".encode()).hexdigest()[:24]
    folder = work.folder / FEATURES
    if not (folder / f"{key}.npy").is_file():
        try:
            features, spans, frames = encode_video(path, encoder, crops=work.crops)
        except (SourceError, TrainingError) as error:
            return Extracted(sha256, reason=str(error))
        # The features come last: where they are, all is there.
        _save(folder / f"{key}.frames.json", json.dumps(frames).encode())
        _save_array(folder / f"{key}.spans.npy", spans)
        _save_array(folder / f"{key}.npy", features)
    frames = int(json.loads((folder / f"{key}.frames.json").read_bytes()))
    last = row.anomalous[-1][1] if row.anomalous else 0
    if last > frames:
        reason = f"{path} has {frames} frames, but its truth ends at frame {last}"
        return Extracted(sha256, reason=reason)
    return Extracted(sha256, key, frames)


def encode_video(path: Path, encoder: WindowEncoder, *, crops: bool) -> tuple[Feature, Spans, int]:
    """A video's windows, as the server cuts them.

    Returns:
        (n, D), or (n, 11, D) with crops; (n, 2) first and end frame of each window; frames.

    Raises:
        SourceError: it cannot be read as video, or breaks off.
        TrainingError: it is shorter than a window.
    """
    frames, encoding = 0, _Encoding(encoder, crops=crops)
    with open_file(path) as container:
        for frame in decode_file(container, str(path)):
            frames += 1
            encoding.push(frame)
    encoding.finish()
    if not encoding.features:
        raise TrainingError(f"{path} has {frames} frames, too few for a window of 16")
    return np.concatenate(encoding.features), np.array(encoding.spans, np.int64), frames


class _Encoding:
    """Frames of one video to features, a few windows at a time."""

    def __init__(self, encoder: WindowEncoder, *, crops: bool) -> None:
        self.features: list[Feature] = []
        self.spans: list[tuple[int, int]] = []
        self._encoder = encoder
        sizes = [encoder.preprocess] + ([_enlarged(encoder.preprocess)] if crops else [])
        self._assemblers = [WindowAssembler(encoder.window, Preprocessor(size)) for size in sizes]
        self._waiting: list[list[Window]] = [[] for _ in sizes]

    def push(self, frame: SourceFrame[av.VideoFrame]) -> None:
        for waiting, assembler in zip(self._waiting, self._assemblers, strict=True):
            waiting += assembler.push(frame)
        if len(self._waiting[0]) >= _BATCH:
            self._encode()

    def finish(self) -> None:
        for waiting, assembler in zip(self._waiting, self._assemblers, strict=True):
            waiting += assembler.finish()
        if self._waiting[0]:
            self._encode()

    def _encode(self) -> None:
        whole, *larger = (
            np.stack([window.images for window in waiting]) for waiting in self._waiting
        )
        self.spans += [(window.first_frame, window.end_frame) for window in self._waiting[0]]
        seen = [self._encoder.encode(whole)]
        for images in larger:
            seen += [self._encoder.encode(v) for v in _crops(images, self._encoder.preprocess)]
        self.features.append(np.stack(seen, 1) if larger else seen[0])
        for waiting in self._waiting:
            waiting.clear()


def _enlarged(size: PreprocessSpec) -> PreprocessSpec:
    return replace(
        size, height=round(size.height * _CROP_SHARE), width=round(size.width * _CROP_SHARE)
    )


def _crops(windows: Image, size: PreprocessSpec) -> Iterable[Image]:
    """Corners and centre of (B, S, H', W', 3), then their mirror images: ten views."""
    spare = (windows.shape[2] - size.height, windows.shape[3] - size.width)
    corners = [(0, 0), (0, 1), (1, 0), (1, 1), (0.5, 0.5)]
    for mirrored in (False, True):
        for down, right in corners:
            top, left = int(down * spare[0]), int(right * spare[1])
            view = windows[:, :, top : top + size.height, left : left + size.width]
            yield np.ascontiguousarray(view[:, :, :, ::-1] if mirrored else view)


def _save_array(path: Path, array: npt.NDArray[np.float32] | Spans) -> None:
    scratch = path.with_name(f".{os.getpid()}.{path.name}")
    np.save(scratch, array)
    scratch.replace(path)


def _save(path: Path, content: bytes) -> None:
    scratch = path.with_name(f".{os.getpid()}.{path.name}")
    scratch.write_bytes(content)
    scratch.replace(path)
