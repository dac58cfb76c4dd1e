"""What a backtest says of alerts, on clips whose scores are known and on real ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from server.backtest_command import Attempt, run_backtest_command
from server.bundle import DEFAULT_BUNDLE, Bundle
from server.cli import main
from server.contract import WindowSpec
from server.tuning import AlertTuning
from tests.support.clips import grey_clip
from tests.support.tiny_bundle import make_tiny_bundle

DARK, BRIGHT = 26, 250
WINDOW = 16
"""Frames of a window, at 10 fps: 1.6 s. The tiny bundle scores a window by its own light and the
trail of those before: over 0.5 as soon as it is bright, and below with the next dark one or two."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny", window=WindowSpec(4, 10.0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One clip with an event, a false alarm and a missed event, of windows dark or bright."""
    place = tmp_path_factory.mktemp("clips")
    lights = "....####........####........"
    levels = [BRIGHT if light == "#" else DARK for light in lights for _ in range(WINDOW)]
    grey_clip(place / "mixed.mp4", levels)
    anomalous = [[4 * WINDOW, 8 * WINDOW], [24 * WINDOW, 26 * WINDOW]]
    truth = {"mixed.mp4": {"frames": len(levels), "fps": 10, "anomalous": anomalous}}
    (place / "ground_truth.json").write_text(json.dumps(truth))
    return place


def report(folder: Path, bundle: Bundle, capsys, *flags: str) -> dict:
    capsys.readouterr()
    arguments = ["backtest", str(folder), "--bundle", str(bundle.directory), "--json", *flags]
    assert main(arguments) == 0
    return json.loads(capsys.readouterr().out)


def test_events_alerts_and_delay_by_hand(folder: Path, bundle: Bundle, capsys) -> None:
    found = report(folder, bundle, capsys, "--merge-gap", "0", "--min-duration", "0")
    events = found["unseen"]["events"]
    assert {name: events[name] for name in ("count", "detected", "alerts")} == {
        "count": 2, "detected": 1, "alerts": 2,
    }  # fmt: skip
    assert (events["recall"], events["precision"]) == (0.5, 0.5)
    # It opens with the first bright window, whose last frame comes 1.6 s into the event.
    assert events["median_delay_seconds"] == events["p90_delay_seconds"] == pytest.approx(1.6)
    assert found["unseen"]["false_alarms"] == 1
    assert found["unseen"]["false_alarms_per_day"] is None
    assert found["unseen"]["hours"] == pytest.approx(22 * 1.6 / 3600)
    first, second = found["clips"]["mixed.mp4"]["alerts"]
    assert (first["opened_frame"], second["opened_frame"]) == (5 * WINDOW, 17 * WINDOW)
    assert (first["end_reason"], first["suppression"]) == ("score_fell", None)


def test_a_minimum_duration_is_a_delay(folder: Path, bundle: Bundle, capsys) -> None:
    found = report(folder, bundle, capsys, "--merge-gap", "0", "--min-duration", "4s")
    # From the first frame of the first to the last frame of the third window are 4.7 s.
    assert found["unseen"]["events"]["median_delay_seconds"] == pytest.approx(4.8)


def test_a_merge_gap_joins_alerts_and_a_split_does_not_multiply_them(
    folder: Path, bundle: Bundle, capsys
) -> None:
    merged = report(folder, bundle, capsys, "--merge-gap", "30s")
    assert merged["unseen"]["events"]["alerts"] == 1
    assert merged["unseen"]["false_alarms"] == 0  # a part of it lies over an event
    split = report(folder, bundle, capsys, "--max-duration", "3", "--min-duration", "0")
    pieces = split["clips"]["mixed.mp4"]["alerts"]
    assert sum(piece["continues_the_former"] for piece in pieces) >= 2
    assert split["unseen"]["events"]["alerts"] == 2
    assert split["unseen"]["false_alarms"] == 1


def test_an_alert_that_reaches_nobody_neither_detects_nor_alarms(
    folder: Path, bundle: Bundle, capsys
) -> None:
    found = report(folder, bundle, capsys, "--cooldown", "1h", "--merge-gap", "0")
    assert [alert["suppression"] for alert in found["clips"]["mixed.mp4"]["alerts"]] == [
        None, "cooldown",
    ]  # fmt: skip
    assert (found["unseen"]["events"]["alerts"], found["unseen"]["false_alarms"]) == (1, 0)


def test_a_threshold_that_nothing_reaches_raises_nothing(
    folder: Path, bundle: Bundle, capsys
) -> None:
    found = report(folder, bundle, capsys, "--threshold", "1.0")
    assert (found["unseen"]["events"]["recall"], found["unseen"]["events"]["precision"]) == (
        0,
        None,
    )
    assert found["policy"] == {
        "open_threshold": 1.0, "close_threshold": 0.8, "min_duration_seconds": 2.0,
        "merge_gap_seconds": 5.0, "max_duration_seconds": 3600.0, "cooldown_seconds": 0.0,
    }  # fmt: skip


def test_many_false_alarms_are_a_rate_a_day_with_its_interval(
    tmp_path: Path, bundle: Bundle, capsys
) -> None:
    lights = "....####" * 4
    levels = [BRIGHT if light == "#" else DARK for light in lights for _ in range(WINDOW)]
    grey_clip(tmp_path / "false.mp4", levels)
    truth = {"false.mp4": {"frames": len(levels), "fps": 10, "anomalous": []}}
    (tmp_path / "ground_truth.json").write_text(json.dumps(truth))
    found = report(tmp_path, bundle, capsys, "--merge-gap", "0")["unseen"]
    a_day = found["false_alarms_per_day"]
    assert found["false_alarms"] == 4
    assert a_day["rate"] == pytest.approx(4 * 86_400 / (32 * 1.6))
    assert a_day["low"] < a_day["rate"] < a_day["high"]
    assert a_day["rate"] == pytest.approx(24 * found["false_alarms_per_hour"]["rate"])


def test_the_report_says_it_in_sentences(folder: Path, bundle: Bundle, capsys) -> None:
    tuning = AlertTuning(min_duration_seconds=0, merge_gap_seconds=0)
    assert (
        run_backtest_command(folder, bundle.directory, Attempt(tuning=tuning), as_json=False) == 0
    )
    text = capsys.readouterr().out
    assert (
        "1 of 2 events detected (recall 0.500) by 2 alerts, precision 0.500; "
        "opened 1.6 s after the start (median), 1.6 s (p90)"
    ) in text
    assert "1 false alarms (95% interval 0.0 to 5.6) in 0.010 h of normal footage" in text
    assert "end below 0.400 for 0 s, are split after 3600 s, cooldown 0 s" in text


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--threshold", "2"], "threshold (2) must be over 0 and at most 1"),
        (["--threshold", "nan"], "threshold (nan) must be over 0"),
        (
            ["--threshold", "0.3", "--close-threshold", "0.4"],
            "close_threshold (0.4) must be at most",
        ),
        (["--merge-gap", "long"], "'long' is no length of time"),
    ],
)
def test_a_policy_that_makes_no_sense_is_one_line(
    folder: Path, bundle: Bundle, capsys, flags: list[str], sentence: str
) -> None:
    assert main(["backtest", str(folder), "--bundle", str(bundle.directory), *flags]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert sentence in captured.err


@pytest.mark.clips
@pytest.mark.long
def test_real_clips_with_a_low_threshold_are_all_detected_and_with_a_high_one_none(
    clips: Path, capsys
) -> None:
    place = clips / "ucsd_ped2"

    def events(*flags: str) -> dict:
        assert main(["backtest", str(place), "--json", *flags]) == 0
        report = json.loads(capsys.readouterr().out)
        return {total: report[total]["events"] for total in ("seen", "unseen")}

    assert DEFAULT_BUNDLE.is_dir()
    low, high = events("--threshold", "1e-6", "--min-duration", "0"), events("--threshold", "1")
    for total in ("seen", "unseen"):
        assert low[total]["detected"] == low[total]["count"]
        assert high[total]["detected"] == high[total]["alerts"] == 0
    assert sum(low[total]["count"] for total in low) > 0
