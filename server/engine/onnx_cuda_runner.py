"""Run an encoder's ONNX graph on the GPU over memory of ours.

Pictures and features have memory of their own on the device, bound to the session, so
that no call allocates. A batch is padded to a power of two, or to the largest: so few
shapes run at all, and each is recorded as a CUDA graph before the engine is ready.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from server.bundle import BundleError
from server.contract import FEATURE, IMAGES, Feature, Image, TensorSpec
from server.engine.buffers import Buffers
from server.engine.cuda import Cuda, OutOfDeviceMemoryError
from server.engine.onnxruntime import EngineError, check_graph, in_words
from server.engine.room import Room

logger = logging.getLogger(__name__)

OpenSession = Callable[[Path, Mapping[str, str]], ort.InferenceSession]

_DEVICE = "cuda"
# How ONNX Runtime, cuBLAS and cuDNN say that the device is full.
_FULL = ("out of memory", "Failed to allocate memory", "ALLOC_FAILED")

PROVIDER_OPTIONS = {
    # CUDA_VISIBLE_DEVICES says which one that is.
    "device_id": "0",
    # All shapes are known before the first window: doubling would only take what nobody uses.
    "arena_extend_strategy": "kSameAsRequested",
    # Timing every algorithm may choose another one at each start, and numbers with it.
    "cudnn_conv_algo_search": "HEURISTIC",
    # Copies in a stream of their own would race with the graphs.
    "do_copy_in_default_stream": "1",
    # Ten bits of mantissa are not what a bundle in fp32 promises; for speed there is fp16.
    "use_tf32": "0",
}


def batch_sizes(largest: int) -> tuple[int, ...]:
    """Batches that are run: powers of two, and the largest; others are padded to the next.

    >>> batch_sizes(6)
    (1, 2, 4, 6)
    """
    return (*(1 << bit for bit in range((largest - 1).bit_length())), largest)


@dataclass(frozen=True, slots=True)
class EncoderGraph:
    """What is run.

    Attributes:
        path: of the ONNX file.
        inputs: that the manifest promises.
        outputs: the same.
        image_shape: (S, H, W, 3) of one window.
        feature_dim: D.
        opened: makes sessions of it.
    """

    path: Path
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    image_shape: tuple[int, ...]
    feature_dim: int
    opened: OpenSession


class EncoderRunner:
    """Windows to features on the GPU. Of one thread: ONNX Runtime keeps its graphs by thread.

    Args:
        cuda: the device.
        graph: what runs there.
        room: for how large a batch there is room.
    """

    def __init__(self, cuda: Cuda, graph: EncoderGraph, room: Room) -> None:
        self._cuda = cuda
        self._graph = graph
        self._room = room
        self._records = True
        self._bound: _BoundSession | None = None

    def open(self) -> None:
        """Load the graph, take memory, run and record every batch.

        Raises:
            EngineError, BundleError: it cannot be run.
        """
        self._room.fit(self._ready, self.close)

    def encode(self, images: Image) -> Feature:
        """(B, S, H, W, 3) uint8 -> (B, D) float32, in runs of at most the largest batch.

        Raises:
            EngineError: the device failed, or has no room for a single window; the next call
                starts anew.
        """
        try:
            self._room.rise(len(images), self._ready, self.close)
            return self._room.fit(lambda: self._encode(images), self.close)
        except EngineError:
            self.close()
            raise
        except BundleError as error:  # it was loaded anew, and the file is not what it was
            raise EngineError(str(error)) from None

    def close(self) -> None:
        """Give all memory of the device back, the graph's weights too."""
        bound, self._bound = self._bound, None
        if bound is not None:
            bound.close()

    def _encode(self, images: Image) -> Feature:
        bound, largest = self._ready(), self._room.largest
        features = np.empty((len(images), self._graph.feature_dim), np.float32)
        for start in range(0, len(images), largest):
            rows = slice(start, min(start + largest, len(images)))
            features[rows] = bound.encode(images[rows])
        return features

    def _ready(self) -> _BoundSession:
        if self._bound is None:
            self._bound = self._opened()
        return self._bound

    def _opened(self) -> _BoundSession:
        """Recorded if it can be; ONNX Runtime refuses where a node would run on the CPU."""
        if not self._records:
            return self._tried(records=False)
        try:
            return self._tried(records=True)
        except OutOfDeviceMemoryError:
            raise
        except (EngineError, BundleError) as error:
            reason = str(error)
        # Not in the handler, whose error still holds the session that failed and its memory.
        bound = self._tried(records=False)
        logger.warning("ONNX Runtime runs without CUDA graphs: %s", reason)
        self._records = False
        return bound

    def _tried(self, *, records: bool) -> _BoundSession:
        bound = _BoundSession(self._cuda, self._graph, self._room.largest)
        try:
            bound.open(records=records)
        except (EngineError, BundleError):
            bound.close()
            raise
        return bound


class _BoundSession:
    """A session, and memory that its batches are bound to."""

    def __init__(self, cuda: Cuda, graph: EncoderGraph, largest: int) -> None:
        self._graph = graph
        self._sizes = batch_sizes(largest)
        self._buffers = Buffers(cuda, graph.image_shape, graph.feature_dim, largest)
        self._session: Any = None
        self._bound: dict[int, tuple[Any, ort.RunOptions]] = {}

    def open(self, *, records: bool) -> None:
        """Take memory, load, run each batch: ONNX Runtime records it meanwhile."""
        self._buffers.open()
        options = PROVIDER_OPTIONS | {
            # One stream for copies and work: what is bound is ready when it is read.
            "user_compute_stream": str(int(self._buffers.stream)),
            "enable_cuda_graph": str(int(records)),
        }
        self._session = self._loaded(options)
        graph = self._graph
        check_graph(graph.path, self._session, graph.inputs, graph.outputs)
        for batch in self._sizes:
            self._bound[batch] = (self._binding(batch), _run_options(batch))
            self._run(batch)
            self._buffers.wait()

    def encode(self, images: Image) -> Feature:
        """At most the largest batch; features until the next call."""
        count, buffers = len(images), self._buffers
        buffers.images[:count] = images
        buffers.copy_in(count)
        # What is left of earlier windows pads it: windows of a batch know nothing of each other.
        self._run(next(size for size in self._sizes if size >= count))
        buffers.copy_out(count)
        buffers.wait()
        features: Feature = buffers.features[:count]
        return features

    def close(self) -> None:
        """Give everything back, whatever state the device is in."""
        self._buffers.settle()
        self._bound, self._session = {}, None
        self._buffers.close()

    def _loaded(self, options: Mapping[str, str]) -> ort.InferenceSession:
        try:
            return self._graph.opened(self._graph.path, options)
        except BundleError as error:
            if not isinstance(error.__cause__, Exception) or not _of_device(error.__cause__):
                raise
            failure = _failure(error.__cause__)
        raise failure  # as in _run

    def _binding(self, batch: int) -> Any:
        binding, buffers = self._session.io_binding(), self._buffers
        shape = (batch, *self._graph.image_shape)
        binding.bind_input(IMAGES, _DEVICE, 0, np.uint8, shape, buffers.images_at)
        shape = (batch, self._graph.feature_dim)
        binding.bind_output(FEATURE, _DEVICE, 0, np.float32, shape, buffers.features_at)
        return binding

    def _run(self, batch: int) -> None:
        """Start it."""
        try:
            self._session.run_with_iobinding(*self._bound[batch])
        except Exception as error:  # ONNX Runtime's errors have no common base but Exception
            failure = _failure(error)
        else:
            return
        # Not in the handler: what it handles holds the session, and so the device's memory.
        raise failure


def _run_options(batch: int) -> ort.RunOptions:
    options = ort.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(batch))
    # The copy back stands behind it in the stream; that one is waited for.
    options.add_run_config_entry("disable_synchronize_execution_providers", "1")
    return options


def _is_full(error: Exception) -> bool:
    return any(words in str(error) for words in _FULL)


def _of_device(error: Exception) -> bool:
    return _is_full(error) or "CUDA failure" in str(error)


def _failure(error: Exception) -> EngineError:
    told = f"ONNX Runtime failed on the GPU ({in_words(error)})"
    if _is_full(error):
        return OutOfDeviceMemoryError(f"{told}; free memory of the GPU")
    return EngineError(f"{told}; check the bundle and the device")
