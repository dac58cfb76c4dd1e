"""A GPU that is none: the functions of the CUDA runtime and of a plan's contexts, in NumPy.

Only this boundary is made up. Every call is held against the real module's signature.
Streams are lazy: work is done when somebody waits for it and never before, so that a
buffer which is read or written too early shows in the results. Memory of the device has
addresses that no host has.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import tensorrt_rtx
from cuda.bindings import runtime

from tests.support.real_signatures import checked

_DEVICE_BASE = 1 << 60
_STATUS = runtime.cudaError_t
SCRATCH_BYTES = 1000
"""Of a window, between layers."""
WEIGHTS_BYTES = 100
"""That a plan needs to be loaded; not taken off the rest."""

Operation = Callable[[], None]


class FakeGpu:
    """Device 0, as the module `cuda.bindings.runtime`.

    Attributes:
        memory_bytes: of the device.
        refused: what functions fail with, by name.
        largest_run: a run of more windows finds no memory.
        capturable: whether work can be recorded.
        windows_run: that were computed.
        timeline: what was started ("copy in", "run", "launch") and waited for ("wait"), each
            with its stream.
    """

    def __init__(self, memory_bytes: int = 1 << 30) -> None:
        self.memory_bytes = memory_bytes
        self.refused: dict[str, Any] = {}
        self.largest_run = 1 << 20
        self.capturable = True
        self.timeline: list[tuple[str, int]] = []
        self.windows_run = 0
        self._blocks: dict[int, np.ndarray] = {}
        self._host: dict[int, Any] = {}
        self._streams: dict[int, list[Operation]] = {}
        self._captures: dict[int, list[Operation] | None] = {}
        self._graphs: dict[int, list[Operation]] = {}
        self._next = 0x1000

    def __getattr__(self, name: str) -> Any:
        real = getattr(runtime, name)
        if not name.startswith("cuda") or isinstance(real, type | int):
            return real
        if name == "cudaGetLastError":
            return lambda: (_STATUS.cudaSuccess,)
        fake = self._functions()[name]
        return checked(real, lambda *given: self._answer(name, fake, given))

    @property
    def used_bytes(self) -> int:
        return sum(len(block) for block in self._blocks.values())

    @property
    def things_held(self) -> int:
        """Blocks, page-locked memory, streams and graphs that were not given back."""
        return len(self._blocks) + len(self._host) + len(self._streams) + len(self._graphs)

    def memory(self, address: int, size_bytes: int) -> np.ndarray:
        """Memory of the device; an access beyond its block fails."""
        for start, block in self._blocks.items():
            if start <= address and address + size_bytes <= start + len(block):
                return block[address - start : address - start + size_bytes]
        raise AssertionError(f"no device memory at {address:#x}")

    def do(self, stream: int, what: str, operation: Operation) -> None:
        """Append work to a stream, or to the graph that records it."""
        if stream in self._captures:
            recorded = self._captures[stream]
            if recorded is not None:
                recorded.append(operation)
            return
        self.timeline.append((what, stream))
        self._streams[stream].append(operation)

    def is_recording(self, stream: int) -> bool:
        """Whether work on this stream is recorded and not done."""
        return stream in self._captures

    def spoil_capture(self, stream: int) -> bool:
        """End a recording for good where work cannot be recorded."""
        if stream in self._captures and not self.capturable:
            self._captures[stream] = None
            return True
        return False

    def _answer(self, name: str, fake: Callable[..., Any], given: tuple[Any, ...]) -> Any:
        if name in self.refused:
            return (self.refused[name], None)
        return fake(*given)

    def _functions(self) -> dict[str, Callable[..., Any]]:
        return {
            "cudaGetDeviceCount": lambda: (_STATUS.cudaSuccess, 1),
            "cudaGetDeviceProperties": self._properties,
            "cudaMalloc": self._malloc,
            "cudaFree": lambda address: self._release(self._blocks, address),
            "cudaHostAlloc": self._host_alloc,
            "cudaFreeHost": lambda address: self._release(self._host, address),
            "cudaMemcpyAsync": self._copy,
            "cudaStreamCreateWithFlags": self._open_stream,
            "cudaStreamDestroy": lambda stream: self._release(self._streams, int(stream)),
            "cudaStreamSynchronize": self._wait,
            "cudaStreamBeginCapture": self._begin_capture,
            "cudaStreamEndCapture": self._end_capture,
            "cudaGraphInstantiate": lambda graph, flags: (
                _STATUS.cudaSuccess,
                self._number(self._graphs, self._graphs[int(graph)]),
            ),
            "cudaGraphDestroy": lambda graph: self._release(self._graphs, int(graph)),
            "cudaGraphExecDestroy": lambda graph: self._release(self._graphs, int(graph)),
            "cudaGraphLaunch": self._launch,
        }

    def _number(self, table: dict[int, Any], thing: Any) -> int:
        self._next += 0x100
        table[self._next] = thing
        return self._next

    def _release(self, table: dict[int, Any], key: int) -> tuple[Any]:
        del table[key]
        return (_STATUS.cudaSuccess,)

    def _properties(self, device: int) -> tuple[Any, Any]:
        properties = runtime.cudaDeviceProp()
        properties.name = b"Made-up".ljust(256, b"\0")
        properties.major, properties.minor = 8, 9
        return _STATUS.cudaSuccess, properties

    def _malloc(self, size_bytes: int) -> tuple[Any, int | None]:
        if self.used_bytes + size_bytes > self.memory_bytes:
            return _STATUS.cudaErrorMemoryAllocation, None
        address = self._number({}, None) + _DEVICE_BASE + self.used_bytes * 2
        self._blocks[address] = np.full(size_bytes, 0xAB, np.uint8)
        return _STATUS.cudaSuccess, address

    def _host_alloc(self, size_bytes: int, flags: int) -> tuple[Any, int]:
        buffer = ctypes.create_string_buffer(size_bytes)
        self._host[ctypes.addressof(buffer)] = buffer
        return _STATUS.cudaSuccess, ctypes.addressof(buffer)

    def _copy(self, to: int, at: int, size_bytes: int, kind: Any, stream: Any) -> tuple[Any]:
        if kind == runtime.cudaMemcpyKind.cudaMemcpyHostToDevice:

            def operate() -> None:
                target = self.memory(to, size_bytes)
                ctypes.memmove(target.ctypes.data, self._locked(at, size_bytes), size_bytes)

            self.do(int(stream), "copy in", operate)
        else:
            assert kind == runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost

            def operate() -> None:
                source = self.memory(at, size_bytes)
                ctypes.memmove(self._locked(to, size_bytes), source.ctypes.data, size_bytes)

            self.do(int(stream), "copy out", operate)
        return (_STATUS.cudaSuccess,)

    def _locked(self, address: int, size_bytes: int) -> int:
        assert size_bytes <= len(self._host[address]), "beyond page-locked memory"
        return address

    def _open_stream(self, flags: int) -> tuple[Any, Any]:
        return _STATUS.cudaSuccess, runtime.cudaStream_t(self._number(self._streams, []))

    def _wait(self, stream: Any) -> tuple[Any]:
        if int(stream) in self._captures:
            return (_STATUS.cudaErrorStreamCaptureUnsupported,)
        self.timeline.append(("wait", int(stream)))
        waiting, self._streams[int(stream)] = self._streams[int(stream)], []
        for operation in waiting:
            operation()
        return (_STATUS.cudaSuccess,)

    def _begin_capture(self, stream: Any, mode: Any) -> tuple[Any]:
        assert not self._streams[int(stream)], "what is under way is never recorded"
        self._captures[int(stream)] = []
        return (_STATUS.cudaSuccess,)

    def _end_capture(self, stream: Any) -> tuple[Any, Any]:
        recorded = self._captures.pop(int(stream))
        if recorded is None:
            return _STATUS.cudaErrorStreamCaptureInvalidated, None
        return _STATUS.cudaSuccess, self._number(self._graphs, recorded)

    def _launch(self, graph: Any, stream: Any) -> tuple[Any]:
        for operation in self._graphs[int(graph)]:
            self.do(int(stream), "launch", operation)
        return (_STATUS.cudaSuccess,)


class FakeTensorRt:
    """The real `tensorrt_rtx`, but for the runtime, which computes with ONNX Runtime.

    Args:
        gpu: where its contexts read and write.
        graph: ONNX file that every plan stands for.
        largest: of the profile.
    """

    def __init__(self, gpu: FakeGpu, graph: Path, largest: int) -> None:
        self._gpu = gpu
        self._session = ort.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
        self._largest = largest

    def __getattr__(self, name: str) -> Any:
        return getattr(tensorrt_rtx, name)

    def Runtime(self, log: Any) -> _Runtime:  # noqa: N802  as the real one
        return _Runtime(log, lambda: _Engine(self._gpu, self._session, self._largest, log))


class _Fake:
    """Methods named with an underscore, each reached as the real class has it."""

    real: Any

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return checked(getattr(self.real, name), getattr(self, f"_{name}"))


class _Runtime(_Fake):
    real = tensorrt_rtx.Runtime

    def __init__(self, log: Any, make: Callable[[], _Engine]) -> None:
        self._log, self._make = log, make

    def _deserialize_cuda_engine(self, serialized_engine: bytes) -> _Engine | None:
        if not serialized_engine.startswith(b"vtrt"):
            self._log.log(tensorrt_rtx.ILogger.Severity.ERROR, "magic tag of the plan is wrong")
            return None
        engine = self._make()
        if not engine.fits:
            self._log.log(tensorrt_rtx.ILogger.Severity.ERROR, "Error Code 2: OutOfMemory")
            return None
        return engine


class _Engine(_Fake):
    real = tensorrt_rtx.ICudaEngine

    def __init__(self, gpu: FakeGpu, session: Any, largest: int, log: Any) -> None:
        self._parts = (gpu, session, largest, log)
        self.fits = gpu.memory_bytes >= WEIGHTS_BYTES

    def _create_execution_context(self, strategy: Any) -> _Context:
        assert strategy == tensorrt_rtx.ExecutionContextAllocationStrategy.USER_MANAGED
        return _Context(*self._parts)


class _Context(_Fake):
    real = tensorrt_rtx.IExecutionContext

    def __init__(self, gpu: FakeGpu, session: Any, largest: int, log: Any) -> None:
        self._gpu, self._session, self._largest, self._log = gpu, session, largest, log
        self._shape: tuple[int, ...] = ()
        self._addresses: dict[str, int] = {}
        self._scratch_for = 0
        self._changes = 0

    def _set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        assert name == "images"
        self._changes += 1
        self._shape = tuple(shape)
        return 1 <= shape[0] <= self._largest

    def _set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return name in ("images", "feature")

    def _update_device_memory_size_for_shapes(self) -> int:
        self._scratch_for = self._shape[0]
        return SCRATCH_BYTES * self._scratch_for

    def _set_device_memory(self, memory: int, size: int) -> None:
        assert size >= SCRATCH_BYTES * self._scratch_for > 0, "too little scratch"
        self._gpu.memory(memory, size)

    def _execute_async_v3(self, stream_handle: int) -> bool:
        batch = self._shape[0]
        assert batch <= self._scratch_for, "scratch was laid out for a smaller batch"
        if batch > self._gpu.largest_run:
            words = "Error Code 1: Cuda Runtime (out of memory)"
            self._log.log(tensorrt_rtx.ILogger.Severity.ERROR, words)
            return False
        if self._gpu.spoil_capture(stream_handle):
            return False
        shape, addresses = self._shape, dict(self._addresses)
        recorded = self._gpu.is_recording(stream_handle)
        changes = self._changes

        def compute() -> None:
            # What TensorRT says of its contexts: a change voids the graphs made with one.
            assert not recorded or changes == self._changes, "the graph is void"
            self._gpu.windows_run += shape[0]
            images = self._gpu.memory(addresses["images"], int(np.prod(shape))).reshape(shape)
            [features] = self._session.run(["feature"], {"images": images})
            found = np.ascontiguousarray(features).view(np.uint8).ravel()
            self._gpu.memory(addresses["feature"], len(found))[:] = found

        self._gpu.do(stream_handle, "run", compute)
        return True
