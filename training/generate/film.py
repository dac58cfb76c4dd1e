"""Frames to a video file that tells how it was made, and back to what it tells.

The same frames give the same bytes: one thread, and nothing of the time or of versions
of the muxer in the file.
"""

from __future__ import annotations

import hashlib
import io
import os
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.error
from pydantic import ValidationError

from server.contract import Image
from training.clips import TrainingError
from training.manifest import Generation
from training.recipe import Part

_CRF = "17"
"""Without visible loss: what a detector learns of should be the generator's, not the codec's."""

_SAME_BYTES = "mbtree=0:rc-lookahead=0"
"""x264's macroblock tree reads beside its pictures: with it the same frames gave up to 20
different files in 60 tries, of 64x96 and of 480x720 pixels; without it always one."""

_LARGEST_CLOCK = 1001


class Note(Part):
    """What a video's file tells of itself, with which it can be made again.

    No label: that stands in the manifest alone, so that nothing can contradict it.

    Attributes:
        id: of the video.
        description: what was asked for.
        seed: of the first noise.
        generation: by what, and how.
    """

    id: str
    description: str
    seed: int
    generation: Generation


@dataclass(frozen=True, slots=True)
class Film:
    """A finished video.

    Attributes:
        note: what it tells.
        frames: that it has.
        sha256: of the file.
        size: bytes.
    """

    note: Note
    frames: int
    sha256: str
    size: int


def encode(images: Image, note: Note) -> bytes:
    """H.264 in mp4.

    Args:
        images: (F, H, W, 3) RGB; H and W even.
        note: goes into the file's comment, as JSON.
    """
    held = io.BytesIO()
    options = {"crf": _CRF, "x264-params": _SAME_BYTES, "flags": "+bitexact"}
    with av.open(held, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        container.metadata["comment"] = note.model_dump_json()
        rate = Fraction(note.generation.fps).limit_denominator(_LARGEST_CLOCK)
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.height, stream.width = images.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1  # x264's choices depend on their number
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return held.getvalue()


def read_film(path: Path) -> Film:
    """What a file that `encode` made tells.

    Raises:
        TrainingError: it is no video, or tells nothing.
    """
    try:
        comment, frames = _head(path)
        note = Note.model_validate_json(comment)
        content = path.read_bytes()
    except ValidationError:
        raise _strange(path, "it holds no description") from None
    except (av.error.FFmpegError, OSError) as error:
        raise _strange(path, error.strerror or "it cannot be read") from None
    return Film(note, frames, hashlib.sha256(content).hexdigest(), len(content))


def _head(path: Path) -> tuple[str, int]:
    """The comment, and how many frames there are.

    FFmpeg would decode some to look at them, 20 ms a video, and it would read a name such
    as `12:30` or `cam%d` as more than a file's.
    """
    with path.open("rb") as file:
        options = {"fd": str(file.fileno()), "protocol_whitelist": "fd", "skip_frame": "all"}
        with av.open("fd:", options=options) as container:
            frames = sum(stream.frames for stream in container.streams.video)
            return container.metadata.get("comment", ""), frames


def _strange(path: Path, reason: str) -> TrainingError:
    return TrainingError(
        f"{path} was not made by generate, or is broken ({reason}); remove it or give another --out"
    )


def write_whole(path: Path, content: bytes, scratch: str) -> None:
    """Write a file under a scratch name, to the disk itself, and only then give it its own.

    Args:
        path: its final name.
        content: all of it.
        scratch: name in the same folder that no other process uses meanwhile.

    Raises:
        OSError: it cannot be written, as on a full disk; nothing is left then.
    """
    beside = path.with_name(scratch)
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
