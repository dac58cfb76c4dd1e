"""The encoder that nothing was trained for, as a bundle to extract features with.

A bundle has a head always; this one's tells how much moves, until a density fitted to
the features takes its place.
"""

from __future__ import annotations

import hashlib
import tempfile
from importlib.metadata import version
from pathlib import Path

from export.bundle import ENCODER_FILE, HEAD_FILE, graph_file, head_part
from export.graphs import export_encoder, export_head
from export.steps import ExportedStep
from server.bundle import SCHEMA, Bundle, EncoderPart, Manifest, Threshold, Training, write_bundle
from server.contract import WINDOW_FRAMES, WindowSpec
from server.preprocess import PreprocessSpec
from training.clips import TrainingError
from training.motion_cells import CellEncoder, CellSpec, MotionLevel

ENCODER_NAME = "motion-cells"
LEVEL_NAME = "motion-level"
FPS = 10.0

_WIDEST = 65536


def export_cells(spec: CellSpec, directory: Path) -> Bundle:
    """Write the bundle, whole or not at all.

    Args:
        spec: the grid.
        directory: where it will stand; an older bundle there is replaced.

    Raises:
        TrainingError: the feature would be wider than a bundle may say.
        BundleError: something else stands there.
    """
    if spec.feature_dim > _WIDEST:
        raise TrainingError(
            f"{spec.cells} cells make a feature of {spec.feature_dim} numbers, at most {_WIDEST} "
            "may be; raise --stride or take smaller images"
        )
    window = WindowSpec(WINDOW_FRAMES, FPS)
    preprocess = PreprocessSpec(spec.height, spec.width, "squash", "area", "bt601", "declared")
    step = ExportedStep(MotionLevel(spec), LEVEL_NAME, spec.feature_dim, None, {})
    directory = directory.resolve()
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        graphs = {name: Path(scratch) / name for name in (ENCODER_FILE, HEAD_FILE)}
        export_encoder(CellEncoder(spec), window, preprocess, graphs[ENCODER_FILE])
        export_head(step, graphs[HEAD_FILE])
        manifest = Manifest(
            schema=SCHEMA,  # type: ignore[call-arg]
            name=ENCODER_NAME,
            window=window,
            preprocess=preprocess,
            encoder=EncoderPart(
                name=f"{ENCODER_NAME}-{spec.cells}",
                feature_dim=spec.feature_dim,
                feature_scale=spec.feature_scale,
                graph=graph_file(graphs[ENCODER_FILE]),
            ),
            head=head_part(step, graphs[HEAD_FILE]),
            threshold=Threshold(value=0.5, chosen="not chosen: no footage was seen"),
            training=Training(
                manifest_sha256=hashlib.sha256().hexdigest(),
                clips=[],
                code_version=version("gvvad"),
                seeds=[],
                metrics={},
            ),
        )
        return write_bundle(directory, manifest, graphs)
