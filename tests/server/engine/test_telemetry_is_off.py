"""ONNX Runtime tells its maker nothing of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
from server.bundle import DEFAULT_BUNDLE
from server.engine.onnxruntime import ort
ort.InferenceSession(DEFAULT_BUNDLE / "head.onnx")
"""


def test_a_session_leaves_no_device_id_in_the_home_of_its_user(tmp_path: Path) -> None:
    unset = ("XDG_CACHE_HOME", "ORT_DISABLE_TELEMETRY")
    environment = {k: v for k, v in os.environ.items() if k not in unset}
    environment["HOME"] = str(tmp_path)
    subprocess.run([sys.executable, "-c", PROGRAM], env=environment, check=True)
    assert list(tmp_path.iterdir()) == []
