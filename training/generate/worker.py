"""A worker of a run: batches of descriptions to files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import av.error

from training.clips import TrainingError
from training.generate.backend import Backend, Dtype
from training.generate.film import Note, encode
from training.generate.folder import Folder, writing_failed
from training.generate.generator import Generator, Order, Placing, VideoError, images_of
from training.generate.memory import (
    Device,
    Memory,
    Model,
    Offload,
    choose_offload,
    free_gpu_bytes,
    free_ram_bytes,
)
from training.generate.weights import Weights
from training.manifest import Generation

Step = Callable[[Sequence[str], float], None]
"""Is told that of some videos a share is computed."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """What computes.

    Attributes:
        device: a GPU or the CPU.
        dtype: of the computation.
        offload: how a GPU's memory is spared; None for the fastest that fits.
        batch: videos at a time.
    """

    device: Device
    dtype: Dtype
    offload: Offload | None = None
    batch: int = 1

    def __post_init__(self) -> None:
        if self.device == "cpu" and self.offload not in (None, "none"):
            raise TrainingError(
                f"--offload {self.offload} moves parts between a GPU and memory, and the CPU is to "
                "compute; leave it out"
            )

    def free(self) -> Memory:
        """The memory that there is for it."""
        return Memory(free_ram_bytes(), free_gpu_bytes() if self.device == "cuda" else None)


@dataclass(frozen=True, slots=True)
class Batch:
    """Videos that are made together."""

    orders: tuple[Order, ...]


@dataclass(frozen=True, slots=True)
class Made:
    """What came of a batch.

    Attributes:
        reasons: of each video, why there is none; None where there is one.
        stop: why the run cannot go on at all, in a sentence.
    """

    reasons: tuple[str | None, ...] = ()
    stop: str | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """What a worker needs to know.

    Attributes:
        folder: where videos go.
        settings: the backend, as it stands after the flags.
        own: the backend as its file says.
        weights: the pipeline.
        hardware: what computes.
        generation: how each video is made, for its note.
    """

    folder: Folder
    settings: Backend
    own: Backend
    weights: Weights
    hardware: Hardware
    generation: Generation

    def begin(self) -> Callable[[Batch], Made]:
        """Make a worker of Ray ready; what keeps it from that is told as a batch's outcome."""
        try:
            return self.using(self.load(), lambda names, share: None)
        except TrainingError as error:
            reason = str(error)
            return lambda batch: Made(stop=reason)

    def load(self) -> Generator:
        """The pipeline, in the way that fits this machine.

        Raises:
            TrainingError: none fits, or it cannot be loaded.
        """
        hardware = self.hardware
        model = Model(
            self.settings, self.own, self.weights.parameters, hardware.dtype, hardware.batch
        )
        offload = choose_offload(model, hardware.free(), hardware.offload)
        placing = Placing(hardware.device, hardware.dtype, offload)
        return Generator(self.settings, self.weights.folder, placing)

    def using(self, generator: Generator, step: Step) -> Callable[[Batch], Made]:
        """Does batches with a pipeline that is ready."""

        def do(batch: Batch) -> Made:
            try:
                return Made(tuple(self._reasons(batch.orders, generator, step)))
            except OSError as error:
                return Made(stop=str(writing_failed(error, self.folder.path)))

        return do

    def _reasons(
        self,
        orders: Sequence[Order],
        generator: Generator,
        step: Step,
    ) -> list[str | None]:
        names = [order.id for order in orders]
        try:
            made = generator.make(orders, lambda share: step(names, share))
        except VideoError as error:
            if len(orders) == 1:
                return [str(error)]
            # One of them may be the cause, or their number.
            return [r for order in orders for r in self._reasons([order], generator, step)]
        reasons: list[str | None] = []
        for order, frames in zip(orders, made, strict=True):
            try:
                content = encode(images_of(frames), self._note(order))
            except (VideoError, av.error.FFmpegError) as error:
                reasons.append(str(error))
                continue
            self.folder.save(order.id, content)
            reasons.append(None)
        return reasons

    def _note(self, order: Order) -> Note:
        return Note(
            id=order.id,
            description=order.description,
            seed=order.seed,
            generation=self.generation,
        )
