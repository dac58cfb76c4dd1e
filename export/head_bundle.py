"""A head on features, beside the encoder that made them, to a bundle."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from export.bundle import ENCODER_FILE, HEAD_FILE, head_part
from export.graphs import export_head
from export.steps import step_of
from server.bank import Sentences
from server.bundle import (
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
from training.bank import Bank
from training.clips import TrainingError
from training.head_run import HeadRun, check_bank, load_run
from training.semantic import NEAREST

BANK_FILE = "bank.json"


@dataclass(frozen=True, slots=True)
class HeadParts:
    """What a bundle is made of.

    Attributes:
        run: folder of a run on features.
        encoder: the bundle whose encoder made them.
        bank: that the head reads, if it reads one.
        threshold: default open threshold, in (0, 1]; None takes the run's.
    """

    run: Path
    encoder: Path
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
    source, run = load_bundle(parts.encoder), load_run(parts.run)
    _check(parts, run, source)
    opening = _opening(parts, run)
    step, directory = step_of(run.head), directory.resolve()
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        files = {ENCODER_FILE: source.encoder_path, HEAD_FILE: Path(scratch) / HEAD_FILE}
        export_head(step, files[HEAD_FILE])
        bank = None
        if parts.bank is not None:
            files[BANK_FILE] = Path(scratch) / BANK_FILE
            bank = _bank(parts.bank, files[BANK_FILE])
        encoder = source.manifest.encoder
        manifest = Manifest(
            schema=source.manifest.schema_,  # type: ignore[call-arg]
            name=run.name,
            window=source.manifest.window,
            preprocess=source.manifest.preprocess,
            encoder=EncoderPart(
                name=encoder.name,
                feature_dim=encoder.feature_dim,
                feature_scale=encoder.feature_scale,
                graph=encoder.graph.model_copy(update={"file": ENCODER_FILE}),
            ),
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


def _check(parts: HeadParts, run: HeadRun, source: Bundle) -> None:
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
    expected = source.manifest.encoder_id()
    if run.encoder != expected:
        raise TrainingError(
            f"{folder} was trained on features of encoder {str(run.encoder)[:12]}, "
            f"{source.directory} makes those of {expected[:12]}; give the bundle that the features "
            "were extracted with"
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


def _training(source: Bundle, run: HeadRun) -> Training:
    """Provenance; clips that the encoder was trained on have been seen as well."""
    return Training(
        manifest_sha256=run.fingerprint,
        clips=sorted({*run.clips, *source.manifest.training.clips}),
        code_version=run.code_version,
        seeds=[run.seed],
        metrics={} if run.auc is None else {"validation_video_auc": run.auc},
    )
