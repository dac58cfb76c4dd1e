"""Run a bundle with ONNX Runtime on CUDA: the encoder on the GPU, the head on the CPU.

Pictures and features have memory of their own on the device, bound to the session, so
that no call allocates. A batch is padded to a power of two, or to the largest: so few
shapes run at all, and each is recorded as a CUDA graph before the engine is ready.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from server.bundle import Bundle, BundleError
from server.contract import FEATURE, IMAGES, Feature, Image, TensorSpec
from server.engine.buffers import Buffers
from server.engine.cuda import Cuda, OutOfDeviceMemoryError
from server.engine.flags import Device
from server.engine.onnxruntime import (
    EngineError,
    OnnxHead,
    check_features,
    check_graph,
    check_precision,
    in_words,
    open_session,
    run_once,
)
from server.engine.own_thread import OwnThread
from server.engine.shrinking import Shrinking, nobody

logger = logging.getLogger(__name__)

OpenSession = Callable[[Path, Mapping[str, str]], ort.InferenceSession]

_DEVICE: Device = "cuda"
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


def open_cuda_session(path: Path, options: Mapping[str, str]) -> ort.InferenceSession:
    """A session on the GPU.

    Raises:
        EngineError: ONNX Runtime fell back to the CPU.
        BundleError: the graph is broken, or what the options ask for cannot be.
    """
    # CUDA's libraries, where they were installed as packages, are not on the loader's path.
    with contextlib.redirect_stdout(sys.stderr):  # it prints what it misses
        ort.preload_dlls(directory="")
    return open_session(path, _DEVICE, provider_options=options)


@dataclass(frozen=True, slots=True)
class CudaOptions:
    """How to run.

    Attributes:
        largest: windows of one run.
        on_shrink: told each time that the device was full and the largest batch halved.
    """

    largest: int
    on_shrink: Callable[[], None] = nobody


def batch_sizes(largest: int) -> tuple[int, ...]:
    """Batches that are run: powers of two, and the largest; others are padded to the next.

    >>> batch_sizes(6)
    (1, 2, 4, 6)
    """
    return (*(1 << bit for bit in range((largest - 1).bit_length())), largest)


class OnnxCudaDetector:
    """Encoder on the GPU, head on the CPU. Not thread-safe.

    Args:
        bundle: verified.
        options: how to run.
        cuda: the device.
        opened: makes sessions.

    Raises:
        EngineError: the precision is none of ONNX Runtime's on CUDA, or the GPU is full or
            cannot be used.
        BundleError: a graph is broken or not as the manifest says.
    """

    name = "onnxruntime"
    device = _DEVICE

    def __init__(
        self,
        bundle: Bundle,
        options: CudaOptions,
        cuda: Cuda,
        opened: OpenSession = open_cuda_session,
    ) -> None:
        manifest = bundle.manifest
        check_precision(bundle, self.device)
        head = OnnxHead(bundle)
        self.step, self.zero_state = head.step, head.zero_state
        self.precision = manifest.encoder.graph.precision
        inputs, outputs = manifest.encoder_tensors()
        size = manifest.preprocess
        self._image_shape = (manifest.window.sampled_frames, size.height, size.width, 3)
        graph = EncoderGraph(
            bundle.encoder_path,
            inputs,
            outputs,
            self._image_shape,
            manifest.encoder.feature_dim,
            opened,
        )
        self._runner = _Runner(cuda, graph, options)
        # ONNX Runtime keeps its graphs with the thread that recorded them.
        self._thread = OwnThread("onnxruntime cuda")
        self._thread.call(self._runner.open)

    def warm_up(self, max_batch: int) -> None:
        """Run encoder and head once; every batch of the encoder has been run and recorded.

        Raises:
            EngineError: the device failed, or what comes out is no score.
        """
        run_once(self, self._image_shape, max_batch)

    def encode(self, images: Image) -> Feature:
        """(B, S, H, W, 3) uint8 -> (B, D) float32; any B, in as many runs as it takes.

        Raises:
            EngineError: the device failed, has no room, or a feature is not finite.
        """
        features = self._thread.call(lambda: self._runner.encode(images))
        check_features(features, len(images))
        return features

    def close(self) -> None:
        """Give the device's memory back; a later call takes it again."""
        self._thread.call(self._runner.close)
        self._thread.end()


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


class _Runner:
    """Windows to features, with smaller batches where the device is full."""

    def __init__(self, cuda: Cuda, graph: EncoderGraph, options: CudaOptions) -> None:
        self._cuda = cuda
        self._graph = graph
        self._room = Shrinking(options.largest, options.on_shrink)
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
            return self._room.fit(lambda: self._encode(images), self.close)
        except EngineError:
            self.close()
            raise

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
