"""8 bits: near the original by measure, of the kind that the engine takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from export.calibration import WINDOWS, Windows, calibration_windows
from export.quantise import Quantised, Wanted, quantise
from export.tower import TowerForm, export_tower
from server.contract import WindowSpec
from server.ingest.video import file_windows
from tests.export.test_tower import cosines, run
from tests.support.clip_model import EMBED_DIM, TWO_LAYERS, write_clip_model
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


@pytest.fixture(
    scope="module", params=["onnxruntime", pytest.param("tensorrt", marks=pytest.mark.long)]
)
def source(
    request: pytest.FixtureRequest, encoder: ClipEncoder, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("exact") / f"{request.param}.onnx"
    export_tower(encoder, TowerForm(request.param, "int8"), path)
    return path


def quantised(source: Path, target: Path, windows: Windows, least: float = 0.99) -> Quantised:
    return quantise(source, target, windows, Wanted(source.stem == "tensorrt", least))


def test_what_is_said_of_the_cosine_is_so(source: Path, tmp_path: Path, windows: Windows) -> None:
    found = quantised(source, tmp_path / "q.onnx", windows)
    one, two = (run(path, windows.held_out) for path in (source, tmp_path / "q.onnx"))
    assert found.cosine == pytest.approx(cosines(one, two).mean(), abs=1e-5)
    assert found.cosine > 0.99
    assert (found.multiplications, found.spared) == (MULTIPLICATIONS, ())
    assert (tmp_path / "q.onnx").stat().st_size < 0.4 * source.stat().st_size
    assert [path.name for path in tmp_path.iterdir()] == ["q.onnx"]


@pytest.mark.long
def test_tensorrt_builds_a_plan_of_what_has_no_zero_points(
    encoder: ClipEncoder, tmp_path: Path, windows: Windows
) -> None:
    export_tower(encoder, TowerForm("tensorrt", "int8"), tmp_path / "tensorrt.onnx")
    quantised(tmp_path / "tensorrt.onnx", tmp_path / "q.onnx", windows)
    assert built(tmp_path / "q.onnx", encoder, EMBED_DIM)


def test_activations_are_unsigned_for_a_cpu_and_without_zero_point_for_tensorrt(
    source: Path, tmp_path: Path, windows: Windows
) -> None:
    quantised(source, tmp_path / "q.onnx", windows)
    graph = onnx.load(tmp_path / "q.onnx").graph
    values = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    rounding = [node for node in graph.node if node.op_type.endswith("quantizeLinear")]
    rounding += [node for node in graph.node if node.op_type == "QuantizeLinear"]
    zeros = [values[node.input[2]] for node in rounding]
    weights = [values[node.input[0]] for node in rounding if node.input[0] in values]
    assert len(weights) >= MULTIPLICATIONS
    assert {weight.dtype.name for weight in weights} == {"int8"}
    if source.stem == "tensorrt":
        assert {zero.dtype.name for zero in zeros} == {"int8"}
        assert not any(zero.any() for zero in zeros)
    else:
        assert {zero.dtype.name for zero in zeros} == {"int8", "uint8"}
    scales = [values[node.input[1]] for node in rounding if node.input[0] in values]
    assert all(scale.size == weight.shape[1] for scale, weight in zip(scales, weights, strict=True))


def test_what_costs_most_stays_single_until_the_cosine_is_reached(
    source: Path, tmp_path: Path, windows: Windows
) -> None:
    stages: list[tuple[str, int, int]] = []
    whole = quantised(source, tmp_path / "q.onnx", windows).cosine
    wanted = Wanted(source.stem == "tensorrt", whole + (1 - whole) / 3)
    target = tmp_path / "spared.onnx"
    found = quantise(source, target, windows, wanted, lambda *stage: stages.append(stage))
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
    source: Path, tmp_path: Path, windows: Windows
) -> None:
    with pytest.raises(TrainingError, match=r"--min-cosine 0.9999999 cannot be reached: 0\.99"):
        quantised(source, tmp_path / "q.onnx", windows, 0.9999999)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_leaves_nothing(source: Path, tmp_path: Path, windows: Windows) -> None:
    with largest_file(source.stat().st_size // 2), pytest.raises(OSError, match="File too large"):
        quantised(source, tmp_path / "q.onnx", windows)
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
        Wanted(False, cosine)
