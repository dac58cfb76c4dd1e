"""Weights of a pipeline: where they lie, whose they are, how large, and which.

Everything is read from the files' names and heads, before anything is loaded.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.clips import TrainingError
from training.generate.backend import Backend

MODEL_INDEX = "model_index.json"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
# Those with a variant's name, such as model.fp16.safetensors, are not what is loaded.
_TENSORS = re.compile(r"(?:diffusion_pytorch_)?model(?:-\d+-of-\d+)?\.safetensors")
_PICKLES = re.compile(r"(?:diffusion_)?pytorch_model(?:-\d+-of-\d+)?\.bin")
_LONGEST_HEADER = 100_000_000
_PARAMETERS_TOLERANCE = 0.05
"""Two backends of a family differ by far more; what a format stores twice by less."""

_WHOLE_BYTES = 4 << 20
_HEAD_BYTES = 1 << 20
_SAMPLES = 64
_SAMPLE_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Weights:
    """A pipeline's folder.

    Attributes:
        name: folder or hub id, as it was given.
        folder: where it lies.
        parameters: of each part that has some.
    """

    name: str
    folder: Path
    parameters: dict[str, int]

    @property
    def model(self) -> str:
        """What is recorded: a hub id, or the folder's own name wherever it lies."""
        return self.folder.name if Path(self.name).is_dir() else self.name

    def sha256(self) -> str:
        """A hash that tells these weights from others.

        It takes names and sizes of the files that are loaded, small ones whole, and of
        large ones the head, with every tensor's name and shape, and 64 samples of 64 KiB
        spread evenly: to read 20 GB would take a minute or more of every run, and training
        moves every tensor. A few changed bytes between two samples go unnoticed.
        """
        found = hashlib.sha256()
        for path in _loaded_files(self.folder):
            size = path.stat().st_size
            found.update(f"{path.relative_to(self.folder)} {size}\n".encode())
            for part in _sampled(path, size):
                found.update(part)
        return found.hexdigest()


def local_weights(name: str, folder: Path, backend: Backend) -> Weights:
    """Weights in a folder, if they are the backend's and whole.

    Raises:
        TrainingError: no pipeline is there, another's, another model's, or a part lacks.
    """
    index = _model_index(name, folder)
    check_class(name, index.get("_class_name"), backend)
    parameters = {}
    for part in _parts(index):
        if not (folder / part).is_dir():
            raise TrainingError(f"weights {name} lack their folder {part}; download them again")
        if (folder / part / "config.json").is_file():
            parameters[part] = sum(_parameters(file) for file in _weight_files(folder / part))
    for part, expected in backend.parameters.items():
        found = parameters.get(part, 0)
        if abs(found - expected) > _PARAMETERS_TOLERANCE * expected:
            raise TrainingError(
                f"weights {name} have {found / 1e9:.2f} billion parameters in {part}, "
                f"{backend.name} has {expected / 1e9:.2f}; they are of another model: give its "
                "--backend, or other --weights"
            )
    return Weights(name, folder, parameters)


def check_class(name: str, found: object, backend: Backend) -> None:
    """Refuse weights of another class of pipeline.

    Raises:
        TrainingError: they are.
    """
    if found != backend.pipeline:
        raise TrainingError(
            f"weights {name} are for {str(found)[:80]}, backend {backend.name} is a "
            f"{backend.pipeline}; give weights for that, or another --backend"
        )


def find_folder(name: str) -> Path | None:
    """The folder of that name; None for a hub id.

    Raises:
        TrainingError: it is neither.
    """
    if Path(name).is_dir():
        return Path(name).absolute()
    if not _HUB_ID.fullmatch(name):
        raise TrainingError(
            f"weights {name} are not there; give a folder with a {MODEL_INDEX}, or a hub id such "
            "as THUDM/CogVideoX-2b"
        )
    return None


def _model_index(name: str, folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / MODEL_INDEX).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise TrainingError(
            f"weights {name} have no {MODEL_INDEX} that can be read ({error}); give the folder "
            "that holds a whole pipeline of diffusers"
        ) from None
    if not isinstance(content, dict):
        raise TrainingError(f"weights {name}: {MODEL_INDEX} must be a JSON object")
    return content


def _parts(index: dict[str, Any]) -> list[str]:
    """Names of the pipeline's parts; one that is [null, null] is left out of it."""
    return sorted(
        name
        for name, value in index.items()
        if isinstance(value, list) and len(value) == 2 and value[0] and re.fullmatch(r"\w+", name)
    )


def _weight_files(part: Path) -> list[Path]:
    """The files that are loaded: safetensors, or the older pickles where there are none.

    Raises:
        TrainingError: there is none, or a file of several lacks.
    """
    for pattern in (_TENSORS, _PICKLES):
        files = sorted(path for path in part.iterdir() if pattern.fullmatch(path.name))
        if files:
            _check_shards(part, files)
            return files
    raise TrainingError(
        f"{part} holds no weights (*.safetensors or *.bin); download them again, with large files"
    )


def _check_shards(part: Path, files: list[Path]) -> None:
    split = re.search(r"-of-(\d+)\.", files[0].name)
    wanted = int(split[1]) if split else 1
    if split and len(files) != wanted:
        raise TrainingError(f"{part} holds {len(files)} of {wanted} files; download the rest")


def _parameters(file: Path) -> int:
    """How many there are; of a pickle, which does not tell, the most that it can hold."""
    size = file.stat().st_size
    if file.suffix == ".bin":
        return size // 2
    wrong = TrainingError(f"{file} is no safetensors file, or is cut off; download it again")
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > min(size, _LONGEST_HEADER):
                raise wrong
            header = json.loads(stream.read(length))
        tensors = [value for name, value in header.items() if name != "__metadata__"]
        end = max((tensor["data_offsets"][1] for tensor in tensors), default=0)
        count: int = sum(math.prod(tensor["shape"]) for tensor in tensors)
    except (OSError, struct.error, ValueError, AttributeError, LookupError, TypeError):
        raise wrong from None
    if 8 + length + end > size:
        raise wrong
    return count


def _loaded_files(folder: Path) -> Iterator[Path]:
    yield folder / MODEL_INDEX
    for part in _parts(_model_index(str(folder), folder)):
        weights = _weight_files(folder / part) if (folder / part / "config.json").is_file() else []
        small = (
            path
            for path in (folder / part).iterdir()
            if path.suffix in (".json", ".txt", ".model") and ".index." not in path.name
        )
        yield from sorted([*weights, *small])


def _sampled(path: Path, size: int) -> Iterator[bytes]:
    with path.open("rb") as stream:
        if size <= _WHOLE_BYTES:
            yield stream.read()
            return
        yield stream.read(_HEAD_BYTES)
        for sample in range(_SAMPLES):
            stream.seek(sample * (size - _SAMPLE_BYTES) // (_SAMPLES - 1))
            yield stream.read(_SAMPLE_BYTES)
