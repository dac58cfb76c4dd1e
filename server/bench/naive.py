"""The naive program beside the server: started as a process of its own, by another Python.

`tests/bench/naive.py` needs torch, which the server never loads. Where it cannot run it is left
out, and a word says why.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import server
from server.bench.crew import BenchError
from server.bundle import BundleError, load_bundle

CHECKOUT = Path(server.__file__).resolve().parent.parent
DEFAULT_PYTHON = CHECKOUT / ".venv" / "bin" / "python"

_PROGRAM = "tests.bench.naive"
_ENCODER = "motion-members"
_MODULES = ("torch", "cv2", "PIL", "onnx")
_FIND = "import importlib.util as u, sys; print(*[n for n in sys.argv[1:] if not u.find_spec(n)])"
_FIND_SECONDS = 30.0
_GRACE_SECONDS = 120.0
"""To load torch, open the cameras and score a first window of each."""


@dataclass(frozen=True, slots=True)
class NaiveFigures:
    """What the naive program says of itself.

    Attributes:
        cameras: threads.
        seconds: measured, once every camera had had a window.
        windows: scored in them, by all cameras.
        windows_per_second: the same, a second.
        latency_p50_seconds: from `read`, which answers from what OpenCV has read ahead, to the
            score; None where nothing was scored, as with all quantiles.
        latency_p95_seconds: the same.
        latency_p99_seconds: the same.
        behind_p50_seconds: from when the window's last frame was due by the camera's clock to
            the score; None of files, which nothing paces.
        behind_p95_seconds: the same.
        behind_p99_seconds: the same.
        late_windows: over a second behind; None of files.
        missing_windows: that cameras sent in this time beyond those that were scored; None
            of files.
        pss_bytes_per_camera: memory that a camera added.
        cores: processor time of the process, in cores.
    """

    cameras: int
    seconds: float
    windows: int
    windows_per_second: float
    latency_p50_seconds: float | None
    latency_p95_seconds: float | None
    latency_p99_seconds: float | None
    behind_p50_seconds: float | None
    behind_p95_seconds: float | None
    behind_p99_seconds: float | None
    late_windows: int | None
    missing_windows: int | None
    pss_bytes_per_camera: float
    cores: float


@dataclass(frozen=True, slots=True)
class NaiveRun:
    """How the naive program is started.

    Attributes:
        bundle: directory; whose weights it runs.
        python: that has torch.
        threads: of torch; None leaves it to torch.
        checkout: where the program is.
    """

    bundle: Path
    python: Path = DEFAULT_PYTHON
    threads: int | None = None
    checkout: Path = CHECKOUT

    def lacking(self) -> str | None:
        """Why it cannot run here, in a few words; None where it can.

        Raises:
            BenchError: the bundle cannot be used at all.
        """
        if not (self.checkout / "tests" / "bench" / "naive.py").is_file():
            return "tests/bench/naive.py is not installed; run from a checkout"
        try:
            encoder = load_bundle(self.bundle).manifest.encoder.name
        except BundleError as error:
            raise BenchError(str(error)) from None
        if encoder != _ENCODER:
            return f"it knows the weights of {_ENCODER} alone, not of {encoder}"
        try:
            missing = self._run("-c", _FIND, *_MODULES, seconds=_FIND_SECONDS).split()
        except BenchError as error:
            return str(error)
        return f"{self.python} has no {', '.join(missing)}" if missing else None

    def measure(self, sources: Sequence[str], cameras: int, seconds: float) -> NaiveFigures:
        """Run it on so many cameras.

        Args:
            sources: RTSP URLs, or paths of video files; used over again where they are fewer.
            cameras: at a time.
            seconds: that are measured, once every camera had a window.

        Raises:
            BenchError: it cannot run, failed, or hangs.
        """
        flags = [*sources, "--bundle", str(self.bundle.absolute())]
        flags += ["--cameras", str(cameras), "--seconds", str(seconds)]
        if self.threads is not None:
            flags += ["--threads", str(self.threads)]
        told = self._run("-m", _PROGRAM, *flags, seconds=seconds + _GRACE_SECONDS)
        try:
            return NaiveFigures(**json.loads(told.splitlines()[-1]))
        except (IndexError, TypeError, ValueError):
            raise BenchError(
                f"{_PROGRAM} did not tell its figures in its last line; "
                "take the program and the server from one checkout"
            ) from None

    def _run(self, *arguments: str, seconds: float) -> str:
        """What it wrote to standard output."""
        kept = {name: text for name, text in os.environ.items() if not name.startswith("GVVAD_")}
        try:
            done = subprocess.run(
                [str(self.python), *arguments],
                cwd=self.checkout,
                env=kept | {"PYTHONPATH": str(self.checkout)},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
            )
        except OSError as error:
            raise BenchError(f"{self.python} cannot be started ({error.strerror})") from None
        except subprocess.TimeoutExpired:
            raise BenchError(f"the naive program did not end within {seconds:g} s") from None
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise BenchError(f"the naive program failed: {last}")
        return done.stdout
