"""Weights by a hub id: from what was downloaded before, or a sentence."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.generate.conftest import Write, arguments, files

pytestmark = pytest.mark.long


def run(given: list[str], hub: Path) -> subprocess.CompletedProcess[str]:
    """The command on a machine without a network."""
    environment = {"HF_HUB_CACHE": str(hub), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "training", *given],
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )


def test_weights_that_were_downloaded_need_no_network(
    descriptions: Write, cogvideox: Path, three: Path, tmp_path: Path
) -> None:
    commit, kept = "0" * 40, tmp_path / "hub" / "models--tiny--cogvideox"
    shutil.copytree(cogvideox, kept / "snapshots" / commit)
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text(commit)
    given = arguments(descriptions(3), Path("tiny/cogvideox"), tmp_path / "out")
    finished = run(given, tmp_path / "hub")
    assert finished.returncode == 0, finished.stderr
    assert "Warning" not in finished.stderr
    assert set(files(tmp_path / "out")) == set(files(three))
    manifest = (tmp_path / "out" / "manifest.jsonl").read_text()
    assert manifest.count('"model":"tiny/cogvideox"') == 3


@pytest.mark.parametrize(
    ("backend", "said"),
    [
        ([], "weights tiny/cogvideox are no folder here and cannot be had from the hub ("),
        (["--backend", "cogvideox-5b", "--batch", "64"], "cogvideox-5b in fp32 needs "),
    ],
)
def test_weights_that_cannot_be_had_or_would_not_fit_are_refused_without_a_download(
    backend: list[str], said: str, descriptions: Write, tmp_path: Path
) -> None:
    given = arguments(descriptions(1), Path("tiny/cogvideox"), tmp_path / "out", *backend)
    finished = run(given, tmp_path / "hub")
    assert finished.returncode == 2
    assert finished.stderr.count("\n") == 1
    assert said in finished.stderr
    assert not (tmp_path / "out").exists()
