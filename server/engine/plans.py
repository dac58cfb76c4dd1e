"""Plans on disk: what TensorRT made of a graph, under the key that it was made for.

A plan fits one graph, one version, one GPU and one range of batches. Beside
each stands a JSON file with that key in words and the plan's hash, so that a
plan of another key, or one that was cut short, is never run.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from server.engine.onnxruntime import EngineError

PLANS_FOLDER = "engines"
"""Of a bundle; where plans stand unless the settings say otherwise."""

_KEY, _HASH = "key", "plan_sha256"


@dataclass(frozen=True, slots=True)
class Batches:
    """What a plan takes: 1 to `largest` windows, fastest with `preferred`."""

    preferred: int
    largest: int

    def __post_init__(self) -> None:
        if not 1 <= self.preferred <= self.largest:
            raise ValueError(f"preferred ({self.preferred}) must be 1 to {self.largest}")


@dataclass(frozen=True, slots=True)
class PlanKey:
    """All that decides whether a plan may run.

    Attributes:
        engine: "tensorrt" or "tensorrt_rtx".
        version: of the engine.
        device: the GPU and its compute capability, in words.
        graph_sha256: of the ONNX file.
        precision: of its multiplications.
        batches: that it takes.
    """

    engine: str
    version: str
    device: str
    graph_sha256: str
    precision: str
    batches: Batches

    @property
    def stem(self) -> str:
        """Name of its files, without suffix; another key has another name."""
        text = json.dumps(asdict(self), sort_keys=True)
        return f"encoder-{self.engine}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


class PlanStore:
    """A folder of plans. Others' are left alone: machines with other GPUs may share it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, key: PlanKey) -> bytes | None:
        """The plan of this key; None where there is none, or none that is whole.

        Raises:
            EngineError: the folder cannot be read.
        """
        plan, beside = self._paths(key)
        try:
            said = json.loads(beside.read_bytes())
            content = plan.read_bytes()
        except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
            return None
        except OSError as error:
            raise EngineError(
                f"the plan {plan} cannot be read ({error.strerror}); check its permissions "
                "or set engine.plans to another folder"
            ) from None
        return content if said == _description(key, content) else None

    def prepare(self) -> None:
        """Make the folder, before the minutes that a build takes.

        Raises:
            EngineError: nothing can be written there.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise self._unwritable(error) from None

    def keep(self, key: PlanKey, content: bytes) -> None:
        """Write a plan whole or not at all, over an older one of the same key.

        Raises:
            EngineError: it cannot be written.
        """
        plan, beside = self._paths(key)
        try:
            write_whole(plan, content)
            # Last: without it the plan does not count.
            text = json.dumps(_description(key, content), indent=1) + "\n"
            write_whole(beside, text.encode())
        except OSError as error:
            raise self._unwritable(error) from None

    def _paths(self, key: PlanKey) -> tuple[Path, Path]:
        return self.folder / f"{key.stem}.plan", self.folder / f"{key.stem}.json"

    def _unwritable(self, error: OSError) -> EngineError:
        return EngineError(
            f"plans cannot be kept in {self.folder} ({error.strerror}); make room or make it "
            "writable, or set engine.plans to another folder"
        )


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under another name, push it to the disk, then rename it.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    scratch = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # Readable to others, as the rest of a bundle is: mkstemp thinks of secrets.
        scratch.chmod(0o644)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def _description(key: PlanKey, content: bytes) -> dict[str, Any]:
    return {_KEY: asdict(key), _HASH: hashlib.sha256(content).hexdigest()}
