"""The embedded detector on the rendered scene: one alert, during the event."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.bundle import DEFAULT_BUNDLE, load_bundle
from server.contract import WINDOW_FRAMES
from server.demo.scene import render_scene
from server.engine.onnxruntime import EngineOptions, OnnxDetector
from server.replay import replay
from server.setting_groups import AlertSettings
from server.tuning import AlertTuning

LONG = pytest.mark.long


@pytest.mark.parametrize(
    ("seconds", "seed"),
    [
        (10.0, 1),
        pytest.param(20.0, 1, marks=LONG),
        pytest.param(20.0, 2, marks=LONG),
        pytest.param(30.0, 1, marks=LONG),
    ],
)
def test_the_scene_raises_one_alert_during_its_event(
    seconds: float, seed: int, tmp_path: Path
) -> None:
    clip = tmp_path / "scene.mp4"
    truth = render_scene(clip, seconds, seed=seed)
    bundle = load_bundle(DEFAULT_BUNDLE)
    defaults = AlertSettings().to_values()
    policy = defaults.policy(bundle.manifest.threshold.value, AlertTuning())
    detector = OnnxDetector(bundle, EngineOptions(threads=1))
    (replayed,) = replay([clip], bundle, detector, policy)
    assert len(replayed.alerts) == 1, replayed.scores
    alert = replayed.alerts[0]
    window_seconds = WINDOW_FRAMES / (bundle.manifest.window.fps or 25.0)
    assert truth.event_start_seconds - window_seconds < alert.start_seconds
    assert alert.start_seconds < truth.event_end_seconds
    assert truth.event_start_seconds < alert.peak_seconds
    assert alert.peak_seconds < truth.event_end_seconds + window_seconds
