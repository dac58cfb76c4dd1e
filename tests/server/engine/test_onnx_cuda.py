"""ONNX Runtime on CUDA, on a made-up GPU: bound memory, padded batches, room that runs out."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from cuda.bindings import runtime
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.bundle import DEFAULT_BUNDLE, Bundle, BundleError, load_bundle
from server.engine.batch_limit import FIRST_STRETCH_SECONDS
from server.engine.choice import choice_of, load_engine
from server.engine.cuda import Cuda
from server.engine.flags import EngineFlags
from server.engine.onnx_cuda import CudaOptions, OnnxCudaDetector
from server.engine.onnx_cuda_runner import batch_sizes
from server.engine.onnxruntime import EngineError, EngineOptions, OnnxDetector, open_session
from tests.support.fake_cuda_session import ARENA_BYTES, WEIGHTS_BYTES, FakeCudaSessions
from tests.support.fake_gpu import FakeGpu
from tests.support.tiny_bundle import make_tiny_bundle
from tests.support.tiny_encoders import bundle_with_encoder

LARGEST = 8
WINDOW_BYTES = 4 * 24 * 32 * 3
PER_WINDOW = WINDOW_BYTES + 3 * 4 + ARENA_BYTES


@dataclass
class CudaMachine:
    """Loads a bundle on a made-up GPU, and counts what it is told."""

    bundle: Bundle
    gpu: FakeGpu = field(default_factory=FakeGpu)
    resizes: list[tuple[int, int]] = field(default_factory=list)
    now_seconds: float = 0.0

    def __post_init__(self) -> None:
        self.sessions = FakeCudaSessions(self.gpu)

    def load(self, largest: int = LARGEST) -> OnnxCudaDetector:
        options = CudaOptions(
            largest,
            lambda before, after: self.resizes.append((before, after)),
            lambda: self.now_seconds,
        )
        return OnnxCudaDetector(self.bundle, options, Cuda(self.gpu), self.sessions)


@pytest.fixture
def gpu_machine(bundle: Bundle) -> CudaMachine:
    return CudaMachine(bundle)


@pytest.fixture
def on_gpu(gpu_machine: CudaMachine) -> Iterator[OnnxCudaDetector]:
    loaded = gpu_machine.load()
    loaded.warm_up(LARGEST)
    gpu_machine.sessions.batches.clear()
    yield loaded
    loaded.close()


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
    on_gpu: OnnxCudaDetector, counts: list[int]
) -> None:
    for seed, count in enumerate(counts):
        images = windows(count, seed)
        np.testing.assert_allclose(on_gpu.encode(images), expected(images), atol=1e-6)


def test_features_and_scores_of_a_real_encoder_are_those_of_a_plain_run() -> None:
    bundle = load_bundle(DEFAULT_BUNDLE)
    found = CudaMachine(bundle).load(4)
    plain = open_session(bundle.encoder_path, "cpu", threads=1)
    shape = plain.get_inputs()[0].shape[1:]
    images = np.random.default_rng(0).integers(0, 256, (4, *shape), np.uint8)
    [wanted] = plain.run(["feature"], {"images": images})
    features = found.encode(images)
    assert np.array_equal(features, wanted)
    reference = OnnxDetector(bundle, EngineOptions(threads=1))
    zero = found.zero_state()
    assert np.array_equal(
        found.step(features[:1], zero).scores, reference.step(wanted[:1], zero).scores
    )
    assert (found.name, found.device, found.precision) == ("onnxruntime", "cuda", "fp32")
    found.close()


@given(largest=st.integers(1, 256))
def test_every_batch_is_padded_by_less_than_as_much_again(largest: int) -> None:
    sizes = batch_sizes(largest)
    assert sizes == tuple(sorted(set(sizes)))
    assert sizes[-1] == largest
    for count in range(1, largest + 1):
        size = next(size for size in sizes if size >= count)
        assert size < 2 * count


def test_only_batches_that_were_recorded_before_it_was_ready_are_ever_run(
    on_gpu: OnnxCudaDetector, gpu_machine: CudaMachine
) -> None:
    sessions = gpu_machine.sessions
    assert sessions.recorded == [1, 2, 4, 8]
    runs = {count: batches_of(on_gpu, sessions, count) for count in (1, 2, 3, 5, 8, 9, 21)}
    assert runs == {1: [1], 2: [2], 3: [4], 5: [8], 8: [8], 9: [8, 1], 21: [8, 8, 8]}
    thread = threading.Thread(target=on_gpu.encode, args=(windows(2),))
    thread.start()
    thread.join()
    assert sessions.recorded == [1, 2, 4, 8]


def batches_of(detector: OnnxCudaDetector, sessions: FakeCudaSessions, count: int) -> list[int]:
    sessions.batches.clear()
    detector.encode(windows(count))
    return list(sessions.batches)


def test_no_call_takes_memory_or_gives_it_back(
    on_gpu: OnnxCudaDetector, gpu_machine: CudaMachine
) -> None:
    gpu = gpu_machine.gpu
    assert gpu.used_bytes == WEIGHTS_BYTES + LARGEST * PER_WINDOW
    for name in ("cudaMalloc", "cudaHostAlloc", "cudaFree", "cudaFreeHost"):
        gpu.refused[name] = runtime.cudaError_t.cudaErrorNotSupported
    for count in (3, 8, 30):
        on_gpu.encode(windows(count))
    gpu.refused.clear()


def test_what_pads_a_batch_has_no_say_in_it(on_gpu: OnnxCudaDetector) -> None:
    images = windows(3, seed=1)
    alone = on_gpu.encode(images)
    on_gpu.encode(np.full((8, 4, 24, 32, 3), 255, np.uint8))
    assert np.array_equal(on_gpu.encode(images), alone)


def test_sessions_are_asked_for_with_all_that_matters(gpu_machine: CudaMachine) -> None:
    gpu_machine.load().close()
    [options] = gpu_machine.sessions.options
    assert int(options.pop("user_compute_stream")) > 0
    assert options == {
        "device_id": "0",
        "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_algo_search": "HEURISTIC",
        "do_copy_in_default_stream": "1",
        "use_tf32": "0",
        "enable_cuda_graph": "1",
    }


@pytest.mark.parametrize(
    "spoil",
    [
        lambda sessions: setattr(sessions, "recordable", False),
        lambda sessions: setattr(sessions, "refuses_recording", "CUDA failure 900: not permitted"),
    ],
)
def test_what_cannot_be_recorded_runs_without_graphs_and_says_so(
    gpu_machine: CudaMachine,
    caplog: pytest.LogCaptureFixture,
    spoil: Callable[[FakeCudaSessions], None],
) -> None:
    spoil(gpu_machine.sessions)
    with caplog.at_level(logging.WARNING):
        detector = gpu_machine.load()
    assert "runs without CUDA graphs" in caplog.text
    assert [one["enable_cuda_graph"] for one in gpu_machine.sessions.options] == ["1", "0"]
    assert gpu_machine.gpu.used_bytes == WEIGHTS_BYTES + LARGEST * PER_WINDOW
    images = windows(11)
    np.testing.assert_allclose(detector.encode(images), expected(images), atol=1e-6)
    detector.close()


@pytest.mark.parametrize(("room", "largest"), [(8, 8), (7, 4), (3, 2), (1, 1)])
def test_where_memory_is_short_the_batch_is_halved_until_it_fits(
    gpu_machine: CudaMachine, caplog: pytest.LogCaptureFixture, room: int, largest: int
) -> None:
    gpu_machine.gpu.memory_bytes = WEIGHTS_BYTES + room * PER_WINDOW
    detector = gpu_machine.load()
    images = windows(20)
    np.testing.assert_allclose(detector.encode(images), expected(images), atol=1e-6)
    assert len(gpu_machine.resizes) == int(np.log2(LARGEST // largest))
    assert ("going on with batches of" in caplog.text) == (largest < LARGEST)
    assert gpu_machine.gpu.used_bytes == WEIGHTS_BYTES + largest * PER_WINDOW
    detector.close()


def test_a_gpu_without_room_for_the_weights_is_refused(gpu_machine: CudaMachine) -> None:
    gpu_machine.gpu.memory_bytes = WEIGHTS_BYTES
    with pytest.raises(EngineError, match=r"free memory of the GPU"):
        gpu_machine.load()
    assert gpu_machine.gpu.things_held == 0


def test_memory_that_runs_out_while_running_costs_batch_size_and_no_window(
    on_gpu: OnnxCudaDetector, gpu_machine: CudaMachine
) -> None:
    gpu_machine.gpu.largest_run = 3
    images = windows(7)
    np.testing.assert_allclose(on_gpu.encode(images), expected(images), atol=1e-6)
    assert len(gpu_machine.resizes) == 2


def test_the_batch_grows_back_once_there_is_room_again(
    on_gpu: OnnxCudaDetector, gpu_machine: CudaMachine
) -> None:
    gpu_machine.gpu.largest_run = 4
    on_gpu.encode(windows(8))
    gpu_machine.gpu.largest_run = LARGEST
    gpu_machine.now_seconds = FIRST_STRETCH_SECONDS
    images = windows(8)
    np.testing.assert_allclose(on_gpu.encode(images), expected(images), atol=1e-6)
    assert gpu_machine.resizes == [(8, 4), (4, 8)]


def test_no_room_for_one_window_fails_that_call_and_not_the_next(
    on_gpu: OnnxCudaDetector, gpu_machine: CudaMachine
) -> None:
    gpu_machine.gpu.largest_run = 0
    with pytest.raises(EngineError, match=r"\(CUBLAS failure 3: .*FAILED\); free memory"):
        on_gpu.encode(windows(7))
    assert gpu_machine.gpu.things_held == 0
    gpu_machine.gpu.largest_run = 100
    images = windows(7)
    np.testing.assert_allclose(on_gpu.encode(images), expected(images), atol=1e-6)


@pytest.mark.parametrize("where", ["a run", "a wait"])
def test_a_device_that_fails_is_named_and_does_not_shrink(
    on_gpu: OnnxCudaDetector, gpu_machine: CudaMachine, where: str
) -> None:
    sessions, refused = gpu_machine.sessions, gpu_machine.gpu.refused
    if where == "a run":
        sessions.refused = "cuda_call.cc CUDA failure 700: an illegal memory access ; GPU=0 ; "
    else:
        refused["cudaStreamSynchronize"] = runtime.cudaError_t.cudaErrorIllegalAddress
    with pytest.raises(EngineError, match=r"\(CUDA failure 700: an illegal|cudaErrorIllegalAddr"):
        on_gpu.encode(windows(3))
    assert gpu_machine.resizes == []
    assert gpu_machine.gpu.things_held == 0
    sessions.refused = ""
    refused.clear()
    images = windows(3)
    np.testing.assert_allclose(on_gpu.encode(images), expected(images), atol=1e-6)


def test_a_graph_that_is_gone_when_it_is_loaded_anew_fails_that_call_alone(
    tmp_path: Path,
) -> None:
    machine = CudaMachine(make_tiny_bundle(tmp_path / "bundle"))
    detector = machine.load()
    detector.close()
    path, elsewhere = machine.bundle.encoder_path, tmp_path / "elsewhere"
    path.rename(elsewhere)
    with pytest.raises(EngineError, match=r"cannot be loaded by ONNX Runtime"):
        detector.encode(windows(1))
    elsewhere.rename(path)
    assert len(detector.encode(windows(1))) == 1
    detector.close()


def test_an_engine_that_cannot_be_opened_leaves_no_thread(gpu_machine: CudaMachine) -> None:
    gpu_machine.gpu.memory_bytes = 0
    before = threading.active_count()
    with pytest.raises(EngineError):
        gpu_machine.load()
    assert threading.active_count() == before


def test_closing_gives_all_back_and_a_later_call_takes_it_again(gpu_machine: CudaMachine) -> None:
    detector = gpu_machine.load()
    assert gpu_machine.gpu.things_held > 0
    detector.close()
    assert gpu_machine.gpu.things_held == 0
    images = windows(2)
    np.testing.assert_allclose(detector.encode(images), expected(images), atol=1e-6)
    detector.close()


def test_a_graph_of_another_shape_is_refused(tmp_path: Path) -> None:
    machine = CudaMachine(make_tiny_bundle(tmp_path / "bundle", feature_dim_said=5))
    with pytest.raises(BundleError, match=r"has .*feature float32 \(\*, 3\), the manifest says"):
        machine.load()
    assert machine.gpu.things_held == 0


@pytest.mark.parametrize("precision", ["bf16", "int8", "int8-symmetric"])
def test_precisions_that_cuda_lacks_are_refused_with_what_to_do(
    tmp_path: Path, precision: str
) -> None:
    machine = CudaMachine(bundle_with_encoder(tmp_path / "bundle", precision))  # type: ignore[arg-type]
    sentence = rf"is in {precision}, which .* on cuda \(fp32, fp16\); export it with --precision"
    with pytest.raises(EngineError, match=sentence):
        machine.load()
    assert machine.sessions.options == []


def test_bf16_is_refused_on_the_cpu_with_what_to_do(tmp_path: Path) -> None:
    bundle = bundle_with_encoder(tmp_path / "bundle", "bf16")
    with pytest.raises(
        EngineError, match=r"in bf16, .* on cpu \(fp32.*\); .*engine\.name=tensorrt"
    ):
        OnnxDetector(bundle, EngineOptions())


@pytest.mark.skipif(
    "CUDAExecutionProvider" in ort.get_available_providers(), reason="ONNX Runtime knows CUDA"
)
def test_a_build_without_cuda_is_named_before_anything_is_loaded(bundle: Bundle) -> None:
    choice = choice_of(EngineFlags(device="cuda"), LARGEST)
    with pytest.raises(EngineError, match=r"has no CUDAExecutionProvider; install .* gpu extra"):
        load_engine(bundle, choice, threading.Event(), lambda: None)


def test_a_device_that_fails_while_loading_is_not_blamed_on_the_bundle(bundle: Bundle) -> None:
    gpu = FakeGpu()

    def opened(path: Path, options: Mapping[str, str]) -> ort.InferenceSession:
        cause = RuntimeError("cuda_call.cc:148 CUDA failure 35: driver is too old ; GPU=-1 ; file")
        raise BundleError(f"{path} cannot be loaded; export it again") from cause

    with pytest.raises(EngineError, match=r"\(CUDA failure 35: driver is too old\); check the"):
        OnnxCudaDetector(bundle, CudaOptions(1), Cuda(gpu), opened)
    assert gpu.things_held == 0


def test_a_provider_that_falls_back_is_refused(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As ONNX Runtime's GPU build does where a library is missing: a session, on the CPU.
    real = ort.InferenceSession
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(
        ort,
        "InferenceSession",
        lambda path, options, **_: real(path, options, providers=["CPUExecutionProvider"]),
    )
    with pytest.raises(EngineError, match=r"fell back to CPUExecutionProvider; mend the driver"):
        open_session(bundle.encoder_path, "cuda")


@pytest.mark.parametrize(
    "call",
    [
        lambda session: session.run_with_iobinding(),
        lambda session: session.io_binding().bind_input("images", "cuda", 0, np.uint8),
        lambda session: session.io_binding().bind_inputs("images"),
    ],
)
def test_the_made_up_session_takes_no_call_that_the_real_one_would_not(
    gpu_machine: CudaMachine, call: Callable[[object], object]
) -> None:
    options = {"user_compute_stream": "1", "enable_cuda_graph": "1"}
    session = gpu_machine.sessions(gpu_machine.bundle.encoder_path, options)
    with pytest.raises((TypeError, AttributeError)):
        call(session)
