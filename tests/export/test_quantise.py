"""8 bits: near the original by measure, of the kind that the engine takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from export.calibration import WINDOWS, Windows, calibration_windows
from export.qdq import EightBits
from export.quantise import Quantised, Wanted, quantise
from export.tower import EngineName, TowerForm, export_tower
from server.contract import WindowSpec
from server.ingest.video import file_windows
from tests.export.test_tower import cosines, run
from tests.support.clip_model import EMBED_DIM, RESNET, TWO_LAYERS, write_clip_model
from tests.support.clips import write_clip
from tests.support.disk import largest_file
from tests.support.footage import frames
from tests.support.plans import built
from training.clips import TrainingError
from training.encoders import ClipEncoder

MULTIPLICATIONS = 13
"""Of two layers, six each, and of the projection."""


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for number in range(4):
        write_clip(folder / f"{number}.mp4", frames(number, 64, wild=number % 2 == 1), fps=10)
    (folder / "broken.mp4").write_bytes(b"no video")
    (folder / "notes.txt").write_text("no video either")
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> ClipEncoder:
    config, weights = write_clip_model(tmp_path_factory.mktemp("two"), "gvvad-two", TWO_LAYERS)
    return ClipEncoder(str(config), str(weights), 1)


@pytest.fixture(scope="module")
def windows(encoder: ClipEncoder, clips: Path) -> Windows:
    return calibration_windows(clips, encoder.window, encoder.preprocess)


Graphs = Callable[[EightBits], Path]


@pytest.fixture(scope="module")
def graphs(encoder: ClipEncoder, tmp_path_factory: pytest.TempPathFactory) -> Graphs:
    """What is rounded, made once: for a CPU in fp32, for TensorRT in fp16."""
    folder = tmp_path_factory.mktemp("exact")

    @cache
    def exported(engine: EngineName) -> Path:
        path = folder / f"{engine}.onnx"
        export_tower(encoder, TowerForm(engine, "int8"), path)
        return path

    return lambda kind: exported("onnxruntime" if kind == "int8" else "tensorrt")


@dataclass(frozen=True)
class Case:
    """A graph, and the kind of 8 bits that it is to have."""

    source: Path
    kind: EightBits

    def quantise(self, target: Path, windows: Windows, least: float = 0.99) -> Quantised:
        return quantise(self.source, target, windows, Wanted(self.kind, least))


FOR_TENSORRT = [
    pytest.param("int8-symmetric", marks=pytest.mark.long),
    pytest.param("fp8", marks=pytest.mark.long),
]


@pytest.fixture(params=["int8", *FOR_TENSORRT])
def case(request: pytest.FixtureRequest, graphs: Graphs) -> Case:
    return Case(graphs(request.param), request.param)


def test_what_is_said_of_the_cosine_is_so(case: Case, tmp_path: Path, windows: Windows) -> None:
    found = case.quantise(tmp_path / "q.onnx", windows)
    one, two = (run(path, windows.held_out) for path in (case.source, tmp_path / "q.onnx"))
    assert found.cosine == pytest.approx(cosines(one, two).mean(), abs=2e-5)
    assert found.cosine > 0.99
    assert (found.multiplications, found.spared) == (MULTIPLICATIONS, ())
    share = 0.4 if case.kind == "int8" else 0.7
    assert (tmp_path / "q.onnx").stat().st_size < share * case.source.stat().st_size
    assert [path.name for path in tmp_path.iterdir()] == ["q.onnx"]


@pytest.mark.long
def test_the_cosine_is_that_to_features_in_full_precision(
    encoder: ClipEncoder, graphs: Graphs, tmp_path: Path, windows: Windows
) -> None:
    wanted = Wanted("fp8", 0.9, encoder.encode)
    found = quantise(graphs("fp8"), tmp_path / "q.onnx", windows, wanted)
    expected = encoder.encode(windows.held_out)
    made = cosines(run(tmp_path / "q.onnx", windows.held_out), expected).mean()
    assert found.cosine == pytest.approx(made, abs=2e-5)


@pytest.mark.parametrize("kind", FOR_TENSORRT)
def test_tensorrt_builds_a_plan_of_what_has_no_zero_points(
    encoder: ClipEncoder,
    graphs: Graphs,
    tmp_path: Path,
    windows: Windows,
    kind: EightBits,
) -> None:
    Case(graphs(kind), kind).quantise(tmp_path / "q.onnx", windows)
    assert built(tmp_path / "q.onnx", encoder, EMBED_DIM)


def constants(path: Path) -> dict[str, np.ndarray]:
    return {one.name: numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer}


@pytest.mark.parametrize(
    ("kind", "dtype", "zeros"),
    [
        ("int8", "int8", {"int8", "uint8"}),
        pytest.param("int8-symmetric", "int8", {"int8"}, marks=pytest.mark.long),
        pytest.param("fp8", "float8_e4m3fn", {"float8_e4m3fn"}, marks=pytest.mark.long),
    ],
)
def test_activations_are_unsigned_for_a_cpu_and_without_zero_point_for_tensorrt(
    graphs: Graphs,
    tmp_path: Path,
    windows: Windows,
    kind: EightBits,
    dtype: str,
    zeros: set[str],
) -> None:
    case = Case(graphs(kind), kind)
    case.quantise(tmp_path / "q.onnx", windows)
    values = constants(tmp_path / "q.onnx")
    nodes = onnx.load(tmp_path / "q.onnx").graph.node
    rounding = [node for node in nodes if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    weights = {node.input[0]: node.input[1] for node in rounding if node.input[0] in values}
    assert len(weights) >= MULTIPLICATIONS
    assert {values[name].dtype.name for name in weights} == {dtype}
    assert {values[node.input[2]].dtype.name for node in rounding} == zeros
    if kind != "int8":
        assert not any(values[node.input[2]].astype(np.float32).any() for node in rounding)
        assert {values[node.input[1]].dtype.name for node in rounding} == {"float16"}
    assert all(values[s].size == values[name].shape[1] for name, s in weights.items())


@pytest.mark.long
@pytest.mark.parametrize(("kind", "step"), [("int8-symmetric", 1 / 254), ("fp8", 1 / 16)])
def test_no_weight_is_further_off_than_half_a_step(
    graphs: Graphs, tmp_path: Path, windows: Windows, kind: EightBits, step: float
) -> None:
    """Of int8 a step is the same everywhere, of float8 a share of the number itself."""
    Case(graphs(kind), kind).quantise(tmp_path / "q.onnx", windows)
    exact, values = constants(graphs(kind)), constants(tmp_path / "q.onnx")
    rounded = [name for name in exact if f"{name}_quantised" in values]
    assert len(rounded) == MULTIPLICATIONS
    for name in rounded:
        scale = values[f"{name}_scale"].astype(np.float32)
        found = values[f"{name}_quantised"].astype(np.float32) * scale
        wanted = exact[name].astype(np.float32)
        reach = np.abs(wanted).max(0) if kind == "int8-symmetric" else np.abs(wanted)
        # What float8 has beneath its normal numbers: 2 ** -9 of the scale.
        least = 0 if kind == "int8-symmetric" else scale * 2.0**-10
        assert (np.abs(found - wanted) <= np.maximum(step * reach, least) * 1.01).all()


@pytest.mark.long
@pytest.mark.parametrize(("kind", "count"), [("int8-symmetric", 22), ("fp8", 4)])
def test_a_resnet_s_convolutions_are_rounded_to_integers_and_not_to_floats(
    tmp_path: Path, clips: Path, kind: EightBits, count: int
) -> None:
    config, weights = write_clip_model(tmp_path, "gvvad-resnet", RESNET)
    encoder = ClipEncoder(str(config), str(weights), 1)
    export_tower(encoder, TowerForm("tensorrt", "int8"), tmp_path / "exact.onnx")
    windows = calibration_windows(clips, encoder.window, encoder.preprocess)
    found = Case(tmp_path / "exact.onnx", kind).quantise(tmp_path / "q.onnx", windows)
    assert (found.multiplications, found.spared) == (count, ())
    assert built(tmp_path / "q.onnx", encoder, EMBED_DIM)


def test_what_costs_most_is_not_rounded_until_the_cosine_is_reached(
    case: Case, tmp_path: Path, windows: Windows
) -> None:
    stages: list[tuple[str, int, int]] = []
    whole = case.quantise(tmp_path / "q.onnx", windows).cosine
    wanted = Wanted(case.kind, whole + (1 - whole) / 3)
    target = tmp_path / "spared.onnx"
    found = quantise(case.source, target, windows, wanted, lambda *stage: stages.append(stage))
    assert found.cosine >= wanted.min_cosine > whole
    assert 0 < len(found.spared) < MULTIPLICATIONS
    assert ", ".join(found.spared) in str(found)
    graph = onnx.load(target).graph
    values = {one.name for one in graph.initializer}
    exact = [
        node.name for node in graph.node if node.op_type == "MatMul" and node.input[1] in values
    ]
    assert sorted(exact) == sorted(found.spared)
    assert {what for what, _, _ in stages} >= {"ranges by minmax", "what each costs"}
    assert all(1 <= done <= total for _, done, total in stages)


def test_a_cosine_beyond_reach_is_said_and_nothing_is_written(
    case: Case, tmp_path: Path, windows: Windows
) -> None:
    with pytest.raises(TrainingError, match=r"--min-cosine 0.9999999 cannot be reached: 0\.99"):
        case.quantise(tmp_path / "q.onnx", windows, 0.9999999)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_leaves_nothing(case: Case, tmp_path: Path, windows: Windows) -> None:
    size_bytes = case.source.stat().st_size // 2
    with largest_file(size_bytes), pytest.raises(OSError, match="File too large"):
        case.quantise(tmp_path / "q.onnx", windows)
    assert list(tmp_path.iterdir()) == []


def test_windows_are_those_of_the_server_evenly_from_every_clip(
    encoder: ClipEncoder, clips: Path, windows: Windows
) -> None:
    assert len(windows.calibration) == 12
    last = list(file_windows(clips / "3.mp4", encoder.window, encoder.preprocess))
    np.testing.assert_array_equal(windows.held_out, np.stack([one.images for one in last]))


def test_of_many_windows_a_part_is_taken(tmp_path: Path, encoder: ClipEncoder) -> None:
    write_clip(tmp_path / "long.mp4", frames(0, 16 * (WINDOWS + 30), wild=False), fps=10)
    found = calibration_windows(tmp_path, WindowSpec(1, None), encoder.preprocess)
    assert len(found.calibration) == 3 * len(found.held_out) == 3 * WINDOWS // 4


def test_footage_that_cannot_be_judged_by_is_refused(tmp_path: Path, encoder: ClipEncoder) -> None:
    write_clip(tmp_path / "short.mp4", frames(0, 40, wild=False), fps=10)
    with pytest.raises(TrainingError, match="holds 2 windows of footage that can be read"):
        calibration_windows(tmp_path, encoder.window, encoder.preprocess)


@pytest.mark.parametrize("cosine", [0.0, 1.0, float("nan")])
def test_a_cosine_that_means_nothing_is_refused(cosine: float) -> None:
    with pytest.raises(TrainingError, match="must be between 0 and 1"):
        Wanted("int8", cosine)
