"""The engine that was asked for: that one, or none."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from server.bundle import Bundle
from server.engine.cuda import Cuda, load_cuda_runtime
from server.engine.flags import Device, EngineFlags, EngineName
from server.engine.onnx_cuda import CudaOptions, OnnxCudaDetector
from server.engine.onnxruntime import EngineError, EngineOptions, OnnxDetector, check_provider
from server.engine.plans import Batches
from server.engine.room import OnResize, nobody
from server.engine.tensorrt import TensorRtDetector, TensorRtOptions
from server.engine.tensorrt_build import load_tensorrt
from server.scoring import Detector


class Engine(Detector, Protocol):
    """A detector that can say what it is.

    Attributes:
        name: of the engine.
        device: where the encoder runs.
        precision: of the encoder's multiplications.
    """

    @property
    def name(self) -> str: ...

    @property
    def device(self) -> str: ...

    @property
    def precision(self) -> str: ...

    def warm_up(self, max_batch: int) -> None:
        """Run every path once, so that the first window is not the slow one."""

    def close(self) -> None:
        """Give back what it holds beyond its own memory."""


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """What the settings ask for.

    Attributes:
        name: of the engine.
        device: where the encoder runs; None takes the engine's own, the CPU in ONNX Runtime and
            the GPU in TensorRT.
        threads: of ONNX Runtime's encoder; None leaves it to ONNX Runtime.
        batches: that a plan takes.
        may_build: whether a missing plan is built.
        plans: folder of plans; None for the bundle's own.
    """

    name: EngineName
    device: Device | None
    threads: int | None
    batches: Batches
    may_build: bool
    plans: Path | None


def choice_of(flags: EngineFlags, largest: int) -> EngineChoice:
    """What a server with these settings would run, for batches up to `largest`."""
    batches = Batches(largest, largest)
    return EngineChoice(flags.name, flags.device, flags.threads, batches, True, None)


def load_engine(
    bundle: Bundle,
    choice: EngineChoice,
    cancelled: threading.Event | None = None,
    on_resize: OnResize = nobody,
) -> Engine:
    """Load a bundle into the engine that was asked for; it is not warm yet.

    Args:
        bundle: verified.
        choice: what to load it into.
        cancelled: set from another thread to end a build early.
        on_resize: told what the largest batch was and is, when the device was full and it was
            halved, and when it is doubled again.

    Raises:
        EngineError: it is not installed, lacks its device, or cannot run this bundle.
        BundleError: a graph is broken or not as the manifest says.
    """
    if choice.name == "onnxruntime":
        if choice.device != "cuda":
            return OnnxDetector(bundle, EngineOptions(choice.threads))
        check_provider("cuda")
        cuda = Cuda(load_cuda_runtime())
        return OnnxCudaDetector(bundle, CudaOptions(choice.batches.largest, on_resize), cuda)
    if choice.device == "cpu":
        raise EngineError(
            f"engine.name is {choice.name}, which runs on a GPU alone, and engine.device is cpu; "
            "leave engine.device out, or set engine.name=onnxruntime"
        )
    trt = load_tensorrt(choice.name)
    cuda = Cuda(load_cuda_runtime())
    options = TensorRtOptions(
        choice.batches,
        choice.may_build,
        choice.plans,
        cancelled or threading.Event(),
        on_resize,
    )
    return TensorRtDetector(bundle, options, trt, cuda)
