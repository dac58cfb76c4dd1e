"""Towers to graphs: the numbers of torch, in the form that engines know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn

from export.tower import (
    PRECISIONS,
    Attention,
    Recognised,
    TowerForm,
    counted_after_optimising,
    export_tower,
    fold_normalisation,
    written_out,
)
from server.bundle import Precision
from server.contract import FEATURE, IMAGES
from tests.support.clip_model import EMBED_DIM, RESNET, TWO_LAYERS, write_clip_model
from tests.support.disk import largest_file
from tests.support.plans import built
from training.clips import TrainingError
from training.encoders import CLIP_FEATURE_SCALE, ClipEncoder

FRAMES = 2


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> ClipEncoder:
    folder = tmp_path_factory.mktemp("tower")
    config, weights = write_clip_model(folder, "gvvad-two", TWO_LAYERS)
    return ClipEncoder(str(config), str(weights), FRAMES)


Exported = Callable[[TowerForm], tuple[Path, Recognised]]


@pytest.fixture(scope="module")
def exported(encoder: ClipEncoder, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A graph of each form, made once, and what was seen in it."""
    folder = tmp_path_factory.mktemp("graphs")

    @cache
    def export(form: TowerForm) -> tuple[Path, Recognised]:
        path = folder / f"{form.engine}-{form.precision}.onnx"
        return path, export_tower(encoder, form, path)

    return export


def pictures(encoder: ClipEncoder, count: int = 3) -> np.ndarray:
    """Noise, a black and a white picture among it."""
    size = encoder.preprocess
    shape = (count, FRAMES, size.height, size.width, 3)
    found = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    found[0, 0], found[0, 1] = 0, 255
    return found


def run(path: Path, images: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    feature: np.ndarray = session.run([FEATURE], {IMAGES: images})[0]
    return feature


def cosines(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    found: np.ndarray = (one * two).sum(1) / CLIP_FEATURE_SCALE**2
    return found


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


@pytest.mark.parametrize(
    ("form", "said"),
    [
        (TowerForm(), "2 of 2 attentions are one node, 2 GELUs fused"),
        (TowerForm("tensorrt"), "2 attentions written out, as TensorRT takes them"),
    ],
)
def test_a_graph_computes_what_torch_does(
    encoder: ClipEncoder, exported: Exported, form: TowerForm, said: str
) -> None:
    images = pictures(encoder)
    expected = encoder.encode(images)
    path, recognised = exported(form)
    assert str(recognised) == said
    found = run(path, images)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert cosines(found, expected).min() > 0.999999
    assert run(path, images[:1]).shape == (1, EMBED_DIM)


def test_attention_has_a_node_where_the_engine_has_it(exported: Exported) -> None:
    forms = (TowerForm(), TowerForm("tensorrt"), TowerForm("tensorrt", "bf16"))
    counts = [operators(exported(form)[0]) for form in forms]
    assert [found["Attention"] for found in counts] == [2, 0, 2]
    assert [found["Softmax"] for found in counts] == [0, 2, 0]
    assert [found["Sub"] for found in counts] == [0, 0, 1]  # of the normalisation


def test_half_precision_stays_near_and_answers_in_single(
    encoder: ClipEncoder, exported: Exported
) -> None:
    images = pictures(encoder)
    path, _ = exported(TowerForm("onnxruntime", "fp16"))
    found = run(path, images)
    assert found.dtype == np.float32
    assert cosines(found, encoder.encode(images)).min() > 0.999
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), CLIP_FEATURE_SCALE, atol=1e-4)
    assert path.stat().st_size < 0.6 * exported(TowerForm())[0].stat().st_size


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_tensorrt_builds_a_plan_for_any_batch(
    encoder: ClipEncoder, exported: Exported, precision: Precision
) -> None:
    path, _ = exported(TowerForm("tensorrt", precision))
    assert built(path, encoder, EMBED_DIM)


def test_an_export_leaves_the_encoder_as_it_is(
    encoder: ClipEncoder, exported: Exported, tmp_path: Path
) -> None:
    for form in (TowerForm(), TowerForm("onnxruntime", "fp16")):
        exported(form)
    images = pictures(encoder)
    config, weights = write_clip_model(tmp_path, "gvvad-two", TWO_LAYERS)
    untouched = ClipEncoder(str(config), str(weights), FRAMES)
    np.testing.assert_array_equal(encoder.encode(images), untouched.encode(images))


def test_the_normalisation_goes_into_the_patches_exactly(tmp_path: Path) -> None:
    config, weights = write_clip_model(tmp_path, "gvvad-fold", TWO_LAYERS)
    encoder = ClipEncoder(str(config), str(weights), FRAMES)
    encoder.tower.double()
    images = torch.from_numpy(pictures(encoder))
    with torch.no_grad():
        frames = images.double().flatten(0, 1).permute(0, 3, 1, 2)
        expected = encoder.tower.see(frames)
        assert fold_normalisation(encoder.tower)
        found = encoder.tower.see(frames)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@pytest.mark.long
def test_a_resnet_pads_and_so_keeps_its_normalisation(tmp_path: Path) -> None:
    config, weights = write_clip_model(tmp_path, "gvvad-resnet", RESNET)
    encoder = ClipEncoder(str(config), str(weights), FRAMES)
    found = export_tower(encoder, TowerForm(), tmp_path / "resnet.onnx")
    assert str(found) == "no attention to rewrite: exported as it is"
    images = pictures(encoder)
    np.testing.assert_allclose(
        run(tmp_path / "resnet.onnx", images), encoder.encode(images), atol=1e-4
    )
    assert operators(tmp_path / "resnet.onnx")["Sub"] == 1
    assert not fold_normalisation(encoder.tower)


@torch.no_grad()
def test_rewritten_attention_is_that_of_torch_also_between_sequences() -> None:
    torch.manual_seed(0)
    source = nn.MultiheadAttention(32, 4, batch_first=True).eval()
    nn.init.normal_(source.in_proj_bias)
    query, others = torch.randn(2, 3, 32), torch.randn(2, 7, 32)
    expected, _ = source(query, others, others, need_weights=False)
    for attend in (written_out, nn.functional.scaled_dot_product_attention):
        found, _ = Attention(source, attend)(query, others, others, need_weights=False)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_a_precision_that_an_engine_lacks_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(
        TrainingError, match="--engine onnxruntime has no bf16; there are: "
    ) as told:
        TowerForm("onnxruntime", "bf16")
    for engine, precisions in PRECISIONS.items():
        assert f"{engine} {', '.join(precisions)}" in str(told.value)


def test_a_disk_too_full_for_what_onnx_runtime_makes_is_told(
    exported: Exported, tmp_path: Path
) -> None:
    path = exported(TowerForm())[0]
    with (
        largest_file(path.stat().st_size // 2),
        pytest.raises(TrainingError, match="see that the disk is not full"),
    ):
        counted_after_optimising(path)
    assert all(left.suffix == ".onnx" for left in path.parent.iterdir())


def test_a_tower_beyond_what_a_file_holds_is_refused(
    encoder: ClipEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.tower.MAX_GRAPH_BYTES", 1_000_000)
    with pytest.raises(TrainingError, match="take a precision of 16 bits"):
        export_tower(encoder, TowerForm(), tmp_path / "tower.onnx")
    assert list(tmp_path.iterdir()) == []
