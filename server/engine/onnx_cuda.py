"""Run a bundle with ONNX Runtime on CUDA: the encoder on the GPU, the head on the CPU.

What was asked for runs there, or nothing does; a GPU that is full costs batch size.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnxruntime as ort

from server.bundle import Bundle, BundleError
from server.contract import Feature, Image
from server.engine.cuda import Cuda
from server.engine.flags import Device
from server.engine.onnx_cuda_runner import EncoderGraph, EncoderRunner, OpenSession
from server.engine.onnxruntime import (
    EngineError,
    OnnxHead,
    check_features,
    check_precision,
    open_session,
    run_once,
)
from server.engine.own_thread import OwnThread
from server.engine.room import OnResize, Room, nobody

_DEVICE: Device = "cuda"


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
        on_resize: see `OnResize`; the device was full, or is tried with more again.
        clock: monotonic, in seconds.
    """

    largest: int
    on_resize: OnResize = nobody
    clock: Callable[[], float] = time.monotonic


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
        self._runner = EncoderRunner(
            cuda, graph, Room(options.largest, options.on_resize, options.clock)
        )
        # ONNX Runtime keeps its graphs with the thread that recorded them.
        self._thread = OwnThread("onnxruntime cuda")
        try:
            self._thread.call(self._runner.open)
        except (EngineError, BundleError):
            self._thread.end()
            raise

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
