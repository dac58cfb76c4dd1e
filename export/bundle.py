"""A checkpoint to a bundle that the server loads."""

from __future__ import annotations

import tempfile
from pathlib import Path

from export.graphs import export_encoder, export_head
from export.steps import ExportedStep, step_of
from server.bundle import (
    SCHEMA,
    Bundle,
    EncoderPart,
    GraphFile,
    HeadPart,
    Manifest,
    Precision,
    Threshold,
    Training,
    file_sha256,
    write_bundle,
)
from training.checkpoint import Checkpoint

ENCODER_NAME = "motion-members"
ENCODER_FILE = "encoder.onnx"
HEAD_FILE = "head.onnx"


def export_bundle(checkpoint: Checkpoint, directory: Path) -> Bundle:
    """Write the bundle, whole or not at all.

    Args:
        checkpoint: what a training run left.
        directory: where the bundle will stand; an older bundle there is replaced.

    Raises:
        BundleError: something else stands there.
    """
    directory = directory.resolve()
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        graphs = {name: Path(scratch) / name for name in (ENCODER_FILE, HEAD_FILE)}
        detector = checkpoint.detector
        export_encoder(
            detector.encoder, checkpoint.window, checkpoint.preprocess, graphs[ENCODER_FILE]
        )
        export_head(step_of(detector.head), graphs[HEAD_FILE])
        return write_bundle(directory, _manifest(checkpoint, graphs), graphs)


def head_part(step: ExportedStep, graph: Path) -> HeadPart:
    """What a manifest says of an exported head."""
    return HeadPart(
        name=step.name,
        half_life_windows=step.half_life_windows,
        states=step.states,
        graph=graph_file(graph),
    )


def _manifest(checkpoint: Checkpoint, graphs: dict[str, Path]) -> Manifest:
    encoder, provenance = checkpoint.detector.encoder, checkpoint.provenance
    return Manifest(
        schema=SCHEMA,  # type: ignore[call-arg]
        name=provenance.name,
        window=checkpoint.window,
        preprocess=checkpoint.preprocess,
        encoder=EncoderPart(
            name=ENCODER_NAME,
            feature_dim=encoder.spec.feature_dim,
            feature_scale=encoder.feature_scale,
            graph=graph_file(graphs[ENCODER_FILE]),
        ),
        head=head_part(step_of(checkpoint.detector.head), graphs[HEAD_FILE]),
        threshold=Threshold(value=provenance.threshold, chosen=provenance.threshold_rule),
        training=Training(
            manifest_sha256=provenance.manifest_sha256,
            clips=list(provenance.clips),
            code_version=provenance.code_version,
            seeds=list(provenance.seeds),
            metrics=provenance.metrics,
        ),
    )


def graph_file(path: Path, precision: Precision = "fp32") -> GraphFile:
    """What a manifest says of an exported graph."""
    return GraphFile(file=path.name, sha256=file_sha256(path), precision=precision)
