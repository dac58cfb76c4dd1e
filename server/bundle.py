"""The bundle: a directory with encoder, head and the manifest that binds them.

`bundle.json` says what the graphs are, how windows and images are made for
them, and where they come from. A bundle is verified by hash before anything of
it runs; its id is the hash of the canonical manifest.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from server.bank import BankError, Sentences, read_sentences
from server.contract import TensorSpec, WindowSpec, encoder_tensors, head_tensors
from server.preprocess import PreprocessSpec
from server.wording import one_line, quoted

SCHEMA = 1
MANIFEST = "bundle.json"
DEFAULT_BUNDLE = Path(__file__).parent / "default_bundle"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class BundleError(ValueError):
    """A bundle that must not be served; the message says why and what was expected."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


Precision = Literal["fp32", "fp16", "bf16", "int8", "int8-symmetric", "fp8"]


class GraphFile(_Part):
    """One ONNX file, named relative to the bundle.

    Attributes:
        file: its name.
        sha256: of its content.
        precision: of its multiplications; int8 has unsigned activations with a zero point, as
            CPUs want them, int8-symmetric signed ones without, as TensorRT does; fp8 is E4M3.
    """

    file: FileName
    sha256: Sha256
    precision: Precision


class EncoderPart(_Part):
    """The encoder: images (B, S, H, W, 3) uint8 to feature (B, D) float32.

    Attributes:
        name: architecture, such as "r2plus1d-motion".
        feature_dim: D.
        feature_scale: L2 norm of every feature; inside the graph.
        graph: the file.
    """

    name: str
    feature_dim: Annotated[int, Field(ge=1, le=65536)]
    feature_scale: Annotated[float, Field(gt=0)]
    graph: GraphFile


class HeadPart(_Part):
    """The head step.

    Attributes:
        name: architecture, such as "lap-causal".
        half_life_windows: windows after which the memory's weight has halved; null for a head
            that keeps none.
        states: shape per stream of each state tensor, by name without prefix.
        graph: the file.
    """

    name: str
    half_life_windows: Annotated[float, Field(gt=0)] | None
    states: dict[str, tuple[int, ...]]
    graph: GraphFile

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if (self.half_life_windows is None) != (not self.states):
            raise ValueError(
                "half_life_windows must be null for a head without states, and only for such"
            )
        return self


class BankPart(_Part):
    """The sentences that the head can name a window by.

    Attributes:
        file: their words.
        sha256: of the file.
        bank_sha256: of the bank that the head was trained on, vectors included.
        nearest: a, sentences that the head weighs for a window.
    """

    file: FileName
    sha256: Sha256
    bank_sha256: Sha256
    nearest: Annotated[int, Field(ge=1, le=1024)]


class Threshold(_Part):
    """The default open threshold, in [0, 1], and how it was chosen."""

    value: Annotated[float, Field(gt=0, le=1)]
    chosen: str


class Training(_Part):
    """Provenance.

    Attributes:
        manifest_sha256: hash of the list of training clips and labels.
        clips: sha256 of every training clip's file, sorted.
        code_version: version of this project that trained.
        seeds: every seed used.
        metrics: out-of-fold figures, by name.
    """

    manifest_sha256: Sha256
    clips: list[Sha256]
    code_version: str
    seeds: list[int]
    metrics: dict[str, float]


class Manifest(_Part):
    """The whole of `bundle.json`."""

    schema_: Annotated[int, Field(alias="schema")]
    name: str
    window: WindowSpec
    preprocess: PreprocessSpec
    encoder: EncoderPart
    head: HeadPart
    bank: BankPart | None = None
    threshold: Threshold
    training: Training

    def content(self) -> dict[str, object]:
        """What stands in the file; a bundle without a bank says nothing of one."""
        found = self.model_dump(mode="json", by_alias=True)
        if self.bank is None:
            del found["bank"]
        return found

    def canonical(self) -> bytes:
        """The bytes that the bundle's id is the hash of."""
        return json.dumps(self.content(), sort_keys=True, separators=(",", ":")).encode()

    def encoder_id(self) -> str:
        """64 hex digits: what decides a feature, the encoder with its windows and images."""
        content = self.model_dump(mode="json", include={"window", "preprocess"})
        content["encoder"] = self.encoder.graph.sha256
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def encoder_tensors(self) -> tuple[list[TensorSpec], list[TensorSpec]]:
        """Inputs and outputs that the encoder graph must have."""
        return encoder_tensors(
            self.window.sampled_frames,
            self.preprocess.height,
            self.preprocess.width,
            self.encoder.feature_dim,
        )

    def head_tensors(self) -> tuple[list[TensorSpec], list[TensorSpec]]:
        """Inputs and outputs that the head graph must have."""
        nearest = None if self.bank is None else self.bank.nearest
        return head_tensors(self.encoder.feature_dim, self.head.states, nearest)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle.

    Attributes:
        directory: where its files are.
        manifest: what it says of itself.
        bundle_id: 64 hex digits, sha256 of the canonical manifest.
        sentences: that the head can name a window by; None without a bank.
    """

    directory: Path
    manifest: Manifest
    bundle_id: str
    sentences: Sentences | None = None

    @property
    def encoder_path(self) -> Path:
        return self.directory / self.manifest.encoder.graph.file

    @property
    def head_path(self) -> Path:
        return self.directory / self.manifest.head.graph.file


def load_bundle(directory: Path) -> Bundle:
    """Read a bundle and verify its files by hash.

    Raises:
        BundleError: anything is missing, changed, unknown or unreadable.
    """
    try:
        return _verified(directory)
    except OSError as error:
        raise BundleError(
            f"bundle {directory} cannot be read ({error.strerror}); "
            "check its path and permissions or copy it again"
        ) from None


def _verified(directory: Path) -> Bundle:
    manifest = _read_manifest(directory / MANIFEST)
    parts: list[GraphFile | BankPart] = [manifest.encoder.graph, manifest.head.graph]
    if manifest.bank is not None:
        parts.append(manifest.bank)
    for part in parts:
        path = directory / part.file
        if not path.is_file():
            raise BundleError(
                f"bundle {directory} lacks {part.file}; copy the whole bundle or export it again"
            )
        found = file_sha256(path)
        if found != part.sha256:
            raise BundleError(
                f"{path} does not match its manifest (sha256 {found[:12]}..., expected "
                f"{part.sha256[:12]}...); copy the bundle again or export it again"
            )
    bundle_id = hashlib.sha256(manifest.canonical()).hexdigest()
    sentences = None if manifest.bank is None else _sentences(directory, manifest.bank)
    return Bundle(directory, manifest, bundle_id, sentences)


def _sentences(directory: Path, part: BankPart) -> Sentences:
    try:
        found = read_sentences(directory / part.file)
    except BankError as error:
        raise BundleError(f"{error}; export the bundle again") from None
    if found.sha256 != part.bank_sha256:
        raise BundleError(
            f"{directory / part.file} holds bank {found.sha256[:12]}..., the head was trained on "
            f"{part.bank_sha256[:12]}...; export the bundle again with its own bank"
        )
    if len(found.texts) < part.nearest:
        raise BundleError(
            f"{directory / part.file} holds {len(found.texts)} sentences, the head names "
            f"{part.nearest} of them; export the bundle again"
        )
    return found


def write_bundle(directory: Path, manifest: Manifest, files: Mapping[str, Path]) -> Bundle:
    """Write a bundle whole or not at all, replacing an older one at that place.

    Args:
        directory: where it will stand; its parent must exist.
        manifest: complete, with the hashes of the files.
        files: source path of every file that the manifest names.

    Raises:
        BundleError: the place holds something else, or a file's hash differs.
    """
    if directory.exists() and not (directory / MANIFEST).is_file() and any(directory.iterdir()):
        raise BundleError(f"{directory} exists and is no bundle; choose another place")
    scratch = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        for name, source in files.items():
            shutil.copyfile(source, scratch / name)
        (scratch / MANIFEST).write_text(json.dumps(manifest.content(), indent=1) + "\n")
        load_bundle(scratch)
        scratch.chmod(0o755)
        if directory.exists():
            shutil.rmtree(directory)
        os.replace(scratch, directory)  # noqa: PTH105  Path.replace hides that it is atomic
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return load_bundle(directory)


def file_sha256(path: Path) -> str:
    """Hash of a file's content, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_manifest(path: Path) -> Manifest:
    if not path.is_file():
        raise BundleError(f"{path.parent} is not a bundle: it has no {MANIFEST}; give another one")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BundleError(
            f"{path} is not JSON ({one_line(str(error))}); export the bundle again"
        ) from None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        found = content.get("schema") if isinstance(content, dict) else None
        raise BundleError(
            f"{path} has schema {quoted(found)}, this server reads {SCHEMA}; "
            "export the bundle again with a matching version"
        )
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BundleError(
            f"{path} is not a valid manifest: {one_line(where)}: {one_line(first['msg'])}; "
            "export the bundle again"
        ) from None
