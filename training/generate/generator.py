"""Descriptions to frames, through whichever pipeline of diffusers a backend names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from server.contract import Image
from training.clips import TrainingError
from training.generate.backend import Backend, Dtype
from training.generate.hub import diffusers_module
from training.generate.memory import Device, Offload

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

Floats = npt.NDArray[np.floating[Any]]


class VideoError(ValueError):
    """A video that could not be made; the message says why."""


@dataclass(frozen=True, slots=True)
class Order:
    """A video to be made.

    Attributes:
        id: names its file.
        description: what is to be seen.
        seed: of the first noise.
    """

    id: str
    description: str
    seed: int


@dataclass(frozen=True, slots=True)
class Placing:
    """Where a pipeline computes, and where it waits meanwhile."""

    device: Device
    dtype: Dtype
    offload: Offload


class Generator:
    """A loaded pipeline."""

    def __init__(self, backend: Backend, folder: Path, placing: Placing) -> None:
        """Load it.

        Raises:
            TrainingError: the weights cannot be loaded, or the pipeline cannot do what is asked.
        """
        self._arguments = call_arguments(backend)
        self._steps = backend.steps
        self._pipe = _loaded(folder, placing)
        for wanted, name in ((backend.tiling, "tiling"), (backend.slicing, "slicing")):
            if wanted:
                _enable(self._pipe, name, backend)
        _place(self._pipe, placing)

    def make(self, orders: Sequence[Order], step: Callable[[float], None]) -> list[Floats]:
        """Frames of each order: (F, H, W, 3) in [0, 1], not checked.

        The first noise of a video follows from its seed alone: it is drawn on the CPU,
        so that neither a GPU's kind nor the others of a batch have a say in it.

        Args:
            orders: a batch.
            step: called with the share that is done, after each step of denoising.

        Raises:
            VideoError: the pipeline failed.
        """
        arguments = dict(self._arguments)

        def after_step(_: Any, index: int, __: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            step(min(1.0, (index + 1) / self._steps))
            return tensors

        if "callback_on_step_end" in _parameters(type(self._pipe)):
            arguments["callback_on_step_end"] = after_step
        arguments["generator"] = [torch.Generator("cpu").manual_seed(o.seed) for o in orders]
        try:
            made = self._pipe(prompt=[order.description for order in orders], **arguments)
            return [np.asarray(frames) for frames in made.frames]
        except (RuntimeError, ValueError, TypeError, ArithmeticError, LookupError) as error:
            raise VideoError(self._reason(error)) from None

    def _reason(self, error: Exception) -> str:
        if isinstance(error, torch.OutOfMemoryError):
            torch.cuda.empty_cache()
            return (
                "the GPU's memory ran out; give --offload model or sequential, or a smaller "
                "--batch or --frames"
            )
        if "can't allocate memory" in str(error):
            return "memory ran out; give a smaller --batch or --frames, or --dtype bf16"
        said = str(error).strip().splitlines()
        return f"{type(error).__name__}: {said[0][:300] if said else ''}".removesuffix(": ")


def images_of(frames: Floats) -> Image:
    """(F, H, W, 3) frames in [0, 1] to uint8.

    Raises:
        VideoError: they are no pictures: not finite, or of one colour throughout.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3:
        raise VideoError(f"frames must be (F, H, W, 3), got {frames.shape}")
    if not np.isfinite(frames).all():
        raise VideoError(
            "its frames are not finite numbers, as when the computation overflows; give --dtype "
            "bf16 or fp32"
        )
    images: Image = np.rint(np.clip(frames, 0, 1) * 255).astype(np.uint8)
    if not np.ptp(images, axis=(0, 1, 2)).any():
        raise VideoError("all of its frames are of one colour; there is nothing to learn from")
    return images


def call_arguments(backend: Backend) -> dict[str, object]:
    """What the backend's pipeline is called with for any video.

    Raises:
        TrainingError: diffusers has no such pipeline, it is none from text to video, or it does
            not take a setting.
    """
    accepted = _parameters(_pipeline_class(backend))
    needed: dict[str, object] = {
        "height": backend.height,
        "width": backend.width,
        "num_frames": backend.frames,
        "num_inference_steps": backend.steps,
        "output_type": "np",
    }
    given = {"prompt", "generator"}
    without = [name for name in (*needed, *sorted(given)) if name not in accepted]
    required = {name for name, p in accepted.items() if p.default is p.empty}
    required -= {"self", *needed, *given, *backend.arguments}
    if without or required:
        lack = f"takes no {without[0]}" if without else f"wants {min(required)}"
        raise TrainingError(
            f"backend {backend.name}: {backend.pipeline} {lack}; give a pipeline from text to video"
        )
    optional: dict[str, object] = {"guidance_scale": backend.guidance}
    if backend.negative_prompt:
        optional["negative_prompt"] = backend.negative_prompt
    if backend.max_tokens is not None:
        optional["max_sequence_length"] = backend.max_tokens
    for name in [*optional, *backend.arguments]:
        if name not in accepted:
            raise TrainingError(
                f"backend {backend.name}: {backend.pipeline} takes no {name}; leave that setting "
                "out"
            )
    # Some generators are told the rate, since it decides how far things move between frames.
    rates = {name: backend.fps for name in ("frame_rate", "fps") if name in accepted}
    return needed | optional | rates | backend.arguments


def _pipeline_class(backend: Backend) -> type:
    diffusers = diffusers_module()
    found = getattr(diffusers, backend.pipeline, None)
    if not (isinstance(found, type) and issubclass(found, diffusers.DiffusionPipeline)):
        raise TrainingError(
            f"backend {backend.name}: diffusers {diffusers.__version__} has no pipeline "
            f"{backend.pipeline}; give a class that its documentation names"
        )
    return found


def _parameters(pipeline: type) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(pipeline.__call__).parameters)


def _loaded(folder: Path, placing: Placing) -> Any:
    diffusers, dtype = diffusers_module(), _DTYPES[placing.dtype]
    try:
        pipe = diffusers.DiffusionPipeline.from_pretrained(
            folder, dtype=dtype, local_files_only=True
        )
    except (OSError, RuntimeError, ValueError, TypeError, LookupError, ImportError) as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise TrainingError(f"weights {folder} cannot be loaded ({said[0][:300]})") from None
    if pipe.dtype != dtype:
        raise TrainingError(
            f"diffusers {diffusers.__version__} loads in {pipe.dtype} where {dtype} is asked for; "
            "install a newer one"
        )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _enable(pipe: Any, name: str, backend: Backend) -> None:
    try:
        getattr(pipe.vae, f"enable_{name}")()
    except (AttributeError, NotImplementedError):
        raise TrainingError(
            f"backend {backend.name}: {backend.pipeline} cannot decode with {name}; set "
            f"{name}: false, or give --no-{name}"
        ) from None


def _place(pipe: Any, placing: Placing) -> None:
    if placing.offload == "model":
        pipe.enable_model_cpu_offload(device=placing.device)
    elif placing.offload == "sequential":
        pipe.enable_sequential_cpu_offload(device=placing.device)
    else:
        pipe.to(placing.device)
