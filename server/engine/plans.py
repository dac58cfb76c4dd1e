"""Plans on disk: what TensorRT made of a graph, under the key that it was made for.

A plan fits one graph, one version, one GPU and one range of batches. Beside
each stands a JSON file with that key in words and the plan's hash, so that a
plan of another key, or one that was cut short, is never run.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from server.engine.onnxruntime import EngineError

logger = logging.getLogger(__name__)

PLANS_FOLDER = "engines"
"""Of a bundle; where plans stand unless the settings say otherwise."""

_KEY, _HASH, _BUNDLE = "key", "plan_sha256", "bundle"
_PLACE = ("engine", "device", "precision")
_OURS = re.compile(r"encoder-tensorrt(_rtx)?-[0-9a-f]{16}\.json")


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
        return _stem(asdict(self))


class PlanStore:
    """A folder of plans. Others' are left alone: machines with other GPUs may share it.

    Args:
        folder: where they are.
        bundle_name: of the bundle whose plans are looked for and kept.
    """

    def __init__(self, folder: Path, bundle_name: str) -> None:
        self.folder = folder
        self._bundle_name = bundle_name

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
        return content if _says(said, key, content) else None

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
            described = _description(key, content) | {_BUNDLE: self._bundle_name}
            write_whole(beside, (json.dumps(described, indent=1) + "\n").encode())
        except OSError as error:
            raise self._unwritable(error) from None

    def forget_replaced(self, key: PlanKey) -> None:
        """Remove what a plan replaces: those of an older graph of this bundle, or an older version.

        Of the same engine, device and precision alone: another machine may still run the rest.
        What cannot be removed stays, which is logged.
        """
        for beside in sorted(self.folder.glob("encoder-*.json")):
            try:
                if self._is_replaced(beside, key):
                    # First what makes the plan count.
                    beside.unlink(missing_ok=True)
                    beside.with_suffix(".plan").unlink(missing_ok=True)
                    logger.info("removed %s, which %s replaces", beside.stem, key.stem)
            except OSError as error:
                logger.warning("the old plan %s cannot be removed (%s)", beside, error.strerror)

    def _is_replaced(self, beside: Path, key: PlanKey) -> bool:
        said = _read(beside)
        old = said.get(_KEY)
        if not _OURS.fullmatch(beside.name) or not isinstance(old, dict):
            return False
        if old.keys() != asdict(key).keys() or _stem(old) != beside.stem:
            return False
        same_place = all(old[name] == getattr(key, name) for name in _PLACE)
        same_graph = old["graph_sha256"] == key.graph_sha256
        same_bundle = same_graph or said.get(_BUNDLE) == self._bundle_name
        return same_place and same_bundle and not (same_graph and old["version"] == key.version)

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


def _stem(key: dict[str, Any]) -> str:
    text = json.dumps(key, sort_keys=True)
    return f"encoder-{key['engine']}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _read(beside: Path) -> dict[str, Any]:
    """What stands beside a plan; nothing where that is no JSON of ours."""
    try:
        said = json.loads(beside.read_bytes())
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _says(said: Any, key: PlanKey, content: bytes) -> bool:
    return isinstance(said, dict) and all(
        said.get(name) == value for name, value in _description(key, content).items()
    )


def _description(key: PlanKey, content: bytes) -> dict[str, Any]:
    return {_KEY: asdict(key), _HASH: hashlib.sha256(content).hexdigest()}
