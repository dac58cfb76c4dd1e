"""The newcomer's command on a fresh checkout: a lean environment, one alert, no torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.long
@pytest.mark.timeout(600)
def test_make_demo_works_on_a_fresh_checkout(tmp_path: Path) -> None:
    for name in tracked_files():
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)
    try:
        report, first_seconds = make_demo(tmp_path)
        assert (report["alerts"], report["dropped"]) == (1, 0)
        assert (tmp_path / str(report["picture"])).is_file()
        _, again_seconds = make_demo(tmp_path)
        assert again_seconds < min(first_seconds, 60)
        installed = {path.name for path in (tmp_path / ".venv-run").glob("lib/*/site-packages/*")}
        assert "onnxruntime" in installed
        assert "torch" not in installed
    finally:
        shutil.rmtree(tmp_path / ".venv-run", ignore_errors=True)  # it is half a gigabyte


def tracked_files() -> list[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    assert listed.returncode == 0, listed.stderr
    return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def make_demo(checkout: Path) -> tuple[dict[str, object], float]:
    """What `make demo --json` reports, and how long it took."""
    started = time.monotonic()
    command = ["make", "demo", "DEMO=--seconds 20 --json"]
    finished = subprocess.run(command, cwd=checkout, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout.splitlines()[-1]), time.monotonic() - started
