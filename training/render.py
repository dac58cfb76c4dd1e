"""Render: clips to rendered frames at rest, resumable clip by clip.

A clip at rest is all its frames at model size with their times. Windows are
cut from it by the server's own assembler, at the clip's beginning as in
service, or later as a camera would that was switched on later.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import av.error
import numpy as np
import numpy.typing as npt

from server.bundle import file_sha256
from server.contract import Image, WindowSpec
from server.ingest.video import SourceError, decode, open_file, video_stream
from server.preprocess import Preprocessor, PreprocessSpec
from server.windows import SourceFrame, Window, WindowAssembler
from training.clips import Clip, TrainingError, find_mates

INDEX = "windows.json"


@dataclass(frozen=True, slots=True)
class StoredClip:
    """One clip as extracted.

    Attributes:
        clip: its truth.
        sha256: of the video file.
        file: name of its frames under the run's windows; None where skipped.
        skipped: why it could not be used, in one sentence; None where it could.
    """

    clip: Clip
    sha256: str
    file: str | None
    skipped: str | None

    def to_json(self) -> dict[str, object]:
        content = asdict(self)
        content["clip"] = self.clip.to_json()
        return content


@dataclass(frozen=True, slots=True)
class Frames:
    """All frames of a clip.

    Attributes:
        images: (N, H, W, 3) uint8 RGB.
        pts_seconds: (N,) ascending.
    """

    images: Image
    pts_seconds: npt.NDArray[np.float64]

    def windows(self, spec: WindowSpec, late_seconds: float = 0.0) -> list[Window]:
        """Windows as the server cuts them, of a camera switched on `late_seconds` later."""
        assembler: WindowAssembler[Image] = WindowAssembler(spec, lambda image: image)
        if not len(self.pts_seconds):
            return []
        start = int(np.searchsorted(self.pts_seconds, self.pts_seconds[0] + late_seconds - 1e-3))
        found: list[Window] = []
        for index in range(start, len(self.images)):
            pts_seconds = float(self.pts_seconds[index])
            found += assembler.push(
                SourceFrame(self.images[index], index, pts_seconds, pts_seconds, pts_seconds)
            )
        return [*found, *assembler.finish()]


@dataclass(frozen=True, slots=True)
class Extraction:
    """A folder of extracted clips.

    Attributes:
        folder: where `windows.json` and the frames are.
        preprocess: how frames were rendered.
        clips: every clip that the ground truth names, by name, skipped ones too.
        mates: normal clips of the same scene as an anomalous clip, by its name.
    """

    folder: Path
    preprocess: PreprocessSpec
    clips: tuple[StoredClip, ...]
    mates: dict[str, tuple[str, ...]]

    @property
    def usable(self) -> list[StoredClip]:
        return [stored for stored in self.clips if stored.skipped is None]

    def frames(self, stored: StoredClip) -> Frames:
        """Read the frames of a clip that was not skipped."""
        assert stored.file is not None
        with np.load(self.folder / stored.file) as arrays:
            return Frames(arrays["images"], arrays["pts_seconds"])

    def without(self, beginnings: tuple[str, ...]) -> Extraction:
        """The same, less the clips whose names begin so."""
        kept = tuple(s for s in self.clips if not s.clip.name.startswith(beginnings))
        return replace(self, clips=kept)

    def manifest_sha256(self) -> str:
        """Hash of what there was to train on: clips, labels, hashes and geometry."""
        return hashlib.sha256(self._json().encode()).hexdigest()

    def write(self) -> None:
        """Write the index, whole or not at all."""
        scratch = self.folder / f".{INDEX}"
        scratch.write_text(self._json())
        scratch.replace(self.folder / INDEX)

    def _json(self) -> str:
        content = {
            "preprocess": asdict(self.preprocess),
            "clips": [stored.to_json() for stored in self.clips],
            "mates": self.mates,
        }
        return json.dumps(content, indent=1, sort_keys=True) + "\n"


def read_extraction(folder: Path) -> Extraction:
    """Read what `render` wrote.

    Raises:
        TrainingError: the folder is not an extraction.
    """
    try:
        content = json.loads((folder / INDEX).read_bytes())
        clips = tuple(
            StoredClip(
                Clip.from_json(entry["clip"]), entry["sha256"], entry["file"], entry["skipped"]
            )
            for entry in content["clips"]
        )
        mates = {name: tuple(found) for name, found in content["mates"].items()}
        return Extraction(folder, PreprocessSpec(**content["preprocess"]), clips, mates)
    except FileNotFoundError:
        raise TrainingError(
            f"{folder} has no {INDEX}; run gvvad-train render DATA --out {folder} first"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{folder / INDEX} cannot be read ({error}); render again") from None


def render(
    clips: Iterable[Clip], data: Path, folder: Path, preprocess: PreprocessSpec
) -> Extraction:
    """Render every clip that is not there yet; a clip that cannot be read is skipped.

    Args:
        clips: what to extract; an iterable that shows progress is welcome.
        data: folder that the clips' names are relative to.
        folder: where the frames go; made if need be.
        preprocess: how frames are rendered.

    Raises:
        TrainingError: no clip could be used.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stored = tuple(_store(clip, data / clip.name, folder, preprocess) for clip in clips)
    extraction = Extraction(folder, preprocess, stored, find_mates(data))
    if not extraction.usable:
        raise TrainingError(
            f"none of the {len(stored)} clips under {data} can be used; the first: "
            f"{stored[0].skipped}"
        )
    extraction.write()
    return extraction


def _store(clip: Clip, path: Path, folder: Path, preprocess: PreprocessSpec) -> StoredClip:
    try:
        sha256 = file_sha256(path)
        name = f"{_key(sha256, preprocess)}.npz"
        if not (folder / name).is_file():
            _save(read_frames(path, preprocess), folder / name)
        return StoredClip(clip, sha256, name, None)
    except FileNotFoundError:
        return StoredClip(clip, "", None, f"{path} is not there")
    except (SourceError, TrainingError) as error:
        return StoredClip(clip, sha256, None, str(error))


def _key(sha256: str, preprocess: PreprocessSpec) -> str:
    """Frames belong to one file and one rendering: change either and they are made anew."""
    spec = json.dumps(asdict(preprocess), sort_keys=True)
    return hashlib.sha256(f"{sha256} {spec}".encode()).hexdigest()[:24]


def _save(frames: Frames, path: Path) -> None:
    scratch = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        with scratch.open("wb") as file:
            np.savez(file, images=frames.images, pts_seconds=frames.pts_seconds)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def read_frames(path: Path, preprocess: PreprocessSpec) -> Frames:
    """Decode and render a whole clip.

    Raises:
        SourceError: it cannot be opened as video.
        TrainingError: it breaks off, or holds no frame.
    """
    render = Preprocessor(preprocess)
    images, times = [], []
    with open_file(path) as container:
        try:
            for frame in decode(container, video_stream(container, str(path))):
                images.append(render(frame.picture))
                times.append(frame.pts_seconds)
        except av.error.FFmpegError as error:
            raise TrainingError(f"{path} broke off while decoding ({error.strerror})") from None
    if not images:
        raise TrainingError(f"{path} holds no frame that decodes")
    return Frames(np.stack(images), np.asarray(times))
