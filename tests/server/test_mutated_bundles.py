"""Spoiled bundles: served as they are, or refused in one sentence."""

from __future__ import annotations

import json
import math
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from server.bundle import BundleError, file_sha256, load_bundle
from server.cli import main
from server.engine.onnxruntime import EngineError, EngineOptions, OnnxDetector
from tests.support.clips import grey_clip
from tests.support.mutations import (
    UNREADABLE,
    assert_refused,
    assert_sentence,
    few_or_many,
    holds,
    spoiled_bytes,
    spoiled_tree,
)
from tests.support.tiny_bundle import make_tiny_bundle

ROOT = Path(__file__).parents[2]
GRAPHS = ("encoder.onnx", "head.onnx")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny").directory


@pytest.fixture
def directory(pristine: Path, tmp_path: Path) -> Path:
    return shutil.copytree(pristine, tmp_path / "bundle")


def assert_served_or_refused(directory: Path) -> None:
    try:
        bundle = load_bundle(directory)
        OnnxDetector(bundle, EngineOptions(threads=1)).warm_up(2)
    except BundleError as error:
        assert_sentence(error, directory)
    except EngineError as error:
        assert_sentence(error)
    else:
        json.dumps(json.loads(bundle.manifest.canonical()), allow_nan=False)


def replace_graph(directory: Path, name: str, content: bytes) -> None:
    """Write a graph and the hash that belongs to it."""
    (directory / name).write_bytes(content)
    manifest = json.loads((directory / "bundle.json").read_text())
    manifest[name.removesuffix(".onnx")]["graph"]["sha256"] = file_sha256(directory / name)
    (directory / "bundle.json").write_text(json.dumps(manifest))


@few_or_many
def test_a_manifest_with_spoiled_bytes_is_used_or_refused(directory: Path, examples: int) -> None:
    manifest = directory / "bundle.json"

    def law(content: bytes) -> None:
        manifest.write_bytes(content)
        assert_served_or_refused(directory)

    holds(law, spoiled_bytes(manifest.read_bytes()), examples)


@few_or_many
def test_a_manifest_of_any_structure_is_used_or_refused(directory: Path, examples: int) -> None:
    manifest = directory / "bundle.json"

    def law(content: Any) -> None:
        manifest.write_text(json.dumps(content))
        assert_served_or_refused(directory)

    holds(law, spoiled_tree(json.loads(manifest.read_text())), examples)


def test_every_key_of_the_manifest_is_needed(directory: Path) -> None:
    manifest = directory / "bundle.json"
    whole = json.loads(manifest.read_text())
    groups = [group for group in whole.values() if isinstance(group, dict)]
    groups += [group["graph"] for group in groups if "graph" in group]
    for group in (whole, *groups):
        for key in [*group]:
            value = group.pop(key)
            manifest.write_text(json.dumps(whole))
            with pytest.raises(BundleError, match=key) as caught:
                load_bundle(directory)
            assert_sentence(caught.value, manifest)
            group[key] = value


@pytest.mark.parametrize(
    "file", ["../head.onnx", "/etc/passwd", "..", ".", "", "a/b", "x\0", "x\n"]
)
def test_a_graph_outside_the_bundle_is_refused(directory: Path, file: str) -> None:
    manifest = json.loads((directory / "bundle.json").read_text())
    manifest["head"]["graph"]["file"] = file
    (directory / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"head\.graph\.file") as caught:
        load_bundle(directory)
    assert_sentence(caught.value, directory)


@pytest.mark.parametrize("name", ["bundle.json", *GRAPHS])
@pytest.mark.parametrize("target", ["/etc/hostname", "/nowhere", UNREADABLE, ".", "itself"])
def test_a_link_to_anything_else_is_refused(directory: Path, name: str, target: Path | str) -> None:
    (directory / name).unlink()
    (directory / name).symlink_to(name if target == "itself" else target)
    with pytest.raises(BundleError) as caught:
        load_bundle(directory)
    assert_sentence(caught.value, directory)


def test_a_place_that_cannot_hold_a_bundle_is_refused(tmp_path: Path) -> None:
    for place in (tmp_path / ("x" * 300), UNREADABLE, Path("/dev/null")):
        with pytest.raises(BundleError) as caught:
            load_bundle(place)
        assert_sentence(caught.value, place)


@few_or_many
@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_with_spoiled_bytes_never_passes_its_hash(
    directory: Path, name: str, examples: int
) -> None:
    whole = (directory / name).read_bytes()

    def law(content: bytes) -> None:
        (directory / name).write_bytes(content)
        with pytest.raises(BundleError, match="does not match its manifest") as caught:
            load_bundle(directory)
        assert_sentence(caught.value, directory / name)

    holds(law, spoiled_bytes(whole).filter(lambda content: content != whole), examples)


@few_or_many
@pytest.mark.parametrize("name", GRAPHS)
def test_a_spoiled_graph_with_its_own_hash_is_run_or_refused(
    directory: Path, name: str, examples: int, capfd: pytest.CaptureFixture[str]
) -> None:
    def law(content: bytes) -> None:
        replace_graph(directory, name, content)
        assert_served_or_refused(directory)

    holds(law, spoiled_bytes((directory / name).read_bytes()), examples)
    assert capfd.readouterr() == ("", "")


def test_swapped_graphs_are_refused(directory: Path) -> None:
    contents = [(directory / name).read_bytes() for name in GRAPHS]
    for name, content in zip(GRAPHS, reversed(contents), strict=True):
        replace_graph(directory, name, content)
    with pytest.raises(BundleError, match="lacks input images") as caught:
        OnnxDetector(load_bundle(directory), EngineOptions())
    assert_sentence(caught.value, directory)


def test_a_head_whose_scores_are_none_is_refused(directory: Path) -> None:
    half, nan = (struct.pack("<f", value) for value in (0.5, math.nan))
    spoiled = (directory / "head.onnx").read_bytes().replace(half, nan)
    replace_graph(directory, "head.onnx", spoiled)
    with pytest.raises(EngineError, match=r"nan.*expected as many scores in \[0, 1\]"):
        OnnxDetector(load_bundle(directory), EngineOptions()).warm_up(1)


def test_a_backtest_refuses_a_graph_whose_names_are_no_text(
    directory: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    grey_clip(tmp_path / "a.mp4", [26] * 16)
    spoiled = (directory / "head.onnx").read_bytes().replace(b"state_trail", b"state_tra\xff\xfe")
    replace_graph(directory, "head.onnx", spoiled)
    code = main(["backtest", str(tmp_path), "--bundle", str(directory)])
    assert_refused(code, *capfd.readouterr())


def test_the_server_refuses_a_graph_cut_in_half(directory: Path) -> None:
    content = (directory / "encoder.onnx").read_bytes()
    replace_graph(directory, "encoder.onnx", content[: len(content) // 2])
    flags = ("grpc.port=0", "http.port=0", "store.url=sqlite://", f"bundle={directory}")
    command = [part for flag in flags for part in ("--set", flag)]
    finished = subprocess.run(
        [sys.executable, "-m", "server", "serve", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    lines = [line for line in finished.stderr.splitlines() if " INFO " not in line]
    assert_refused(finished.returncode, finished.stdout, "\n".join([*lines, ""]))
