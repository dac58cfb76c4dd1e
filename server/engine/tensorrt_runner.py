"""Run an encoder's plan: copies, work and copies back, two batches at a time.

Two slots take turns, each with a stream and buffers of its own: while one
computes, the other copies. What a slot does for a batch of the profile is
recorded as a CUDA graph. When the device is full the largest batch is halved, and later doubled.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from server.contract import FEATURE, IMAGES, Feature, Image
from server.engine.buffers import Buffers, give_back
from server.engine.cuda import Cuda, GraphExec, OutOfDeviceMemoryError
from server.engine.onnxruntime import EngineError
from server.engine.plans import Batches
from server.engine.room import OnResize, Room
from server.engine.tensorrt_build import engine_error

logger = logging.getLogger(__name__)

_SLOTS = 2


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan that was loaded.

    Attributes:
        module: `tensorrt` or `tensorrt_rtx`.
        runtime: that loaded it, and must live as long.
        engine: its ICudaEngine.
        log: TensorRT's logger, whose `take_error` says why a call failed.
        batches: that the plan takes.
        image_shape: (S, H, W, 3) of one window.
        feature_dim: D.
    """

    module: Any
    runtime: Any
    engine: Any
    log: Any
    batches: Batches
    image_shape: tuple[int, ...]
    feature_dim: int


class EncoderRunner:
    """Windows to features on the GPU. Not thread-safe.

    Args:
        cuda: the device.
        plan: what runs there.
        on_resize: see `OnResize`; the device was full, or is tried with more again.
        clock: monotonic, in seconds.
    """

    def __init__(
        self,
        cuda: Cuda,
        plan: Plan,
        on_resize: OnResize,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cuda = cuda
        self._plan = plan
        self._room = Room(plan.batches.largest, on_resize, clock)
        self._slots: list[_Slot] = []

    def warm_up(self) -> None:
        """Make the slots, run the profile's batches, record their graphs.

        Raises:
            EngineError: the plan cannot run.
        """
        self._room.fit(self._ready_slots, self.close)

    def encode(self, images: Image) -> Feature:
        """(B, S, H, W, 3) uint8 -> (B, D) float32, in runs of as many as there is room for.

        Raises:
            EngineError: the device failed, or has no room for a single window; the next call
                starts from new buffers.
        """
        try:
            self._room.rise(len(images), self._ready_slots, self.close)
            return self._room.fit(lambda: self._encode(images), self.close)
        except EngineError:
            self.close()
            raise

    def close(self) -> None:
        """Give all memory of the device back, but for the plan's weights."""
        slots, self._slots = self._slots, []
        for slot in slots:
            slot.close()

    def _ready_slots(self) -> list[_Slot]:
        while len(self._slots) < _SLOTS:
            slot = _Slot(self._cuda, self._plan, self._room.largest)
            self._slots.append(slot)
            slot.open()
        return self._slots

    def _encode(self, images: Image) -> Feature:
        features = np.empty((len(images), self._plan.feature_dim), np.float32)
        slots, largest = self._ready_slots(), self._room.largest
        under_way: list[tuple[_Slot, slice]] = []
        for number, start in enumerate(range(0, len(images), largest)):
            rows = slice(start, min(start + largest, len(images)))
            if len(under_way) == len(slots):
                slot, done = under_way.pop(0)
                features[done] = slot.collect()
            slot = slots[number % len(slots)]
            slot.start(images[rows])
            under_way.append((slot, rows))
        for slot, rows in under_way:
            features[rows] = slot.collect()
        return features


class _Slot:
    """A stream, its buffers and its contexts."""

    def __init__(self, cuda: Cuda, plan: Plan, largest: int) -> None:
        self._cuda = cuda
        self._plan = plan
        self._largest = largest
        self._buffers = Buffers(cuda, plan.image_shape, plan.feature_dim, largest)
        # A graph is void once its context is used otherwise, so each has one of its own.
        self._any: Any = None
        self._recorded: dict[int, Any] = {}
        self._graphs: dict[int, GraphExec] = {}
        self._count = 0

    def open(self) -> None:
        """Take memory, run the batches of the profile, record them."""
        self._buffers.open()
        self._open_contexts()
        # The first run of a shape takes memory and time that no later one does.
        self._run(self._any, self._largest)
        self._buffers.wait()
        for batch, context in self._recorded.items():
            self._record(context, batch)

    def start(self, images: Image) -> None:
        """Begin with a batch; returns at once."""
        self._count = len(images)
        self._buffers.images[: self._count] = images
        graph = self._graphs.get(self._count)
        if graph is not None:
            self._cuda.launch(graph, self._buffers.stream)
        else:
            self._run(self._any, self._count)

    def collect(self) -> Feature:
        """Wait for the batch; its features, until the next start."""
        self._buffers.wait()
        features: Feature = self._buffers.features[: self._count]
        return features

    def close(self) -> None:
        """Give everything back, whatever state the device is in."""
        self._buffers.settle()
        give_back(self._cuda.close_graph, self._graphs.values())
        self._any, self._recorded, self._graphs = None, {}, {}
        self._buffers.close()

    def _open_contexts(self) -> None:
        """One for each batch of the profile and one for all others, on the same scratch."""
        batches = {1, min(self._plan.batches.preferred, self._largest), self._largest}
        self._any = self._context(self._largest)
        self._recorded = {batch: self._context(batch) for batch in sorted(batches)}
        contexts = [self._any, *self._recorded.values()]
        # Asked of each, since that is also what lays its scratch out for its shape.
        scratch_bytes = max(int(each.update_device_memory_size_for_shapes()) for each in contexts)
        if scratch_bytes:
            scratch = self._buffers.allocate(scratch_bytes)
            for context in contexts:
                context.set_device_memory(scratch, scratch_bytes)

    def _context(self, batch: int) -> Any:
        strategy = self._plan.module.ExecutionContextAllocationStrategy.USER_MANAGED
        context = self._plan.engine.create_execution_context(strategy)
        if context is None:
            raise self._failure("no execution context could be made")
        buffers = self._buffers
        for name, address in ((IMAGES, buffers.images_at), (FEATURE, buffers.features_at)):
            if not context.set_tensor_address(name, address):
                raise self._failure(f"the plan has no tensor {name}")
        self._set_batch(context, batch)
        return context

    def _set_batch(self, context: Any, batch: int) -> None:
        if not context.set_input_shape(IMAGES, (batch, *self._plan.image_shape)):
            raise self._failure(f"the plan takes no batch of {batch}")

    def _run(self, context: Any, batch: int) -> None:
        self._set_batch(context, batch)
        self._enqueue(context, batch)

    def _enqueue(self, context: Any, batch: int) -> None:
        self._buffers.copy_in(batch)
        if not context.execute_async_v3(int(self._buffers.stream)):
            raise self._failure(f"a batch of {batch} could not be run")
        self._buffers.copy_out(batch)

    def _record(self, context: Any, batch: int) -> None:
        """Without a graph every batch is just started step by step."""
        stream = self._buffers.stream
        self._enqueue(context, batch)
        self._buffers.wait()
        try:
            self._graphs[batch] = self._cuda.capture(stream, lambda: self._enqueue(context, batch))
        except OutOfDeviceMemoryError:
            raise
        except EngineError as error:
            logger.warning("batches of %d run without a CUDA graph: %s", batch, error)

    def _failure(self, what: str) -> EngineError:
        return engine_error(self._plan.log, f"TensorRT: {what}", "check the GPU and the plan")
