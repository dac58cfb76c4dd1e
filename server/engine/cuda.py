"""The boundary to the CUDA driver: memory, streams and graphs, every answer checked.

A thin class over the functions of NVIDIA's `cuda.bindings.runtime`, which the
caller hands in: the package is imported only when an engine needs it. Device 0
is used; CUDA_VISIBLE_DEVICES says which one that is.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from server.engine.onnxruntime import EngineError

Address = int
Stream = Any
GraphExec = Any

_ON_THE_CPU = "set engine.name=onnxruntime with engine.device=cpu"
_CUDA_REMEDY = f"mend the driver, or {_ON_THE_CPU}"


class OutOfDeviceMemoryError(EngineError):
    """The GPU has no room left; a smaller batch may still fit."""


def load_cuda_runtime() -> Any:
    """NVIDIA's module.

    Raises:
        EngineError: it is not installed.
    """
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except ImportError as error:
        raise EngineError(
            f"an engine on the GPU needs the package cuda-bindings ({error}); "
            f"pip install cuda-bindings, or {_ON_THE_CPU}"
        ) from None


class Cuda:
    """Device 0 of this machine.

    Args:
        runtime: the module `cuda.bindings.runtime`.

    Raises:
        EngineError: there is no driver or no GPU.
    """

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime
        if not self._call("cudaGetDeviceCount"):
            raise EngineError(f"this machine has no CUDA device; {_CUDA_REMEDY}")
        properties = self._call("cudaGetDeviceProperties", 0)
        name = properties.name
        self.device = (
            f"{name.decode() if isinstance(name, bytes) else name}, "
            f"compute capability {properties.major}.{properties.minor}"
        )

    # Memory

    def allocate(self, size_bytes: int) -> Address:
        """Memory of the device."""
        return int(self._call("cudaMalloc", size_bytes))

    def free(self, address: Address) -> None:
        """Give memory of the device back."""
        self._call("cudaFree", address)

    def allocate_host(self, size_bytes: int) -> Address:
        """Page-locked memory of the host, which alone can be copied while work runs."""
        return int(self._call("cudaHostAlloc", size_bytes, 0))

    def free_host(self, address: Address) -> None:
        """Give page-locked memory back."""
        self._call("cudaFreeHost", address)

    def copy_to_device(self, to: Address, host: Address, size_bytes: int, stream: Stream) -> None:
        """Start a copy; it is done when the stream is."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", to, host, size_bytes, kind, stream)

    def copy_to_host(self, host: Address, at: Address, size_bytes: int, stream: Stream) -> None:
        """Start a copy; it is done when the stream is."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", host, at, size_bytes, kind, stream)

    # Streams

    def open_stream(self) -> Stream:
        """A stream that does not wait for the legacy default one."""
        return self._call("cudaStreamCreateWithFlags", int(self._runtime.cudaStreamNonBlocking))

    def close_stream(self, stream: Stream) -> None:
        """Close it once its work is done."""
        self._call("cudaStreamDestroy", stream)

    def wait(self, stream: Stream) -> None:
        """Wait for all work of a stream.

        Raises:
            EngineError: part of it failed.
        """
        self._call("cudaStreamSynchronize", stream)

    # Graphs

    def capture(self, stream: Stream, work: Callable[[], None]) -> GraphExec:
        """Record what `work` starts on a stream, to be launched as one.

        Raises:
            EngineError: it cannot be recorded; the stream is as before.
        """
        # Of this thread only: what other threads do meanwhile is none of the graph's business.
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", stream, mode)
        try:
            work()
        except EngineError:
            # A stream that still records takes no other work; what it has so far is of no use.
            with contextlib.suppress(EngineError):
                self._call("cudaGraphDestroy", self._call("cudaStreamEndCapture", stream))
            raise
        graph = self._call("cudaStreamEndCapture", stream)
        try:
            return self._call("cudaGraphInstantiate", graph, 0)
        finally:
            self._call("cudaGraphDestroy", graph)

    def launch(self, graph: GraphExec, stream: Stream) -> None:
        """Start all that was recorded."""
        self._call("cudaGraphLaunch", graph, stream)

    def close_graph(self, graph: GraphExec) -> None:
        """Give it back."""
        self._call("cudaGraphExecDestroy", graph)

    def _call(self, name: str, *arguments: object) -> Any:
        """The function's result, if it has one.

        Raises:
            OutOfDeviceMemoryError: the device, or page-locked memory, is full.
            EngineError: anything else went wrong.
        """
        status, *results = getattr(self._runtime, name)(*arguments)
        errors = self._runtime.cudaError_t
        if status != errors.cudaSuccess:
            # It would be told again by the next call that asks for it, TensorRT's own too.
            self._runtime.cudaGetLastError()
            sentence = f"CUDA: {name} failed with {status.name}"
            if status == errors.cudaErrorMemoryAllocation:
                raise OutOfDeviceMemoryError(f"{sentence}; free memory of the GPU")
            raise EngineError(f"{sentence}; {_CUDA_REMEDY}")
        return results[0] if results else None


def host_array(address: Address, shape: tuple[int, ...], dtype: Any) -> npt.NDArray[Any]:
    """Page-locked memory as an array; valid until it is given back."""
    size_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = (ctypes.c_uint8 * size_bytes).from_address(address)
    return np.frombuffer(memory, dtype).reshape(shape)
