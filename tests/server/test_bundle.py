"""A bundle is served whole and unchanged, or refused with a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from server.bundle import BundleError, load_bundle, write_bundle
from server.engine.onnxruntime import EngineOptions, OnnxDetector
from tests.support.tiny_bundle import make_tiny_bundle


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return make_tiny_bundle(tmp_path / "bundle").directory


def change_manifest(directory: Path, **changes: object) -> None:
    path = directory / "bundle.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_bundle_keeps_its_id_when_it_is_copied(directory: Path, tmp_path: Path) -> None:
    first = load_bundle(directory)
    sources = {name: directory / name for name in ("encoder.onnx", "head.onnx")}
    second = write_bundle(tmp_path / "copy", first.manifest, sources)
    assert second.bundle_id == first.bundle_id
    assert len(first.bundle_id) == 64


def test_the_id_does_not_depend_on_how_the_manifest_is_laid_out(directory: Path) -> None:
    before = load_bundle(directory).bundle_id
    path = directory / "bundle.json"
    path.write_text(json.dumps(json.loads(path.read_text()), sort_keys=True, indent=7))
    assert load_bundle(directory).bundle_id == before


@pytest.mark.parametrize("name", ["encoder.onnx", "head.onnx"])
def test_one_byte_changed_is_refused(directory: Path, name: str) -> None:
    content = bytearray((directory / name).read_bytes())
    content[len(content) // 2] ^= 1
    (directory / name).write_bytes(content)
    with pytest.raises(BundleError, match=rf"{name} does not match its manifest .* again"):
        load_bundle(directory)


def test_a_missing_file_is_refused(directory: Path) -> None:
    (directory / "head.onnx").unlink()
    with pytest.raises(BundleError, match=r"lacks head\.onnx"):
        load_bundle(directory)


def test_a_directory_without_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"has no bundle\.json"):
        load_bundle(tmp_path)


def test_an_unknown_schema_is_refused(directory: Path) -> None:
    change_manifest(directory, schema=2)
    with pytest.raises(BundleError, match="schema 2, this server reads 1"):
        load_bundle(directory)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"colour": "red"}, "colour"),
        ({"threshold": {"value": 2, "chosen": "x"}}, "threshold.value"),
        ({"window": {"sampled_frames": 17, "fps": None}}, "window"),
        ({"preprocess": {"height": 24}}, "preprocess"),
    ],
)
def test_a_manifest_with_a_wrong_field_names_it(
    directory: Path, changes: dict[str, object], names: str
) -> None:
    change_manifest(directory, **changes)
    with pytest.raises(BundleError, match=names) as caught:
        load_bundle(directory)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes", [{"half_life_windows": None}, {"states": {}}], ids=["states alone", "memory alone"]
)
def test_a_head_has_states_and_a_half_life_or_neither(
    directory: Path, changes: dict[str, object]
) -> None:
    head = json.loads((directory / "bundle.json").read_text())["head"]
    change_manifest(directory, head=head | changes)
    with pytest.raises(BundleError, match="null for a head without states, and only for such"):
        load_bundle(directory)


def test_a_manifest_cannot_name_files_outside_its_directory(directory: Path) -> None:
    content = json.loads((directory / "bundle.json").read_text())
    content["head"]["graph"]["file"] = "../bundle-graphs/head.onnx"
    change_manifest(directory, **content)
    with pytest.raises(BundleError, match=r"head\.graph\.file"):
        load_bundle(directory)


def test_a_graph_of_another_shape_is_refused(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "liar", feature_dim_said=5)
    with pytest.raises(BundleError, match=r"feature float32 \(\*, 3\).*says.*\(\*, 5\)"):
        OnnxDetector(bundle, EngineOptions())


def test_writing_never_leaves_half_a_bundle(directory: Path, tmp_path: Path) -> None:
    manifest = load_bundle(directory).manifest
    place = tmp_path / "new"
    with pytest.raises(BundleError, match=r"lacks head\.onnx"):
        write_bundle(place, manifest, {"encoder.onnx": directory / "encoder.onnx"})
    assert not place.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"bundle", "bundle-graphs"}


def test_writing_does_not_replace_what_is_no_bundle(directory: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    with pytest.raises(BundleError, match="is no bundle"):
        write_bundle(precious, load_bundle(directory).manifest, {})
    assert (precious / "thesis.txt").exists()
