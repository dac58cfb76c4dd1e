"""The TensorRT engine on a made-up GPU: right results, order, and room that runs out."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from cuda.bindings import runtime
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.engine.batch_limit import FIRST_STRETCH_SECONDS
from server.engine.cuda import Cuda
from server.engine.onnxruntime import EngineError, EngineOptions, OnnxDetector
from server.engine.plans import Batches
from server.engine.tensorrt import TensorRtDetector
from tests.server.engine.conftest import BATCHES, Machine
from tests.support.fake_gpu import SCRATCH_BYTES, FakeGpu

STATUS = runtime.cudaError_t
WINDOW_BYTES = 4 * 24 * 32 * 3
PER_WINDOW = WINDOW_BYTES + 3 * 4 + SCRATCH_BYTES
SLOTS = 2


def windows(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 4, 24, 32, 3), np.uint8)


def expected(images: np.ndarray) -> np.ndarray:
    """Mean red, green and blue, by hand."""
    return images.mean(axis=(1, 2, 3)) / 255


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None
)
@given(counts=st.lists(st.integers(1, 40), min_size=1, max_size=4))
def test_any_number_of_windows_gets_its_own_features(
    detector: TensorRtDetector, counts: list[int]
) -> None:
    for seed, count in enumerate(counts):
        images = windows(count, seed)
        np.testing.assert_allclose(detector.encode(images), expected(images), atol=1e-6)


def expect_features(detector: TensorRtDetector, images: np.ndarray) -> None:
    np.testing.assert_allclose(detector.encode(images), expected(images), atol=1e-6)


def test_it_scores_as_onnx_runtime_does(detector: TensorRtDetector, machine: Machine) -> None:
    reference = OnnxDetector(machine.bundle, EngineOptions(threads=1))
    images, zero = windows(1), detector.zero_state()
    found = detector.step(detector.encode(images), zero)
    wanted = reference.step(reference.encode(images), zero)
    np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-6)
    assert (detector.name, detector.device, detector.precision) == ("tensorrt_rtx", "cuda", "fp32")


def test_the_next_batch_is_copied_before_the_last_one_is_waited_for(
    detector: TensorRtDetector, machine: Machine
) -> None:
    machine.gpu.timeline.clear()
    detector.encode(windows(4 * BATCHES.largest))
    streams = list(dict.fromkeys(stream for _, stream in machine.gpu.timeline))
    # Runs of one stream fold into one: started on both, then by turns waited for and refilled.
    turns = [(what == "wait", streams.index(stream)) for what, stream in machine.gpu.timeline]
    folded = [turn for turn, before in zip(turns, [None, *turns], strict=False) if turn != before]
    start, wait = False, True
    assert folded == [
        (start, 0), (start, 1), (wait, 0), (start, 0), (wait, 1), (start, 1), (wait, 0), (wait, 1),
    ]  # fmt: skip


def test_batches_of_the_profile_are_launched_as_graphs_and_others_are_not(
    detector: TensorRtDetector, machine: Machine
) -> None:
    for batch in range(1, BATCHES.largest + 1):
        machine.gpu.timeline.clear()
        machine.gpu.windows_run = 0
        detector.encode(windows(batch))
        assert machine.gpu.windows_run == batch
        launched = "launch" in [what for what, _ in machine.gpu.timeline]
        assert launched == (batch in (1, BATCHES.preferred, BATCHES.largest))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda gpu: setattr(gpu, "capturable", False),
        lambda gpu: gpu.refused.update(cudaGraphInstantiate=STATUS.cudaErrorNotSupported),
        lambda gpu: gpu.refused.update(cudaStreamBeginCapture=STATUS.cudaErrorNotSupported),
    ],
)
def test_without_graphs_it_runs_step_by_step_and_says_so(
    machine: Machine, caplog: pytest.LogCaptureFixture, spoil: object
) -> None:
    assert callable(spoil)
    spoil(machine.gpu)
    detector = machine.load()
    with caplog.at_level(logging.WARNING):
        detector.warm_up(BATCHES.largest)
    assert "batches of 8 run without a CUDA graph" in caplog.text
    images = windows(20)
    np.testing.assert_allclose(detector.encode(images), expected(images), atol=1e-6)


@pytest.mark.parametrize(("room", "largest"), [(8, 8), (7, 4), (3, 2), (1, 1)])
def test_where_memory_is_short_the_batch_is_halved_until_it_fits(
    machine: Machine, caplog: pytest.LogCaptureFixture, room: int, largest: int
) -> None:
    machine.gpu.memory_bytes = SLOTS * room * PER_WINDOW
    detector = machine.load()
    detector.warm_up(BATCHES.largest)
    images = windows(20)
    np.testing.assert_allclose(detector.encode(images), expected(images), atol=1e-6)
    assert len(machine.shrinks) == int(np.log2(BATCHES.largest // largest))
    assert ("going on with batches of" in caplog.text) == (largest < BATCHES.largest)
    assert machine.gpu.used_bytes == SLOTS * largest * PER_WINDOW


def test_memory_that_runs_out_while_running_costs_batch_size_and_no_window(
    detector: TensorRtDetector, machine: Machine
) -> None:
    machine.gpu.largest_run = 3
    images = windows(7)  # no batch of the profile, so TensorRT itself finds no room
    np.testing.assert_allclose(detector.encode(images), expected(images), atol=1e-6)
    assert len(machine.shrinks) == 2


@pytest.mark.parametrize("where", ["cudaGraphLaunch", "cudaStreamSynchronize"])
def test_want_of_memory_is_known_wherever_it_shows(
    detector: TensorRtDetector, machine: Machine, where: str
) -> None:
    machine.gpu.refused[where] = STATUS.cudaErrorMemoryAllocation
    with pytest.raises(EngineError, match="cudaErrorMemoryAllocation"):
        detector.encode(windows(8))
    assert len(machine.shrinks) == 3  # 8, 4, 2, 1


def test_a_halved_batch_is_doubled_again_once_there_is_room(
    detector: TensorRtDetector, machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    machine.gpu.largest_run = 3
    detector.encode(windows(7))
    machine.gpu.largest_run = 100
    images = windows(20)
    expect_features(detector, images)
    machine.now_seconds += FIRST_STRETCH_SECONDS - 1
    expect_features(detector, images)
    assert machine.resizes == [(8, 4), (4, 2)]
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            machine.now_seconds += FIRST_STRETCH_SECONDS
            expect_features(detector, images)
    assert machine.resizes[2:] == [(2, 4), (4, 8)]
    assert machine.gpu.used_bytes == SLOTS * 8 * PER_WINDOW
    assert "there is room again for batches of 8" in caplog.text


def test_a_larger_batch_is_not_tried_for_windows_that_need_none(
    detector: TensorRtDetector, machine: Machine
) -> None:
    machine.gpu.largest_run = 3
    detector.encode(windows(7))
    machine.now_seconds += 10 * FIRST_STRETCH_SECONDS
    expect_features(detector, windows(2))
    assert machine.resizes == [(8, 4), (4, 2)]


def test_a_device_that_stays_full_is_tried_ever_more_seldom_and_costs_no_window(
    machine: Machine,
) -> None:
    machine.gpu.memory_bytes = SLOTS * 7 * PER_WINDOW
    detector = machine.load()
    detector.warm_up(BATCHES.largest)
    images, tries = windows(20), []
    for minute in range(200):
        machine.now_seconds = 60.0 * minute
        before = len(machine.resizes)
        expect_features(detector, images)
        if len(machine.resizes) > before:
            assert machine.resizes[before:] == [(4, 8), (8, 4)]
            tries.append(minute)
    assert tries == [1, 3, 7, 15, 31, 63, 123, 183]
    assert machine.gpu.used_bytes == SLOTS * 4 * PER_WINDOW


def test_room_that_lasted_a_stretch_makes_the_next_stretch_a_short_one(
    detector: TensorRtDetector, machine: Machine
) -> None:
    images = windows(20)
    for room in (7, 7, 100, 7, 100):  # fills, stays full, is free, fills again, is free
        machine.gpu.memory_bytes = SLOTS * room * PER_WINDOW
        if room == 7:
            detector.close()
        machine.now_seconds += 4 * FIRST_STRETCH_SECONDS
        expect_features(detector, images)
    machine.now_seconds += FIRST_STRETCH_SECONDS
    expect_features(detector, images)
    assert machine.resizes == [(8, 4), (4, 8), (8, 4), (4, 8), (8, 4), (4, 8)]


def test_no_room_for_one_window_fails_that_call_and_not_the_next(
    detector: TensorRtDetector, machine: Machine
) -> None:
    machine.gpu.largest_run = 0
    with pytest.raises(EngineError, match=r"out of memory.*check the GPU"):
        detector.encode(windows(7))
    assert machine.gpu.things_held == 0
    machine.gpu.largest_run = 100
    images = windows(7)
    np.testing.assert_allclose(detector.encode(images), expected(images), atol=1e-6)


def test_a_device_that_fails_is_named_and_does_not_shrink(
    detector: TensorRtDetector, machine: Machine
) -> None:
    machine.gpu.refused["cudaStreamSynchronize"] = STATUS.cudaErrorIllegalAddress
    with pytest.raises(EngineError, match="cudaStreamSynchronize failed with cudaErrorIllegalAddr"):
        detector.encode(windows(3))
    assert machine.shrinks == []
    assert machine.gpu.things_held == 0
    del machine.gpu.refused["cudaStreamSynchronize"]
    images = windows(3)
    np.testing.assert_allclose(detector.encode(images), expected(images), atol=1e-6)


def test_closing_gives_all_back(machine: Machine) -> None:
    detector = machine.load()
    detector.warm_up(BATCHES.largest)
    assert machine.gpu.things_held > 0
    detector.close()
    assert machine.gpu.things_held == 0


def test_a_plan_for_single_windows_works(machine: Machine) -> None:
    detector = machine.load(Batches(1, 1))
    detector.warm_up(1)
    images = windows(5)
    np.testing.assert_allclose(detector.encode(images), expected(images), atol=1e-6)


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="there is a GPU")
def test_a_machine_without_a_driver_says_so() -> None:
    with pytest.raises(EngineError, match=r"cudaGetDeviceCount failed with cudaError.*onnxruntime"):
        Cuda(runtime)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("cudaMalloc", ()), ("cudaMalloc", (1, 2)), ("cudaMemcpyAsync", (1, 2, 3)), ("cudaNo", ())],
)
def test_the_made_up_gpu_takes_no_call_that_the_real_one_would_not(
    name: str, arguments: tuple[int, ...]
) -> None:
    with pytest.raises((TypeError, AttributeError)):
        getattr(FakeGpu(), name)(*arguments)
