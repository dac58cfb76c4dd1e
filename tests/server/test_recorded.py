"""Real normal footage as a source of thresholds: it is told how far it carries."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from server.alerts import AlertPolicy
from server.bundle import DEFAULT_BUNDLE, load_bundle
from server.calibrate import Question, calibrate
from server.calibration import CalibrationError
from server.opening import EventCounter
from server.recorded import record
from server.series import ScoreSeries

pytestmark = pytest.mark.clips


def usual(opens: float) -> AlertPolicy:
    return AlertPolicy(opens, 0.8 * opens, 2.0)


def scored(folder: Path) -> ScoreSeries:
    recorded, broken = record(folder, load_bundle(DEFAULT_BUNDLE), Console(file=io.StringIO()))
    assert broken == []
    return recorded.series


def test_minutes_of_real_footage_are_refused_and_not_taken_for_a_day(clips: Path) -> None:
    series = scored(clips / "normal_permissive")
    assert len(series.known()) > 50
    with pytest.raises(CalibrationError, match=r"3\.\d minutes of scores in \d+ windows"):
        calibrate(series, Question("ab" * 32, usual, 1.0, 1e9))


def test_what_truth_calls_anomalous_is_never_normal(clips: Path) -> None:
    folder = clips / "ucf_crime_test_excerpts"
    (truth,) = json.loads((folder / "ground_truth.json").read_text()).values()
    assert truth["anomalous"]
    series = scored(folder)
    assert len(series.known()) < len(series)
    assert EventCounter(series, usual).at(0.0001).events == 0
