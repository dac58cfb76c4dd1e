"""Verify a bundle: hashes, shapes, and that its graphs compute what torch does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from export.engines import EVERY_ENGINE, first_running
from export.steps import step_of
from server.bundle import Bundle, BundleError, load_bundle
from server.engine.choice import Engine
from server.engine.flags import EngineFlags
from training.checkpoint import Checkpoint
from training.encoder import Encoder
from training.head_run import AnyHead

TOLERANCE = 1e-4
STEPS = 1000

_STREAMS = 4
_WINDOWS = 8
_STREAM_MATCH = 1e-5
_SEED = 7


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found; errors are the largest absolute differences.

    Attributes:
        bundle_id: sha256 of the manifest.
        bytes: of all the bundle's files.
        norm_error: of features against the declared scale.
        batch_error: of scores of one stream against the same in a batch.
        feature_error: ONNX against torch; None without a checkpoint.
        score_error: the same, over `STEPS` windows of state.
    """

    bundle_id: str
    bytes: int
    norm_error: float
    batch_error: float
    feature_error: float | None
    score_error: float | None


def verify(
    directory: Path,
    checkpoint: Checkpoint | None,
    head: AnyHead | None = None,
    engines: Sequence[EngineFlags] = EVERY_ENGINE,
) -> Verification:
    """Verify a bundle.

    Args:
        directory: the bundle.
        checkpoint: what it was exported from; without it only what the bundle
            says of itself is checked.
        head: the one that it was exported from, where its encoder is another bundle's.
        engines: the first of them that can run the bundle does.

    Raises:
        BundleError: a file, a shape or a number is not as it should be.
        EngineError: none can run it.
    """
    bundle = load_bundle(directory)
    windows = moving_windows(bundle)
    with first_running(bundle, engines, _WINDOWS) as engine:
        features = engine.encode(windows)
        streams = feature_streams(features)
        scores = _onnx_scores(engine, streams)
        alone = _onnx_scores(engine, streams[:, :1])
    norms = np.linalg.norm(features, axis=1)
    scale = bundle.manifest.encoder.feature_scale
    found = Verification(
        bundle_id=bundle.bundle_id,
        bytes=sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()),
        norm_error=float(np.abs(norms - scale).max()),
        batch_error=float(np.abs(alone - scores[:, :1]).max()),
        feature_error=None,
        score_error=None,
    )
    if not np.isfinite(scores).all() or scores.min() < 0 or scores.max() > 1:
        raise BundleError(f"{directory}: scores leave [0, 1]; export the bundle again")
    if checkpoint is not None:
        head = checkpoint.detector.head
        error = _feature_error(checkpoint.detector.encoder, windows, features)
        found = replace(found, feature_error=error)
    if head is not None:
        found = replace(found, score_error=_score_error(head, streams, scores))
    _check(directory, found)
    return found


def moving_windows(bundle: Bundle) -> np.ndarray:
    """(8, S, H, W, 3) uint8 windows: still, noisy, and with a bright square that moves."""
    size = bundle.manifest.preprocess
    sampled = bundle.manifest.window.sampled_frames
    rng = np.random.default_rng(_SEED)
    shape = (_WINDOWS, sampled, size.height, size.width, 3)
    windows = np.empty(shape, np.uint8)
    windows[:] = rng.integers(0, 200, (_WINDOWS, 1, size.height, size.width, 3), np.uint8)
    side = max(2, size.height // 6)
    for number, window in enumerate(windows[1:], start=1):
        for index, image in enumerate(window):
            left = (3 * number * index) % (size.width - side)
            image[side : 2 * side, left : left + side] = 255
    windows[-1] = rng.integers(0, 256, windows[-1].shape, np.uint8)
    return windows


def feature_streams(features: np.ndarray) -> np.ndarray:
    """(steps, streams, D): the features in a random order, so that state keeps moving."""
    order = np.random.default_rng(_SEED).integers(0, len(features), (STEPS, _STREAMS))
    streams: np.ndarray = features[order]
    return streams


def _onnx_scores(engine: Engine, streams: np.ndarray) -> np.ndarray:
    """(steps, streams) scores from zero states."""
    batch = streams.shape[1]
    state = {name: np.repeat(zero, batch, axis=0) for name, zero in engine.zero_state().items()}
    scores = np.empty(streams.shape[:2], np.float32)
    for step, feature in enumerate(streams):
        found = engine.step(np.ascontiguousarray(feature), state)
        scores[step], state = found.scores, found.state
    return scores


@torch.inference_mode()
def _feature_error(encoder: Encoder, windows: np.ndarray, features: np.ndarray) -> float:
    expected = encoder(torch.from_numpy(windows)).numpy()
    _check_width(expected.shape[1], features.shape[1])
    return float(np.abs(expected - features).max())


@torch.inference_mode()
def _score_error(head: AnyHead, streams: np.ndarray, scores: np.ndarray) -> float:
    """Of (steps, streams) scores, from zero states."""
    step = step_of(head)
    _check_width(step.feature_dim, streams.shape[2])
    state = tuple(torch.zeros(streams.shape[1], *shape) for shape in step.states.values())
    worst = 0.0
    for feature, found in zip(streams, scores, strict=True):
        expected, *others = step.module(torch.from_numpy(feature), *state)
        state = tuple(others[: len(state)])
        worst = max(worst, float(np.abs(expected.numpy() - found).max()))
    return worst


def _check_width(expected: int, found: int) -> None:
    if expected != found:
        raise BundleError(
            f"the bundle's features are {found} wide, the checkpoint's {expected}; "
            "export this checkpoint again"
        )


def _check(directory: Path, found: Verification) -> None:
    errors = {
        "the norm of features": (found.norm_error, TOLERANCE),
        "scores across batch sizes": (found.batch_error, _STREAM_MATCH),
        "features against the checkpoint": (found.feature_error, TOLERANCE),
        "scores against the checkpoint": (found.score_error, TOLERANCE),
    }
    for what, (error, tolerance) in errors.items():
        if error is not None and not error <= tolerance:
            raise BundleError(
                f"{directory}: {what} differ by {error:.2g}, expected at most {tolerance:.0e}; "
                "export the bundle again from its checkpoint"
            )
