"""`gvvad streams` on quiet hours, snooze and alert policies, and how alerts are shown."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from server.alerts import AlertState, EndReason, Suppression
from server.cli import main
from server.sampling import EVERY_WINDOW, EveryNth, OnMotion
from server.streams import StreamConfig
from server.terminal import alert_json, alert_line
from server.tuning import AlertTuning, QuietHours
from tests.support.backend import MemoryBackend, an_alert
from tests.support.served import Run, Served, loop_in_thread, serving

NIGHT = QuietHours((1, 2, 3, 4, 5), "22:00", "06:00", "Europe/Berlin")
WEEKEND = QuietHours((6, 7), "00:00", "24:00", "UTC")


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    with loop_in_thread() as run:
        yield run


@pytest.fixture
def served(run: Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    with serving(run, MemoryBackend()) as served:
        monkeypatch.setenv("GVVAD_SERVER", served.address)
        assert main(["streams", "add", "door", "rtsp://cam/a"]) == 0
        yield served


def config(served: Served) -> StreamConfig:
    return served.backend.views["door"].config


def update(*arguments: str) -> None:
    assert main(["streams", "update", "door", *arguments]) == 0


def test_a_stream_is_added_with_its_tuning(served: Served) -> None:
    flags = [
        "--threshold", "0.6", "--close-threshold", "0.3", "--min-duration", "1.5",
        "--merge-gap", "10s", "--max-duration", "5m", "--cooldown", "1h",
        "--quiet", "Mon-Fri 22:00-06:00 Europe/Berlin", "--quiet", "Sat,Sun 00:00-24:00 UTC",
    ]  # fmt: skip
    assert main(["streams", "add", "hall", "rtsp://cam/b", *flags]) == 0
    stored = served.backend.views["hall"].config
    assert stored.open_threshold == 0.6
    assert stored.alerts == AlertTuning(0.3, 1.5, 10, 300, 3600, (NIGHT, WEEKEND))


def test_an_update_changes_what_it_names_and_leaves_the_rest(served: Served) -> None:
    update("--cooldown", "30", "--quiet", "Mon-Fri 22:00-06:00 Europe/Berlin")
    update("--merge-gap", "0")
    update("--threshold", "0.5")
    assert config(served).alerts == AlertTuning(
        merge_gap_seconds=0, cooldown_seconds=30, quiet_hours=(NIGHT,)
    )
    update("--quiet", "Sat,Sun 00:00-24:00 UTC")
    assert config(served).alerts.quiet_hours == (WEEKEND,)


def test_what_was_tuned_can_be_taken_back(served: Served) -> None:
    update("--cooldown", "30", "--close-threshold", "0.1", "--quiet", "22:00-06:00 UTC")
    update("--default-policy", "--max-duration", "10m")
    assert config(served).alerts == replace(
        AlertTuning(max_duration_seconds=600),
        quiet_hours=(QuietHours((), "22:00", "06:00", "UTC"),),
    )
    update("--no-quiet")
    assert config(served).alerts == AlertTuning(max_duration_seconds=600)


def test_a_stream_is_snoozed_for_a_while_until_a_time_and_no_more(served: Served) -> None:
    began = time.time()
    assert main(["streams", "snooze", "door", "2h"]) == 0
    until = config(served).alerts.snooze_until_seconds
    assert until is not None
    assert began + 7200 - 1e-5 <= until <= time.time() + 7200
    assert main(["streams", "snooze", "door", "--until", "2099-01-01T00:00+01:00"]) == 0
    assert config(served).alerts.snooze_until_seconds == 4070905200.0
    assert main(["streams", "snooze", "door", "--end"]) == 0
    assert config(served).alerts == AlertTuning()


def test_get_and_list_show_the_tuning(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    update("--cooldown", "30", "--quiet", "Mon-Fri 22:00-06:00 Europe/Berlin")
    assert main(["streams", "snooze", "door", "--until", "2099-01-01T00:00Z"]) == 0
    capsys.readouterr()
    main(["streams", "get", "door"])
    shown = capsys.readouterr().out.splitlines()
    assert "cooldown_seconds  30.0" in shown
    assert "quiet_hours       Mon-Fri 22:00-06:00 Europe/Berlin" in shown
    main(["streams", "list"])
    heading, row = capsys.readouterr().out.splitlines()
    assert heading.split()[-2:] == ["ALERTS", "SOURCE"]
    assert "tuned, quiet hours, snoozed until 2099-01-01 00:00Z  rtsp://cam/a" in row
    main(["streams", "list", "--json"])
    (door,) = json.loads(capsys.readouterr().out)
    tuned = {name: value for name, value in door.items() if value and name in {
        "close_threshold", "min_duration_seconds", "merge_gap_seconds", "max_duration_seconds",
        "cooldown_seconds", "quiet_hours", "snooze_until",
    }}  # fmt: skip
    assert tuned == {
        "cooldown_seconds": 30.0,
        "quiet_hours": ["Mon-Fri 22:00-06:00 Europe/Berlin"],
        "snooze_until": "2099-01-01T00:00:00.000+00:00",
    }


def test_a_snooze_that_is_over_is_not_in_the_table(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    view = served.backend.views["door"]
    over = replace(view.config, alerts=AlertTuning(snooze_until_seconds=1_700_000_000.0))
    served.backend.views["door"] = replace(view, config=over)
    capsys.readouterr()
    main(["streams", "list"])
    assert "snoozed" not in capsys.readouterr().out


def test_a_stream_is_added_and_changed_with_its_sampling_and_priority(served: Served) -> None:
    flags = ["--sampling", "motion", "--when-full", "nth:4", "--priority", "9"]
    assert main(["streams", "add", "hall", "rtsp://cam/b", *flags]) == 0
    hall = served.backend.views["hall"].config
    assert (hall.sampling, hall.sampling_when_full) == (OnMotion(5.0), EveryNth(4))
    assert hall.priority == 9
    assert (config(served).sampling, config(served).sampling_when_full) == (EVERY_WINDOW, None)
    update("--sampling", "nth:2", "--when-full", "motion:1m", "--priority", "0")
    update("--cooldown", "30")
    assert (config(served).sampling, config(served).sampling_when_full) == (
        EveryNth(2),
        OnMotion(60.0),
    )
    assert config(served).priority == 0
    update("--sampling", "every", "--when-full", "refuse")
    assert (config(served).sampling, config(served).sampling_when_full) == (EVERY_WINDOW, None)


def test_get_and_list_show_how_a_stream_is_sampled(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    update("--when-full", "motion:10s", "--priority", "7")
    capsys.readouterr()
    main(["streams", "list"])
    assert "every     7" in capsys.readouterr().out
    served.backend.views["door"] = replace(served.backend.views["door"], thinned=True)
    main(["streams", "list"])
    assert "motion:10s (thinned)  7" in capsys.readouterr().out
    main(["streams", "get", "door", "--json"])
    shown = json.loads(capsys.readouterr().out)
    names = ("sampling", "sampling_when_full", "thinned", "priority")
    assert [shown[name] for name in names] == ["every", "motion:10s", True, 7]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["update", "door", "--sampling", "nth:1"], "--sampling: nth (1) must be 2 to 64"),
        (["update", "door", "--sampling", "refuse"], "'refuse' is no sampling; give every, nth:N"),
        (["add", "a", "rtsp://cam/a", "--when-full", "every"], "every thins nothing; give nth:4"),
        (["add", "a", "rtsp://cam/a", "--priority", "10"], "priority (10) must be 0 to 9"),
        (["update", "door", "--priority", "-1"], "priority (-1) must be 0 to 9"),
        (["update", "door", "--cooldown", "soon"], "--cooldown: 'soon' is no length of time"),
        (["update", "door", "--max-duration", "0"], "max_duration (0) must be 1 to 86400"),
        (["update", "door", "--merge-gap", "2d"], "merge_gap (172800) must be 0 to 3600"),
        (["update", "door", "--close-threshold", "1.5"], "close_threshold (1.5) must be 0 to 1"),
        (["update", "door", "--close-threshold", "nan"], "close_threshold (nan) must be 0 to 1"),
        (["add", "hall", "rtsp://cam/b", "--min-duration", "2h"], "min_duration (7200) must be"),
        (["update", "door", "--quiet", "at night"], "--quiet: 'at night' must be [DAYS ]HH:MM"),
        (["update", "door", "--no-quiet", "--quiet", "22:00-06:00 UTC"], "exclude each other"),
        (["snooze", "door"], "one of the arguments LENGTH --until --end is required"),
        (["snooze", "door", "2h", "--end"], "not allowed with"),
        (["snooze", "door", "--until", "2001-01-01"], "must end in the future"),
        (["snooze", "door", "--until", "noon"], "'noon' is no moment"),
        (["snooze", "door", "0"], "must end in the future"),
        (["snooze", "ghost", "2h"], "there is no stream ghost"),
    ],
)
def test_bad_tuning_is_one_line_and_exit_code_2(
    served: Served, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    capsys.readouterr()
    assert main(["streams", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("gvvad: ")
    assert captured.err.count("\n") == 1
    assert sentence in captured.err
    assert config(served).alerts == AlertTuning()


def test_a_watch_tells_which_alerts_reach_nobody_and_why_one_ended() -> None:
    alert = an_alert("door")
    assert "ALERT open after 3.5 s, peak 0.875" in alert_line(alert, 0)
    quiet = replace(alert, suppression=Suppression.QUIET_HOURS)
    assert "alert open (not delivered: quiet hours) after 3.5 s" in alert_line(quiet, 0)
    split = replace(an_alert("door", AlertState.CLOSED), end_reason=EndReason.SPLIT)
    assert "ALERT closed (split) after 3.5 s, peak 0.875" in alert_line(split, 0)
    fell = replace(split, end_reason=EndReason.SCORE_FELL)
    assert "ALERT closed after 3.5 s" in alert_line(fell, 0)
    content = alert_json(replace(quiet, end_reason=EndReason.GAP, continues="ab" * 8), 0)
    assert (content["suppression"], content["end_reason"], content["continues"]) == (
        "quiet_hours", "gap", "ab" * 8,
    )  # fmt: skip
    plain = alert_json(alert, 0)
    assert (plain["suppression"], plain["end_reason"], plain["continues"]) == (None, None, None)
