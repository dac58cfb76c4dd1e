"""Backends: which text-to-video pipeline of diffusers, and how it is called, in a YAML file.

Another pipeline is another file, no code.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from training.clips import TrainingError
from training.manifest import Number, Text
from training.recipe import Count, Part, Positive, read_yaml

_FOLDER = Path(__file__).parent / "backends"
BUILT_IN = tuple(sorted(path.stem for path in _FOLDER.glob("*.yaml")))

Dtype = Literal["fp32", "fp16", "bf16"]
DTYPE_BYTES: dict[Dtype, int] = {"fp32": 4, "fp16": 2, "bf16": 2}

_LONGEST_SIDE = 8192
_MOST_FRAMES = 4096


class Working(Part):
    """Memory beside the parameters for one video, at the backend's own size and dtype, in GB.

    The defaults are CogVideoX-5B's. Denoising holds some fourteen tensors of its hidden
    size, for the text with and without guidance. Decoding is what diffusers publishes for
    CogVideoX with all but the decoder offloaded: 19 GB whole, 4 to 5 GB in tiles.

    Attributes:
        denoise_gb: of the transformer.
        decode_gb: of the VAE, pictures as a whole.
        tiled_decode_gb: of the VAE, pictures in tiles.
    """

    denoise_gb: Positive = 3
    decode_gb: Positive = 19
    tiled_decode_gb: Positive = 4.5


class Backend(Part):
    """A generator and its settings.

    Attributes:
        name: as it is told and recorded.
        pipeline: class of diffusers.
        weights: folder, or hub id.
        dtype: of the computation on a GPU.
        frames: of a video.
        fps: of a video, Hz.
        height: pixels.
        width: pixels.
        steps: of denoising.
        guidance: scale of classifier-free guidance.
        negative_prompt: what videos are led away from.
        max_tokens: of a description that it reads; None for the pipeline's own number.
        frame_step: frames are one more than a multiple of it.
        size_step: height and width are multiples of it.
        tiling: decode pictures in tiles, for less memory.
        slicing: decode a batch video by video, for less memory.
        arguments: what else the pipeline is called with.
        parameters: of each of its parts, to check weights and memory against.
        working: memory beside the parameters.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,63}$")]
    pipeline: Annotated[str, Field(pattern=r"^[A-Za-z]\w*$")]
    weights: Text
    dtype: Dtype
    frames: Annotated[int, Field(ge=1, le=_MOST_FRAMES)]
    fps: Annotated[float, Field(ge=1, le=240)]
    height: Annotated[int, Field(ge=2, le=_LONGEST_SIDE)]
    width: Annotated[int, Field(ge=2, le=_LONGEST_SIDE)]
    steps: Annotated[int, Field(ge=1, le=1000)]
    guidance: Annotated[float, Field(ge=0, le=100)]
    negative_prompt: Annotated[str, Field(max_length=2000)] = ""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    frame_step: Count = 1
    size_step: Annotated[int, Field(ge=2, multiple_of=2)] = 2
    tiling: bool = True
    slicing: bool = True
    arguments: dict[str, Number] = Field(default_factory=dict)
    parameters: dict[str, Count] = Field(default_factory=dict)
    working: Working = Working()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        # H.264 in 4:2:0 has no odd sides; size_step is even, so it refuses them too.
        for side, length in (("height", self.height), ("width", self.width)):
            if length % self.size_step:
                raise ValueError(
                    f"{side} ({length}) must be a multiple of {self.size_step}, as "
                    f"{_around(length, self.size_step, 0)}"
                )
        if (self.frames - 1) % self.frame_step:
            raise ValueError(
                f"frames ({self.frames}) must be one more than a multiple of {self.frame_step}, "
                f"as {_around(self.frames, self.frame_step, 1)}"
            )
        return self


def _around(value: int, step: int, offset: int) -> str:
    below = (value - offset) // step * step + offset
    return f"{below} or {below + step}" if below > 0 else str(below + step)


def load_backend(name: str) -> Backend:
    """A built-in backend by its name, or one of a YAML file.

    Raises:
        TrainingError: neither, or the file is no backend; it says which there are.
    """
    if name in BUILT_IN:
        return read_yaml(_FOLDER / f"{name}.yaml", Backend, "backend")
    if not Path(name).is_file():
        raise TrainingError(
            f"--backend {name} is neither a file nor one of {', '.join(BUILT_IN)}; give one of "
            "them or a YAML file like theirs"
        )
    return read_yaml(Path(name), Backend, "backend")


def changed(backend: Backend, changes: Mapping[str, object]) -> Backend:
    """The backend with other values of some settings, checked as a file's are.

    Raises:
        TrainingError: a value does not fit; it names the flag.
    """
    try:
        return Backend.model_validate(backend.model_dump() | dict(changes))
    except ValidationError as error:
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ")
        if first["loc"]:
            name = str(first["loc"][0])
            message = f"--{name.replace('_', '-')} ({changes.get(name)}): {message}"
        raise TrainingError(f"backend {backend.name}: {message}") from None
