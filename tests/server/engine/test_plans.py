"""Plans that the real TensorRT for RTX builds without a GPU; kept, found again and refused."""

from __future__ import annotations

import json
import logging
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import tensorrt_rtx

from server.bundle import Bundle, BundleError, Precision
from server.engine.choice import Engine, EngineChoice, load_engine
from server.engine.onnxruntime import EngineError
from server.engine.plans import Batches, PlanKey, PlanStore
from server.engine.tensorrt import plan_key
from server.engine.tensorrt_build import BuildTask, build_plan, load_tensorrt, make_log
from tests.server.engine.conftest import BATCHES, Machine
from tests.support.disk import largest_file
from tests.support.tiny_bundle import make_tiny_bundle
from tests.support.tiny_encoders import bundle_with_encoder

CHOICE = EngineChoice("tensorrt_rtx", None, None, BATCHES, True, None)


def build(bundle: Bundle, cancelled: threading.Event | None = None) -> bytes:
    inputs, outputs = bundle.manifest.encoder_tensors()
    task = BuildTask(bundle.encoder_path, inputs, outputs, BATCHES)
    if cancelled is not None:
        task = replace(task, cancelled=cancelled)
    return build_plan(tensorrt_rtx, make_log(tensorrt_rtx), task)


def load(bundle: Bundle, choice: EngineChoice) -> Engine:
    return load_engine(bundle, choice, threading.Event(), lambda before, after: None)


@pytest.fixture
def own(machine: Machine, tmp_path: Path) -> Machine:
    """A machine whose plans are its own."""
    return replace(machine, plans=tmp_path / "plans")


def written(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8-symmetric", "fp8"])
def test_encoders_of_every_precision_build_with_a_dynamic_batch(
    tmp_path: Path, precision: Precision
) -> None:
    assert build(bundle_with_encoder(tmp_path / "bundle", precision)).startswith(b"vtrt")


def test_zero_points_are_refused_by_the_manifest_and_by_the_parser(
    own: Machine, tmp_path: Path
) -> None:
    honest = bundle_with_encoder(tmp_path / "honest", "int8", zero_point=3)
    with pytest.raises(EngineError, match=r"int8 activations with a zero point.*--engine tensorrt"):
        replace(own, bundle=honest).load()
    lying = bundle_with_encoder(tmp_path / "lying", "int8", zero_point=3, said="int8-symmetric")
    with pytest.raises(BundleError, match=r"cannot be parsed by TensorRT \(.*zero.*\); export"):
        replace(own, bundle=lying).load()
    assert not list(own.plans.iterdir())


def test_a_graph_of_another_shape_is_refused(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "bundle", feature_dim_said=5)
    with pytest.raises(BundleError, match=r"has output feature float32 \(\*, 3\), the manifest"):
        build(bundle)


def test_a_file_that_is_no_graph_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "encoder.onnx"
    path.write_bytes(b"no graph")
    inputs, outputs = bundle.manifest.encoder_tensors()
    with pytest.raises(BundleError, match=r"encoder\.onnx cannot be parsed by TensorRT \(.+\)"):
        build_plan(tensorrt_rtx, make_log(tensorrt_rtx), BuildTask(path, inputs, outputs, BATCHES))


def test_a_build_can_be_cancelled(bundle: Bundle) -> None:
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(EngineError, match="was cancelled"):
        build(bundle, cancelled)


def test_a_plan_is_kept_with_its_key_in_words_and_used_again(own: Machine) -> None:
    own.load()
    kept = written(own.plans)
    [beside] = own.plans.glob("*.json")
    key = json.loads(beside.read_text())["key"]
    assert key == {
        "engine": "tensorrt_rtx",
        "version": tensorrt_rtx.__version__,
        "device": "Made-up, compute capability 8.9",
        "graph_sha256": own.bundle.manifest.encoder.graph.sha256,
        "precision": "fp32",
        "batches": {"preferred": 4, "largest": 8},
    }
    own.load(may_build=False)
    assert written(own.plans) == kept
    assert len(kept) == 2


def test_a_head_step_builds_with_a_dynamic_batch(bundle: Bundle) -> None:
    inputs, outputs = bundle.manifest.head_tensors()
    task = BuildTask(bundle.head_path, inputs, outputs, BATCHES)
    assert build_plan(tensorrt_rtx, make_log(tensorrt_rtx), task).startswith(b"vtrt")


def test_a_bundle_keeps_its_own_plans_and_stays_whole(tmp_path: Path, own: Machine) -> None:
    bundle = make_tiny_bundle(tmp_path / "bundle")
    own.bundle, own.plans = bundle, bundle.directory / "engines"
    own.load()
    assert len(list(own.plans.glob("*.plan"))) == 1


def test_another_key_is_built_anew_beside_the_first(own: Machine) -> None:
    own.load()
    own.load(Batches(2, 4))
    assert len(list(own.plans.glob("*.plan"))) == 2


def keep_older(machine: Machine, bundle_name: str = "tiny", **changes: str) -> PlanKey:
    """A plan of another time or place beside those of the machine."""
    key = plan_key(machine.bundle, BATCHES, tensorrt_rtx, "Made-up, compute capability 8.9")
    store = PlanStore(machine.plans, bundle_name)
    store.prepare()
    older = replace(key, **changes)  # type: ignore[arg-type]
    store.keep(older, b"an older plan")
    return older


@pytest.mark.parametrize("changes", [{"version": "1.0"}, {"graph_sha256": "0" * 64}])
def test_a_new_plan_takes_the_place_of_what_it_replaces(
    own: Machine, caplog: pytest.LogCaptureFixture, changes: dict[str, str]
) -> None:
    older = keep_older(own, **changes)
    with caplog.at_level(logging.INFO):
        own.load()
    assert f"removed {older.stem}, which encoder-tensorrt_rtx-" in caplog.text
    assert older.stem not in {path.stem for path in own.plans.iterdir()}
    assert len(list(own.plans.iterdir())) == 2
    own.load(may_build=False)


def test_what_another_may_still_need_or_made_is_left_alone(own: Machine) -> None:
    left = [
        keep_older(own, device="Another, compute capability 9.0", version="1.0"),
        keep_older(own, engine="tensorrt", version="1.0"),
        keep_older(own, precision="fp16", graph_sha256="0" * 64),
        keep_older(own, "another bundle", graph_sha256="1" * 64),
    ]
    renamed = keep_older(own, version="0.9").stem
    strange = {
        "encoder-mine.json": b"{}",
        "encoder-tensorrt_rtx-0123456789abcdef.json": b"[1]",
        "encoder-tensorrt_rtx-0123456789abcdee.json": b"no JSON",
        "notes.txt": b"of a person",
    }
    for name, content in strange.items():
        (own.plans / name).write_bytes(content)
    for suffix in (".plan", ".json"):
        away = own.plans / f"encoder-tensorrt_rtx-{'f' * 16}{suffix}"
        (own.plans / f"{renamed}{suffix}").rename(away)
    before = written(own.plans)
    assert {f"{key.stem}.plan" for key in left} < before.keys()
    own.load()
    assert before.items() <= written(own.plans).items()


def test_nothing_is_removed_when_the_new_plan_cannot_be_kept(own: Machine) -> None:
    keep_older(own, version="1.0")
    before = written(own.plans)
    with largest_file(1000), pytest.raises(EngineError, match="plans cannot be kept in"):
        own.load()
    assert written(own.plans) == before


def test_an_old_plan_that_cannot_be_removed_is_told_of(
    own: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    older = keep_older(own, version="1.0")
    plan = own.plans / f"{older.stem}.plan"
    plan.unlink()
    plan.mkdir()  # even root cannot unlink a folder
    own.load()
    assert f"the old plan {plan.with_suffix('.json')} cannot be removed" in caplog.text
    own.load(may_build=False)


@pytest.mark.parametrize("field", ["version", "device", "precision", "graph_sha256"])
def test_a_plan_renamed_to_another_key_is_not_found(own: Machine, field: str) -> None:
    own.load()
    key = plan_key(own.bundle, BATCHES, tensorrt_rtx, "Made-up, compute capability 8.9")
    other = replace(key, **{field: "another"})
    for suffix in (".plan", ".json"):
        (own.plans / f"{key.stem}{suffix}").rename(own.plans / f"{other.stem}{suffix}")
    store = PlanStore(own.plans, "tiny")
    assert store.find(key) is None
    assert store.find(other) is None


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("spoil", [cut, flip, Path.unlink])
@pytest.mark.parametrize("suffix", ["plan", "json"])
def test_a_spoilt_plan_is_refused_without_building_and_built_anew_with_it(
    own: Machine, spoil: object, suffix: str
) -> None:
    own.load()
    [path] = own.plans.glob(f"*.{suffix}")
    assert callable(spoil)
    spoil(path)
    with pytest.raises(EngineError, match=r"no usable plan of encoder\.onnx for.*engine\.build"):
        own.load(may_build=False)
    own.load()
    own.load(may_build=False)


def test_a_plan_that_the_engine_does_not_load_is_built_anew(own: Machine) -> None:
    key = plan_key(own.bundle, BATCHES, tensorrt_rtx, "Made-up, compute capability 8.9")
    store = PlanStore(own.plans, "tiny")
    store.prepare()
    store.keep(key, b"of a version that called itself the same")
    own.load()
    own.load(may_build=False)


def test_a_full_gpu_does_not_make_it_build_again(own: Machine) -> None:
    own.load()
    kept = written(own.plans)
    own.gpu.memory_bytes = 0
    with pytest.raises(EngineError, match=r"cannot load a plan \(.*OutOfMemory\); check the GPU"):
        own.load()
    assert written(own.plans) == kept


def test_a_folder_that_cannot_be_written_is_named_before_the_build(own: Machine) -> None:
    own.plans.write_text("a file")
    with pytest.raises(EngineError, match=r"plans cannot be kept in .*engine\.plans"):
        own.load()


def test_the_build_tells_of_its_progress(own: Machine, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        own.load()
    told = [record.message for record in caplog.records if "tensorrt_build" in record.name]
    assert told[0].startswith("building a plan of encoder.onnx")
    assert told[-1].startswith("built in ")


def test_the_engine_asked_for_runs_or_nothing_does(bundle: Bundle) -> None:
    assert load(bundle, replace(CHOICE, name="onnxruntime")).name == "onnxruntime"
    with pytest.raises(EngineError, match=r"engine\.device is cpu; leave engine\.device out"):
        load(bundle, replace(CHOICE, device="cpu"))


def test_a_module_that_is_not_installed_is_named_with_the_remedy() -> None:
    try:
        import tensorrt  # noqa: F401
    except ImportError:
        with pytest.raises(EngineError, match=r"engine\.name is tensorrt.*gvvad\[trt\]"):
            load_tensorrt("tensorrt")
    else:
        pytest.skip("tensorrt is installed")


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="there is a GPU")
def test_without_a_gpu_the_engine_is_refused_in_one_sentence(bundle: Bundle) -> None:
    with pytest.raises(EngineError, match=r"cudaErrorInsufficientDriver; .*name=onnxruntime"):
        load(bundle, CHOICE)
