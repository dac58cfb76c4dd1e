"""A head on features, beside the encoder that made them, to a bundle.

Where the encoder comes from is the source's affair: another bundle, or a model of CLIP.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from export.bundle import ENCODER_FILE, HEAD_FILE, head_part
from export.graphs import export_head
from export.steps import step_of
from server.bank import Sentences
from server.bundle import (
    SCHEMA,
    BankPart,
    Bundle,
    EncoderPart,
    Manifest,
    Threshold,
    Training,
    file_sha256,
    load_bundle,
    write_bundle,
)
from server.contract import WindowSpec
from server.preprocess import PreprocessSpec
from training.bank import Bank
from training.clips import TrainingError
from training.head_run import HeadRun, check_bank, load_run
from training.semantic import NEAREST

BANK_FILE = "bank.json"


class EncoderSource(Protocol):
    """Where a bundle's encoder comes from.

    Attributes:
        id: of all that decides a feature, as the run's features say it.
        called: what a message names it.
        feature_dim: D.
        window: how footage is cut.
        preprocess: how frames are rendered.
        clips: sha256 of what it was trained on, as far as that is known.
    """

    id: str
    called: str
    feature_dim: int
    window: WindowSpec
    preprocess: PreprocessSpec
    clips: list[str]

    def export(self, folder: Path) -> tuple[EncoderPart, Path]:
        """What a manifest says of it, and its graph; whatever is made is left in `folder`."""


class BundleSource:
    """The encoder of a bundle.

    Raises:
        BundleError: it cannot be used.
    """

    def __init__(self, directory: Path) -> None:
        self._bundle = load_bundle(directory)
        manifest = self._bundle.manifest
        self.id, self.called = manifest.encoder_id(), str(directory)
        self.window, self.preprocess = manifest.window, manifest.preprocess
        self.feature_dim = manifest.encoder.feature_dim
        self.clips = manifest.training.clips

    def export(self, folder: Path) -> tuple[EncoderPart, Path]:
        part = self._bundle.manifest.encoder
        graph = part.graph.model_copy(update={"file": ENCODER_FILE})
        return part.model_copy(update={"graph": graph}), self._bundle.encoder_path


@dataclass(frozen=True, slots=True)
class HeadParts:
    """What a bundle is made of.

    Attributes:
        run: folder of a run on features.
        encoder: that made them.
        bank: that the head reads, if it reads one.
        threshold: default open threshold, in (0, 1]; None takes the run's.
    """

    run: Path
    encoder: EncoderSource
    bank: Bank | None = None
    threshold: float | None = None


def export_head_bundle(parts: HeadParts, directory: Path) -> Bundle:
    """Write the bundle, whole or not at all.

    Args:
        parts: what it is made of.
        directory: where it will stand; an older bundle there is replaced.

    Raises:
        BundleError: the encoder's bundle cannot be used, or something else stands there.
        TrainingError: no causal head, one on other features or another bank, or no threshold.
    """
    source, run = parts.encoder, load_run(parts.run)
    _check(parts, run)
    opening = _opening(parts, run)
    step, directory = step_of(run.head), directory.resolve()
    directory.parent.mkdir(parents=True, exist_ok=True)
    # Beside the bundle: an encoder may be larger than what a system has for short-lived files.
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}-", dir=directory.parent) as name:
        scratch = Path(name)
        files = {HEAD_FILE: scratch / HEAD_FILE}
        export_head(step, files[HEAD_FILE])
        bank = None
        if parts.bank is not None:
            files[BANK_FILE] = scratch / BANK_FILE
            bank = _bank(parts.bank, files[BANK_FILE])
        encoder, graph = source.export(scratch)
        files[encoder.graph.file] = graph
        manifest = Manifest(
            schema=SCHEMA,  # type: ignore[call-arg]
            name=run.name,
            window=source.window,
            preprocess=source.preprocess,
            encoder=encoder,
            head=head_part(step, files[HEAD_FILE]),
            bank=bank,
            threshold=opening,
            training=_training(source, run),
        )
        return write_bundle(directory, manifest, files)


def _bank(bank: Bank, file: Path) -> BankPart:
    """Write the words; what the manifest says of them."""
    _sentences(bank).write(file)
    return BankPart(
        file=file.name, sha256=file_sha256(file), bank_sha256=bank.sha256, nearest=NEAREST
    )


def _check(parts: HeadParts, run: HeadRun) -> None:
    folder = parts.run
    if not run.causal:
        raise TrainingError(
            f"{folder} holds a head that sees the future; only a causal one is served, "
            "of lap-causal or lap-bank, say"
        )
    if run.reads_captions:
        raise TrainingError(
            f"{folder} holds a head that reads captions, which a stream has not; use a bank"
        )
    expected = parts.encoder.id
    if run.encoder != expected:
        raise TrainingError(
            f"{folder} was trained on features of encoder {str(run.encoder)[:12]}, "
            f"{parts.encoder.called} makes those of {expected[:12]}; give the encoder that the "
            "features were extracted with"
        )
    width = run.head.spec.feature_dim
    if width != parts.encoder.feature_dim:
        raise TrainingError(
            f"{folder} holds a head for features {width} wide, {parts.encoder.called} makes them "
            f"{parts.encoder.feature_dim} wide; train a head on them"
        )
    if run.bank is not None and parts.bank is None:
        raise TrainingError(f"{folder} was trained on bank {run.bank[:12]}; give it by --bank")
    if parts.bank is not None:
        check_bank(folder, run, parts.bank)


def _opening(parts: HeadParts, run: HeadRun) -> Threshold:
    if parts.threshold is not None:
        return Threshold(value=parts.threshold, chosen="given at export")
    if run.threshold is None:
        raise TrainingError(
            f"{parts.run} was trained without validation videos, so it has no threshold; "
            "give --threshold"
        )
    # A score is never under 0; a threshold of 0 would mean an alert for ever.
    return Threshold(value=max(run.threshold, 1e-6), chosen=run.threshold_rule)


def _sentences(bank: Bank) -> Sentences:
    told = bank.wording.sentences
    return Sentences(
        bank.sha256,
        f"{bank.model} ({bank.weights})",
        tuple(one.text for one in told),
        tuple(one.anomalous for one in told),
    )


def _training(source: EncoderSource, run: HeadRun) -> Training:
    """Provenance; clips that the encoder was trained on have been seen as well."""
    return Training(
        manifest_sha256=run.fingerprint,
        clips=sorted({*run.clips, *source.clips}),
        code_version=run.code_version,
        seeds=[run.seed],
        metrics={} if run.auc is None else {"validation_video_auc": run.auc},
    )
