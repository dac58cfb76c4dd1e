"""Tiny pipelines, built once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from tests.support.tiny_cogvideox import tiny_backend, write_tiny_cogvideox, write_tiny_other
from training.cli import main

Write = Callable[..., Path]


@pytest.fixture(scope="session")
def cogvideox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a tiny CogVideoX."""
    return write_tiny_cogvideox(tmp_path_factory.mktemp("cogvideox"))


def arguments(rows: Path, weights: Path, out: Path, *more: str) -> list[str]:
    """Of a run by the tiny backend, beside `out`."""
    backend = tiny_backend(out.parent)
    given = ["--backend", str(backend), "--weights", str(weights), "--out", str(out)]
    return ["generate", str(rows), *given, "--device", "cpu", *more]


def files(out: Path) -> dict[str, bytes]:
    """All that a run left beside its manifest."""
    return {path.name: path.read_bytes() for path in (out / "videos").iterdir()}


def refused(given: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The sentence that a run ends with."""
    assert main(given) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("gvvad-train: ")
    return said[-1]


def decoded(path: Path) -> np.ndarray:
    """(F, H, W, 3) as int."""
    with av.open(str(path)) as container:
        return np.array([f.to_ndarray(format="rgb24") for f in container.decode(video=0)], int)


def write_rows(path: Path, count: int, first: int = 0, **changes: object) -> Path:
    """A manifest of so many descriptions, beginning at some number."""
    rows = [
        {
            "id": f"d{number}",
            "label": ("normal", "anomalous")[number % 2],
            "group": f"g{number // 2}",
            "description": f"a man walks {'abcdefgh'[number % 8]}",
        }
        | changes
        for number in range(first, first + count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a tiny pipeline of another family."""
    return write_tiny_other(tmp_path_factory.mktemp("other"))


@pytest.fixture
def descriptions(tmp_path: Path) -> Write:
    """`write_rows` to a file of this test."""
    return lambda *given, **changes: write_rows(tmp_path / "rows.jsonl", *given, **changes)


@pytest.fixture(scope="session")
def three(cogvideox: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an undisturbed run leaves of three descriptions; copy it to change it."""
    folder = tmp_path_factory.mktemp("three")
    rows = write_rows(folder / "rows.jsonl", 3)
    assert main(arguments(rows, cogvideox, folder / "out")) == 0
    return folder / "out"


@pytest.fixture
def out(three: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(three, tmp_path / "out"))
