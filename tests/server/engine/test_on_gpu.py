"""What only a GPU can show: that plans load, compute, are recorded and survive a full device."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from cuda.bindings import runtime

from server.bundle import Bundle, Precision
from server.engine.choice import Engine, EngineChoice, EngineName, load_engine
from server.engine.cuda import Cuda
from server.engine.onnxruntime import EngineOptions, OnnxDetector
from tests.server.engine.conftest import BATCHES
from tests.support.tiny_encoders import bundle_with_encoder

pytestmark = pytest.mark.gpu

NAMES: list[EngineName] = ["tensorrt", "tensorrt_rtx"]


@pytest.fixture(params=NAMES)
def choice(request: pytest.FixtureRequest, tmp_path: Path) -> EngineChoice:
    pytest.importorskip(request.param)
    return EngineChoice(request.param, None, None, BATCHES, True, tmp_path / "plans")


def load(bundle: Bundle, choice: EngineChoice) -> Engine:
    return load_engine(bundle, choice, threading.Event(), lambda before, after: None)


def windows(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 4, 24, 32, 3), np.uint8)


@pytest.mark.parametrize(
    ("precision", "tolerance"),
    [("fp32", 1e-3), ("fp16", 2e-3), ("bf16", 1e-2), ("int8-symmetric", 1e-2), ("fp8", 3e-2)],
)
def test_features_are_those_of_onnx_runtime(
    choice: EngineChoice,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    precision: Precision,
    tolerance: float,
) -> None:
    bundle = bundle_with_encoder(tmp_path / "bundle", precision)
    with caplog.at_level(logging.WARNING):
        detector = load(bundle, choice)
        detector.warm_up(BATCHES.largest)
    assert "without a CUDA graph" not in caplog.text
    plain = bundle_with_encoder(tmp_path / "plain", "fp32")
    reference = OnnxDetector(plain, EngineOptions(threads=1))
    for count in (1, 3, 4, 8, 29):
        images = windows(count)
        np.testing.assert_allclose(
            detector.encode(images), reference.encode(images), atol=tolerance
        )
    load(bundle, replace(choice, may_build=False))
    assert choice.plans is not None
    assert len(list(choice.plans.glob("timing-*"))) == (choice.name == "tensorrt")


@pytest.fixture
def onnx_choice() -> EngineChoice:
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        pytest.skip("this ONNX Runtime has no CUDA")
    return EngineChoice("onnxruntime", "cuda", None, BATCHES, True, None)


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("fp16", 2e-3)])
def test_onnx_runtime_computes_the_same_on_both_devices(
    onnx_choice: EngineChoice,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    precision: Precision,
    tolerance: float,
) -> None:
    with caplog.at_level(logging.WARNING):
        detector = load(bundle_with_encoder(tmp_path / "bundle", precision), onnx_choice)
        detector.warm_up(BATCHES.largest)
    assert "without CUDA graphs" not in caplog.text
    plain = bundle_with_encoder(tmp_path / "plain", "fp32")
    reference = OnnxDetector(plain, EngineOptions(threads=1))
    for count in (1, 3, 4, 8, 29):
        images = windows(count)
        np.testing.assert_allclose(
            detector.encode(images), reference.encode(images), atol=tolerance
        )
    detector.close()


def test_onnx_runtime_takes_no_memory_once_it_is_ready(
    onnx_choice: EngineChoice, bundle: Bundle
) -> None:
    detector = load(bundle, onnx_choice)
    detector.warm_up(BATCHES.largest)
    _, free_bytes, _ = runtime.cudaMemGetInfo()
    for count in (1, 3, 8, 29):
        detector.encode(windows(count))
    assert runtime.cudaMemGetInfo()[1] >= free_bytes
    detector.close()
    assert runtime.cudaMemGetInfo()[1] > free_bytes


def test_onnx_runtime_on_a_full_device_loses_batch_size_and_no_window(
    onnx_choice: EngineChoice, bundle: Bundle
) -> None:
    detector = load(bundle, onnx_choice)
    cuda = Cuda(runtime)
    taken = cuda.allocate(runtime.cudaMemGetInfo()[1] - (64 << 20))
    try:
        assert len(detector.encode(windows(8))) == 8
    finally:
        cuda.free(taken)
        detector.close()


def test_a_full_device_costs_batch_size_and_no_window(choice: EngineChoice, bundle: Bundle) -> None:
    detector = load(bundle, choice)
    cuda = Cuda(runtime)
    taken = []
    _, free_bytes, _ = runtime.cudaMemGetInfo()
    # The rest for the driver's own needs: the tiny encoder fits, the test is that nothing dies.
    taken.append(cuda.allocate(free_bytes - (64 << 20)))
    try:
        detector.warm_up(BATCHES.largest)
        assert len(detector.encode(windows(8))) == 8
    finally:
        for address in taken:
            cuda.free(address)
