"""ONNX Runtime on a GPU that is none: real sessions and bindings, on the CPU, over its memory.

What is bound for `cuda` is bound for `cpu` at the same block of the made-up device's memory
and really run there. Every call is held against ONNX Runtime's own signature. As on a GPU, a
run is done when its stream is waited for, and what was recorded by one thread must find all
that it was recorded with, and is unknown to every other thread.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from cuda.bindings import runtime

from server.bundle import BundleError
from server.engine.onnxruntime import open_session
from tests.support.fake_gpu import FakeGpu
from tests.support.real_signatures import checked

WEIGHTS_BYTES = 5000
ARENA_BYTES = 1000
"""Of a window; ONNX Runtime keeps them until the session ends."""


@dataclass
class FakeCudaSessions:
    """Makes sessions on a made-up GPU.

    Attributes:
        gpu: it.
        options: that sessions were asked for with.
        recordable: whether all of a graph would run on the GPU.
        batches: that were run, in order.
        recorded: those of them that were recorded.
        refused: what runs fail with while it is not empty.
        refuses_recording: the same of those that would record.
    """

    gpu: FakeGpu
    options: list[dict[str, str]] = field(default_factory=list)
    recordable: bool = True
    batches: list[int] = field(default_factory=list)
    recorded: list[int] = field(default_factory=list)
    refused: str = ""
    refuses_recording: str = ""

    def __call__(self, path: Path, options: Mapping[str, str]) -> Any:
        self.options.append(dict(options))
        if options["enable_cuda_graph"] == "1" and not self.recordable:
            raise BundleError("This session cannot use the graph capture feature")
        session = _Session(self, open_session(path, "cpu", threads=1), options)
        try:
            session.take(WEIGHTS_BYTES)
        except RuntimeError as error:
            raise BundleError(f"{path} cannot be loaded by ONNX Runtime") from error
        return session


class _Session:
    def __init__(
        self, made: FakeCudaSessions, real: ort.InferenceSession, options: Mapping[str, str]
    ) -> None:
        self._made, self._real = made, real
        self._stream = int(options["user_compute_stream"])
        self._records = options["enable_cuda_graph"] == "1"
        self._graphs: dict[tuple[int, str], _Binding] = {}
        self._taken: list[int] = []
        self._room = 0

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return checked(getattr(self._real, name), getattr(self, f"_{name}"))

    def __del__(self) -> None:
        for address in self._taken:
            self._made.gpu.cudaFree(address)

    def take(self, size_bytes: int) -> None:
        status, address = self._made.gpu.cudaMalloc(size_bytes)
        if status != runtime.cudaError_t.cudaSuccess:
            raise RuntimeError(f"bfc_arena.cc Failed to allocate memory of size {size_bytes}")
        self._taken.append(address)

    def _get_inputs(self) -> Any:
        return self._real.get_inputs()

    def _get_outputs(self) -> Any:
        return self._real.get_outputs()

    def _io_binding(self) -> _Binding:
        return _Binding(self._made.gpu, self._real)

    def _run_with_iobinding(self, iobinding: _Binding, run_options: ort.RunOptions) -> None:
        entry = run_options.get_run_config_entry
        assert entry("disable_synchronize_execution_providers") == "1"
        batch = iobinding.batch
        if self._made.refused:
            raise RuntimeError(self._made.refused)
        if batch > self._made.gpu.largest_run:
            raise RuntimeError("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0")
        if batch > self._room:
            self.take((batch - self._room) * ARENA_BYTES)
            self._room = batch
        if self._records:
            self._replay((threading.get_ident(), entry("gpu_graph_id")), iobinding)
        self._made.batches.append(batch)
        self._made.gpu.do(self._stream, "run", iobinding.run)

    def _replay(self, key: tuple[int, str], binding: _Binding) -> None:
        if key not in self._graphs:
            if self._made.refuses_recording:
                raise RuntimeError(self._made.refuses_recording)
            self._graphs[key] = binding
            self._made.recorded.append(binding.batch)
        assert self._graphs[key] is binding, "it was recorded with other memory or another shape"


class _Binding:
    """A real one, made anew for each run, since the device's memory has no host's addresses."""

    def __init__(self, gpu: FakeGpu, session: ort.InferenceSession) -> None:
        self._gpu, self._session = gpu, session
        self._bound: dict[str, tuple[Any, ...]] = {}
        self.batch = 0

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        real = getattr(self._session.io_binding(), name)

        def bind(tensor: str, *rest: Any) -> None:
            device, number, _, shape, _ = rest
            assert (device, number) == ("cuda", 0)
            self.batch = shape[0]
            self._bound[name] = (tensor, *rest)

        return checked(real, bind)

    def run(self) -> None:
        binding = self._session.io_binding()
        for way, (name, _, _, kind, shape, address) in self._bound.items():
            size_bytes = int(np.prod(shape)) * np.dtype(kind).itemsize
            at = self._gpu.memory(address, size_bytes).ctypes.data
            getattr(binding, way)(name, "cpu", 0, kind, shape, at)
        self._session.run_with_iobinding(binding)
        self._gpu.windows_run += self.batch
