"""The embedded default as it is served: whole, small, repeatable, and honest about itself."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from server.bundle import DEFAULT_BUNDLE, Bundle, load_bundle
from server.engine.onnxruntime import EngineOptions, OnnxDetector
from server.scoring import StreamMemory, score_features

MAX_BYTES = 5_000_000


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle(DEFAULT_BUNDLE)


@pytest.fixture(scope="module")
def detector(bundle: Bundle) -> OnnxDetector:
    return OnnxDetector(bundle, EngineOptions(threads=1))


@pytest.fixture(scope="module")
def images(bundle: Bundle) -> np.ndarray:
    """Eight windows of moving noise, stills, black and white."""
    shape = tuple(bundle.manifest.encoder_tensors()[0][0].shape[1:])
    random = np.random.default_rng(3)
    moving = random.integers(0, 256, (5, *shape), np.uint8)
    still = np.broadcast_to(random.integers(0, 256, (1, 1, *shape[1:]), np.uint8), (1, *shape))
    flat = [np.full((1, *shape), level, np.uint8) for level in (0, 255)]
    return np.concatenate([moving, still, *flat])


def test_it_fits_and_says_where_it_comes_from(bundle: Bundle) -> None:
    assert sum(file.stat().st_size for file in DEFAULT_BUNDLE.iterdir()) <= MAX_BYTES
    manifest = bundle.manifest
    assert manifest.window.fps is not None
    assert 0 < manifest.threshold.value < 1
    assert "out-of-fold" in manifest.threshold.chosen
    assert manifest.training.clips == sorted(set(manifest.training.clips))
    assert len(manifest.training.clips) > 100
    assert manifest.training.metrics


def test_it_beats_one_number_on_sources_that_it_never_saw(bundle: Bundle) -> None:
    found = bundle.manifest.training.metrics
    for clips, target in (("", 0.80), ("_without_normal_sources", 0.77)):
        auc = found[f"oof_head_frame_auc{clips}"]
        assert auc >= target
        assert auc > found[f"oof_baseline_frame_auc{clips}"]


@pytest.mark.parametrize("name", ["bundle.json", "encoder.onnx", "head.onnx"])
def test_it_holds_no_paths_of_the_machine_that_made_it(name: str) -> None:
    content = (DEFAULT_BUNDLE / name).read_bytes()
    assert b".py" not in content
    assert b"site-packages" not in content


def test_features_have_the_norm_that_the_manifest_says(
    bundle: Bundle, detector: OnnxDetector, images: np.ndarray
) -> None:
    norms = np.linalg.norm(detector.encode(images), axis=1)
    # float32: a norm of D values is exact to about 1e-6.
    assert norms == pytest.approx(bundle.manifest.encoder.feature_scale, rel=1e-5)


def test_a_window_scores_alike_alone_and_in_a_batch(
    detector: OnnxDetector, images: np.ndarray
) -> None:
    together = detector.encode(images)
    alone = np.concatenate([detector.encode(window[None]) for window in images])
    # DESIGN: 1e-5 across batch compositions, since kernels may sum in another order.
    assert np.abs(together - alone).max() < 1e-5
    assert np.array_equal(detector.encode(images), together)


def test_scores_stay_in_range_over_a_long_stream(
    detector: OnnxDetector, images: np.ndarray
) -> None:
    features = detector.encode(images)
    memory = StreamMemory()
    order = np.random.default_rng(1).integers(0, len(features), 2000)
    scores = [score_features(detector, features[n : n + 1], [memory])[0].score for n in order]
    assert np.isfinite(scores).all()
    assert 0 <= min(scores) <= max(scores) <= 1
    assert memory.state is not None
    assert sum(tensor.nbytes for tensor in memory.state.values()) < 100_000


@pytest.mark.clips
def test_it_knows_its_training_clips(bundle: Bundle, clips: Path) -> None:
    from server.bundle import file_sha256

    known = set(bundle.manifest.training.clips)
    paths = islice(sorted((clips / "fights_surv").rglob("*.mp4")), 10)
    assert all(file_sha256(path) in known for path in paths)
