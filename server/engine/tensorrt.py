"""Run a bundle with TensorRT, or with TensorRT for RTX: the encoder on the GPU.

The head step stays in ONNX Runtime on the CPU: its few thousand multiplications
are done before a copy to the device would be. The plan is taken from disk where
one was kept for this graph, version and GPU, and built otherwise.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from server.bundle import Bundle
from server.contract import Feature, Image
from server.engine.cuda import Cuda, OutOfDeviceMemoryError
from server.engine.onnxruntime import EngineError, OnnxHead, check_features, run_once
from server.engine.plans import PLANS_FOLDER, Batches, PlanKey, PlanStore
from server.engine.room import OnResize, nobody
from server.engine.tensorrt_build import BuildTask, build_plan, engine_error, make_log
from server.engine.tensorrt_runner import EncoderRunner, Plan

logger = logging.getLogger(__name__)

TensorRtName = Literal["tensorrt", "tensorrt_rtx"]


@dataclass(frozen=True, slots=True)
class TensorRtOptions:
    """How to run.

    Attributes:
        batches: that the plan takes.
        may_build: build a plan where there is none of this key.
        plans: folder of plans; None for the bundle's own.
        cancelled: set from another thread to end a build early.
        on_resize: told what the largest batch was and is, when the device was full and it was
            halved, and when it is doubled again.
        clock: monotonic, in seconds.
    """

    batches: Batches
    may_build: bool = True
    plans: Path | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)
    on_resize: OnResize = nobody
    clock: Callable[[], float] = time.monotonic


class TensorRtDetector:
    """Encoder in a plan on the GPU, head on the CPU. Not thread-safe.

    Args:
        bundle: verified.
        options: how to run.
        trt: the module `tensorrt` or `tensorrt_rtx`.
        cuda: the device.

    Raises:
        EngineError: the precision is none of TensorRT's, or there is no plan and none may or
            can be built.
        BundleError: a graph is broken or not as the manifest says.
    """

    device = "cuda"

    def __init__(self, bundle: Bundle, options: TensorRtOptions, trt: Any, cuda: Cuda) -> None:
        manifest = bundle.manifest
        self.name: str = trt.__name__
        self.precision = manifest.encoder.graph.precision
        _check_precision(bundle, self.name)
        head = OnnxHead(bundle)
        self.step, self.zero_state = head.step, head.zero_state
        plan = load_plan(bundle, options, trt, cuda.device)
        self._image_shape = plan.image_shape
        self._runner = EncoderRunner(cuda, plan, options.on_resize, options.clock)

    def warm_up(self, max_batch: int) -> None:
        """Take the device's memory, record CUDA graphs, and run every path once.

        Raises:
            EngineError: the plan cannot run, or what comes out is no score.
        """
        self._runner.warm_up()
        run_once(self, self._image_shape, max_batch)

    def encode(self, images: Image) -> Feature:
        """(B, S, H, W, 3) uint8 -> (B, D) float32; any B, in as many runs as it takes.

        Raises:
            EngineError: the device failed, has no room, or a feature is not finite.
        """
        features = self._runner.encode(images)
        check_features(features, len(images))
        return features

    def close(self) -> None:
        """Give the device's memory back; a later call takes it again."""
        self._runner.close()


def plan_key(bundle: Bundle, batches: Batches, trt: Any, device: str) -> PlanKey:
    """The key of a bundle's plan on this device, given in words."""
    graph = bundle.manifest.encoder.graph
    return PlanKey(trt.__name__, trt.__version__, device, graph.sha256, graph.precision, batches)


def load_plan(bundle: Bundle, options: TensorRtOptions, trt: Any, device: str) -> Plan:
    """The plan for this device, from disk, or built and kept.

    Raises:
        EngineError: there is none and none may or can be built or kept, or the GPU is full.
        BundleError: the graph is none for TensorRT.
    """
    log = make_log(trt)
    runtime = trt.Runtime(log)
    key = plan_key(bundle, options.batches, trt, device)
    store = PlanStore(options.plans or bundle.directory / PLANS_FOLDER, bundle.manifest.name)
    engine = _kept_engine(runtime, log, store.find(key))
    if engine is None:
        engine = _loaded(runtime, log, _built(bundle, key, store, options, (trt, log)))
    manifest, size = bundle.manifest, bundle.manifest.preprocess
    return Plan(
        module=trt,
        runtime=runtime,
        engine=engine,
        log=log,
        batches=options.batches,
        image_shape=(manifest.window.sampled_frames, size.height, size.width, 3),
        feature_dim=manifest.encoder.feature_dim,
    )


def _kept_engine(runtime: Any, log: Any, plan: bytes | None) -> Any:
    """None where there is no plan, or none that this version takes."""
    if plan is None:
        return None
    try:
        return _loaded(runtime, log, plan)
    except OutOfDeviceMemoryError:  # another plan of the same would need the same room
        raise
    except EngineError as error:
        logger.warning("%s", error)
        return None


def _loaded(runtime: Any, log: Any, plan: bytes) -> Any:
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise engine_error(
            log, "TensorRT cannot load a plan", "check the GPU, or set engine.name=onnxruntime"
        )
    return engine


def _built(
    bundle: Bundle,
    key: PlanKey,
    store: PlanStore,
    options: TensorRtOptions,
    trt_and_log: tuple[Any, Any],
) -> bytes:
    if not options.may_build:
        raise EngineError(
            f"{store.folder} holds no usable plan of {bundle.encoder_path.name} for "
            f"{key.engine} {key.version} on {key.device}, {key.precision}, batches up to "
            f"{key.batches.largest}; set engine.build=true, or copy the plan there"
        )
    store.prepare()
    plan = build_plan(*trt_and_log, _task(bundle, key, store, options))
    store.keep(key, plan)
    store.forget_replaced(key)
    return plan


def _task(bundle: Bundle, key: PlanKey, store: PlanStore, options: TensorRtOptions) -> BuildTask:
    inputs, outputs = bundle.manifest.encoder_tensors()
    timing_cache = None
    if key.engine == "tensorrt":  # the other measures nothing, and would ask for a GPU
        timing_cache = store.folder / f"timing-{key.version}.cache"
    return BuildTask(
        bundle.encoder_path, inputs, outputs, key.batches, timing_cache, options.cancelled
    )


def _check_precision(bundle: Bundle, name: str) -> None:
    if bundle.manifest.encoder.graph.precision == "int8":
        raise EngineError(
            f"{bundle.encoder_path} has int8 activations with a zero point, which {name} cannot "
            "run; export the bundle with --engine tensorrt, or set engine.name=onnxruntime"
        )
