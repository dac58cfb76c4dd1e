"""The naive program: the same networks as the server's, in a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from server.bench.crew import BenchError
from server.bench.naive import NaiveRun
from server.bundle import DEFAULT_BUNDLE, BundleError, load_bundle
from server.engine.onnxruntime import EngineOptions, OnnxDetector
from server.ingest.video import file_windows
from tests.bench.naive_model import torch_encoder, torch_head
from tests.support.cameras import RtspServer, render_clip
from tests.support.tiny_bundle import make_tiny_bundle

HERE = Path(sys.executable)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", seconds=8)


def test_torch_gives_the_features_and_scores_of_the_bundle(clip: Path) -> None:
    bundle = load_bundle(DEFAULT_BUNDLE)
    served, manifest = OnnxDetector(bundle, EngineOptions(threads=1)), bundle.manifest
    encoder, head = torch_encoder(bundle), torch_head(bundle)
    state = served.zero_state()
    tensors = [torch.from_numpy(one) for one in state.values()]
    scores = []
    for window in file_windows(clip, manifest.window, manifest.preprocess):
        feature = served.encode(window.images[None])
        step = served.step(feature, state)
        with torch.inference_mode():
            found = encoder(torch.from_numpy(window.images[None]))
            score, *tensors = head(found, *tensors)
        norms = np.linalg.norm(feature) * np.linalg.norm(found)
        assert float(feature[0] @ found.numpy()[0]) / norms > 0.999
        assert float(score) == pytest.approx(float(step.scores[0]), abs=1e-5)
        state = step.state
        scores.append(float(score))
    # Windows that differ, so that the memory is at work.
    assert len(scores) == 5
    assert max(scores) - min(scores) > 1e-3


def test_torch_has_no_weights_of_another_architecture(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "tiny")
    for build in (torch_encoder, torch_head):
        with pytest.raises(BundleError, match="embedded bundle"):
            build(bundle)


def test_it_scores_files_and_tells_its_figures_as_a_process(clip: Path) -> None:
    run = NaiveRun(DEFAULT_BUNDLE, HERE, threads=1)
    assert run.lacking() is None
    found = run.measure([str(clip)], cameras=2, seconds=0.5)
    assert found.cameras == 2
    assert found.seconds >= 0.5
    assert found.windows_per_second == pytest.approx(found.windows / found.seconds)
    assert found.windows > 0
    assert found.latency_p50_seconds is not None
    assert found.latency_p99_seconds is not None
    assert 0 < found.latency_p50_seconds <= found.latency_p99_seconds
    # Nothing paces a file, so it is never late.
    assert found.behind_p50_seconds is found.late_windows is found.missing_windows is None


@pytest.mark.long
@pytest.mark.rtsp
def test_it_tells_how_far_it_is_behind_a_camera(clip: Path) -> None:
    run = NaiveRun(DEFAULT_BUNDLE, HERE)
    with RtspServer({"/cam": clip}) as rtsp:
        found = run.measure([rtsp.url("/cam")], cameras=1, seconds=7)
    assert 3 <= found.windows <= 6  # 4.4 are due
    assert found.missing_windows is not None
    assert found.latency_p50_seconds is not None
    assert found.behind_p50_seconds is not None
    # What OpenCV read ahead counts in the one and not in the other.
    assert found.behind_p50_seconds >= found.latency_p50_seconds


@pytest.mark.long
def test_a_camera_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="cannot open") as raised:
        NaiveRun(DEFAULT_BUNDLE, HERE).measure([str(tmp_path / "none.mp4")], 1, 0.5)
    assert "\n" not in str(raised.value)


def test_it_is_left_out_with_a_word_where_it_cannot_run(tmp_path: Path) -> None:
    lean = tmp_path / "python"
    lean.write_text(f'#!/bin/sh\nexec "{HERE}" -S "$@"\n')
    lean.chmod(0o755)
    tiny = make_tiny_bundle(tmp_path / "tiny").directory
    for words, run in [
        ("has no torch", NaiveRun(DEFAULT_BUNDLE, lean)),
        ("cannot be started", NaiveRun(DEFAULT_BUNDLE, tmp_path / "none")),
        ("run from a checkout", NaiveRun(DEFAULT_BUNDLE, HERE, checkout=tmp_path)),
        ("weights of motion-members alone, not of means", NaiveRun(tiny, HERE)),
    ]:
        lacking = run.lacking()
        assert lacking is not None
        assert words in lacking
        assert "\n" not in lacking


def test_a_broken_bundle_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="not a bundle"):
        NaiveRun(tmp_path, HERE).lacking()
