"""What service runs, built by TensorRT for RTX without a GPU, for any batch; weights by chance.

Whether a plan can be built is all that is tried here: ranges come of noise, by one method.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from export.calibration import Windows
from export.graphs import export_head
from export.qdq import EightBits
from export.quantise import METHODS, Wanted, quantise
from export.steps import step_of
from export.tower import TowerForm, export_tower
from server.bundle import DEFAULT_BUNDLE, load_bundle
from server.contract import head_tensors
from tests.export.test_large_towers import by_chance
from tests.support.plans import built, built_of
from training.encoders import ClipEncoder
from training.head import Head, HeadSpec
from training.semantic import NEAREST, BankSize

LAYERS = {"ViT-B-32": 12, "ViT-L-14": 24}
WIDTHS = {"ViT-B-32": 512, "ViT-L-14": 768}


@dataclass(frozen=True)
class Tower:
    """A tower and its graph in fp16, which is also what 8 bits start from."""

    encoder: ClipEncoder
    graph: Path
    width: int


Towers = Callable[[str], Tower]


@pytest.fixture(scope="module")
def towers(tmp_path_factory: pytest.TempPathFactory) -> Towers:
    """A tower by its name, exported once."""

    @cache
    def exported(name: str) -> Tower:
        folder = tmp_path_factory.mktemp(name)
        weights = by_chance(name, folder / "weights.pt")
        encoder = ClipEncoder(name, str(weights), 1)
        weights.unlink()
        found = export_tower(encoder, TowerForm("tensorrt", "fp16"), folder / "fp16.onnx")
        assert found.nodes == found.attentions == found.gelus == LAYERS[name]
        return Tower(encoder, folder / "fp16.onnx", WIDTHS[name])

    return exported


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    """For a graph of hundreds of megabytes, which the next test should not find there."""
    yield tmp_path / "rounded.onnx"
    (tmp_path / "rounded.onnx").unlink(missing_ok=True)


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", list(WIDTHS))
def test_a_tower_of_service_builds_in_half_precision(towers: Towers, name: str) -> None:
    tower = towers(name)
    assert built(tower.graph, tower.encoder, tower.width)


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("name", "kind"),
    [("ViT-B-32", "int8-symmetric"), ("ViT-B-32", "fp8"), ("ViT-L-14", "int8-symmetric")],
)
def test_a_tower_of_service_builds_in_eight_bits(
    towers: Towers,
    target: Path,
    name: str,
    kind: EightBits,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tower = towers(name)
    monkeypatch.setattr("export.quantise.METHODS", {"minmax": METHODS["minmax"]})
    size = tower.encoder.preprocess
    images = np.random.default_rng(0).integers(0, 256, (2, 1, size.height, size.width, 3), np.uint8)
    found = quantise(tower.graph, target, Windows(images[:1], images[1:]), Wanted(kind, 0.9))
    assert found.spared == ()
    assert found.multiplications == 6 * LAYERS[name] + 1
    assert built(target, tower.encoder, tower.width)


def test_the_head_of_the_embedded_bundle_builds() -> None:
    bundle = load_bundle(DEFAULT_BUNDLE)
    assert built_of(bundle.head_path, bundle.manifest.head_tensors())


def lap_causal(bank: BankSize | None) -> Head:
    """As the recipes lap-causal and lap-bank have it, on features of ViT-L-14."""
    spec = HeadSpec(768, dropout=0.0, half_life_windows=128.0, frozen_norms=True)
    if bank is not None:
        spec = replace(spec, text="clip_bank", text_dim=768, bank=bank)
    return Head(spec).eval()


@pytest.mark.long
@pytest.mark.parametrize("bank", [None, BankSize(32, 4, 4)], ids=["alone", "with a bank"])
def test_a_lap_head_builds_with_its_state(tmp_path: Path, bank: BankSize | None) -> None:
    step = step_of(lap_causal(bank))
    export_head(step, tmp_path / "head.onnx")
    tensors = head_tensors(step.feature_dim, step.states, None if bank is None else NEAREST)
    assert built_of(tmp_path / "head.onnx", tensors)
