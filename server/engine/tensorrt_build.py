"""From an ONNX graph to a TensorRT plan.

Written once against what `tensorrt` 10 and `tensorrt_rtx` share; the module is
handed in. Networks are strongly typed: the graph says which precision each
layer has, and no flag changes that.
"""

from __future__ import annotations

import importlib
import logging
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from server.bundle import BundleError
from server.contract import TensorSpec
from server.engine.cuda import OutOfDeviceMemoryError
from server.engine.onnxruntime import EngineError, check_tensors
from server.engine.plans import Batches, write_whole
from server.wording import one_line

logger = logging.getLogger(__name__)

# Of the device, for one layer's scratch; more than any layer of a ViT-L asks for.
_WORKSPACE_BYTES = 4 << 30
_PROGRESS_SECONDS = 10.0
_FULL = ("out of memory", "outofmemory")
_EXTRAS = {"tensorrt": "trt", "tensorrt_rtx": "trt-rtx"}


@dataclass(frozen=True, slots=True)
class BuildTask:
    """What to build.

    Attributes:
        graph: the ONNX file.
        inputs: that it must have, by the manifest.
        outputs: likewise.
        batches: that the plan takes.
        timing_cache: measured times of layers, kept from build to build; None for an engine
            that measures nothing.
        cancelled: set from another thread to end the build early.
    """

    graph: Path
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    batches: Batches
    timing_cache: Path | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)


def load_tensorrt(name: str) -> Any:
    """The module `tensorrt` or `tensorrt_rtx`.

    Raises:
        EngineError: it is not installed, or does not load.
    """
    try:
        return importlib.import_module(name)
    except (ImportError, OSError, RuntimeError) as error:  # its libraries are loaded by hand
        raise EngineError(
            f"engine.name is {name}, which cannot be imported ({one_line(str(error))}); "
            f"pip install 'gvvad[{_EXTRAS[name]}]', or set engine.name=onnxruntime"
        ) from None


def make_log(trt: Any) -> Any:
    """TensorRT's logger over this module's; `take_error` tells what it complained of last."""

    class Log(trt.ILogger):  # type: ignore[misc]  # the base is known only at run time
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._last_error = ""

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                # Told once, by the exception that follows.
                self._last_error = one_line(msg)
            logger.debug("TensorRT: %s", msg)

        def take_error(self) -> str:
            # Only once: the next failure has a reason of its own.
            error, self._last_error = self._last_error, ""
            return error or "no reason given"

    return Log()


def engine_error(log: Any, what: str, remedy: str) -> EngineError:
    """What failed, with TensorRT's own reason; of a kind of its own where memory ran out."""
    reason = log.take_error()
    is_full = any(words in reason.lower() for words in _FULL)
    kind = OutOfDeviceMemoryError if is_full else EngineError
    return kind(f"{what} ({reason}); {remedy}")


def build_plan(trt: Any, log: Any, task: BuildTask) -> bytes:
    """Parse and build; takes from seconds to many minutes, and tells of its progress.

    Raises:
        BundleError: the graph is none for TensorRT, or has other inputs or outputs than the
            manifest says.
        EngineError: TensorRT cannot build it here, or the build was cancelled.
    """
    builder = trt.Builder(log)
    # From version 11 on there are no others, and the flag means nothing.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    # The network refers to the parser's memory, so it lives as long.
    parser = trt.OnnxParser(network, log)
    _parse(parser, task.graph)
    _check_network(trt, network, task)
    config = _configured(trt, builder, task)
    cache = _read_timing_cache(config, task.timing_cache)
    logger.info("building a plan of %s; this can take minutes", task.graph.name)
    started = time.monotonic()
    plan = builder.build_serialized_network(network, config)
    if task.cancelled.is_set():
        raise EngineError(f"the build of {task.graph} was cancelled")
    if plan is None:
        raise engine_error(
            log,
            f"{task.graph} cannot be built by {trt.__name__} {trt.__version__}",
            "export it in another precision, or set engine.name=onnxruntime",
        )
    logger.info("built in %.0f s", time.monotonic() - started)
    if cache is not None and task.timing_cache is not None:
        _keep_timing_cache(cache, task.timing_cache)
    return bytes(plan)


def _parse(parser: Any, graph: Path) -> None:
    if not parser.parse_from_file(str(graph)):
        found = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise BundleError(
            f"{graph} cannot be parsed by TensorRT "
            f"({'; '.join(one_line(text) for text in found) or 'no reason given'}); "
            "export the bundle again with --engine tensorrt"
        )


def _check_network(trt: Any, network: Any, task: BuildTask) -> None:
    inputs = (network.get_input(index) for index in range(network.num_inputs))
    outputs = (network.get_output(index) for index in range(network.num_outputs))
    check_tensors(task.graph, "input", task.inputs, _specs(trt, inputs))
    check_tensors(task.graph, "output", task.outputs, _specs(trt, outputs))


def _specs(trt: Any, tensors: Iterable[Any]) -> dict[str, TensorSpec]:
    return {
        tensor.name: TensorSpec(
            tensor.name,
            _dtype_name(trt, tensor.dtype),
            tuple(None if size < 0 else size for size in tensor.shape),
        )
        for tensor in tensors
    }


def _dtype_name(trt: Any, dtype: Any) -> str:
    try:
        return str(np.dtype(trt.nptype(dtype)).name)
    except TypeError:  # a type that NumPy lacks
        return str(dtype.name).lower()


def _configured(trt: Any, builder: Any, task: BuildTask) -> Any:
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, _WORKSPACE_BYTES)
    # Lets a smaller batch do with less memory; older versions always take the largest's.
    smaller = getattr(trt.PreviewFeature, "RUNTIME_ACTIVATION_RESIZE_10_10", None)
    if smaller is not None:
        config.set_preview_feature(smaller, True)
    config.progress_monitor = _monitor(trt, task.cancelled)
    profile = builder.create_optimization_profile()
    sizes = (1, task.batches.preferred, task.batches.largest)
    for tensor in task.inputs:
        profile.set_shape(tensor.name, *((size, *tensor.shape[1:]) for size in sizes))
    config.add_optimization_profile(profile)
    return config


def _monitor(trt: Any, cancelled: threading.Event) -> Any:
    """Tells now and then how far the build is, and ends it when cancelled."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # as above
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}
            self._told_seconds = time.monotonic()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            now = time.monotonic()
            if now - self._told_seconds >= _PROGRESS_SECONDS:
                self._told_seconds = now
                steps = self._steps.get(phase_name, 0)
                logger.info("building: %s, step %d of %d", phase_name, step + 1, steps)
            return not cancelled.is_set()

        def phase_finish(self, phase_name: str) -> None:
            self._steps.pop(phase_name, None)

    return Monitor()


def _read_timing_cache(config: Any, path: Path | None) -> Any:
    if path is None:
        return None
    try:
        content = path.read_bytes()
    except OSError:
        content = b""
    cache = config.create_timing_cache(content)
    # One of another version or GPU is refused: then the build measures anew.
    if not config.set_timing_cache(cache, False):
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache


def _keep_timing_cache(cache: Any, path: Path) -> None:
    try:
        write_whole(path, bytes(cache.serialize()))
    except OSError as error:  # it only makes the next build faster
        logger.warning("the timing cache %s cannot be kept (%s)", path, error.strerror)
