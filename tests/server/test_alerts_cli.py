"""`gvvad alerts` as an operator types it, against a real gRPC server."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from server.alert_records import ChangeKind, Evidence, EvidenceState
from server.alerts import Alert, AlertState, EndReason
from server.cli import main
from server.rpc.alert_messages import cursor
from tests.support.backend import MemoryBackend, an_alert
from tests.support.served import Served, loop_in_thread, serving

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run():
    with loop_in_thread() as run:
        yield run


@pytest.fixture
def served(run, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    with serving(run, MemoryBackend()) as served:
        monkeypatch.setenv("GVVAD_SERVER", served.address)
        yield served


def closed(alert: Alert) -> Alert:
    return replace(alert, state=AlertState.CLOSED, end_reason=EndReason.GAP)


@pytest.fixture
def alerts(served: Served) -> list[Alert]:
    """One that is over, and a later one of another stream that goes on."""
    log = served.backend.desk.log
    over = replace(closed(an_alert("door")), window_scores=(0.5, math.nan, 0.25))
    made = [over, an_alert("hall", first_sequence=9)]
    for alert in made:
        log.append(ChangeKind.CLOSED if alert.is_closed else ChangeKind.OPENED, alert, 1.0)
    return made


def test_a_list_is_a_table_for_people(alerts: list[Alert], capsys) -> None:
    assert main(["alerts", "ack", alerts[0].alert_id, "a cat"]) == 0
    capsys.readouterr()
    assert main(["alerts", "list"]) == 0
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.split() == ["ALERT", "STREAM", "BEGAN", "LASTED", "PEAK", "STATE", "SEEN"]
    assert [line.split()[:2] for line in lines] == [
        [alert.alert_id, alert.stream_id] for alert in reversed(alerts)
    ]
    assert lines[1].endswith("0.875  closed (gap)  a cat")
    assert lines[0].endswith("open          -")


@pytest.mark.parametrize(
    ("arguments", "streams"),
    [
        ([], ["hall", "door"]),
        (["door"], ["door"]),
        (["--state", "open"], ["hall"]),
        (["--since", "2023-11-14T22:13:25Z"], ["hall"]),
        (["--until", "2023-11-14 22:13:25"], ["door"]),
        (["--min-peak", "0.9"], []),
        (["--unacknowledged", "--limit", "1"], ["hall"]),
    ],
)
def test_filters_narrow_a_list(
    alerts: list[Alert], capsys, arguments: list[str], streams: list[str]
) -> None:
    assert main(["alerts", "list", *arguments, "--json"]) == 0
    assert [alert["stream"] for alert in json.loads(capsys.readouterr().out)] == streams


def test_one_alert_is_shown_with_its_scores(served: Served, alerts: list[Alert], capsys) -> None:
    evidence = Evidence(EvidenceState.READY, 10, 20)
    served.backend.desk.log.set_evidence(alerts[0].alert_id, evidence, 1.0)
    assert main(["alerts", "get", alerts[0].alert_id, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["window_scores"] == [0.5, None, 0.25]
    assert (shown["end_reason"], shown["evidence"]["state"]) == ("gap", "ready")
    assert main(["alerts", "get", alerts[0].alert_id]) == 0
    assert "end_reason" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["get", "door"], "16 hex digits"),
        (["get", "0" * 16], "no alert '0000000000000000'"),
        (["list", "--since", "yesterday"], "--since 'yesterday' is no time"),
        (["list", "--limit", "0"], "--limit 0 must be 1 or more"),
        (["list", "--min-peak", "2"], "min_peak_score (2) must be 0 to 1"),
        (["watch", "ghost"], "there is no stream ghost"),
        (["watch", "--cursor", "seven"], "cursor ('seven') must be"),
        (["watch", "--cursor-file", "/nowhere/at/all"], "cannot be written"),
        (["watch", "--cursor-file", "/"], "cannot be read"),
        ([], "required: ACTION"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(
    served: Served, capsys, arguments: list[str], sentence: str
) -> None:
    assert main(["alerts", *arguments]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert sentence in captured.err


def test_an_expired_cursor_fails_with_its_remedy(served: Served, capsys, tmp_path: Path) -> None:
    file = tmp_path / "cursor"
    file.write_text(cursor(7))
    assert main(["alerts", "watch", "--cursor-file", str(file)]) == 1
    assert "begin again without a cursor" in capsys.readouterr().err


class Watching:
    """A running `gvvad alerts watch` with a cursor file."""

    def __init__(self, served: Served, file: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "server", "alerts", "watch", "--json", "--cursor-file", file],
            cwd=ROOT,
            env={**os.environ, "GVVAD_SERVER": served.address},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._deadline = threading.Timer(30, self._process.kill)
        self._deadline.start()
        while not file.exists() or not served.backend.desk.changed.subscriptions:
            assert self._process.poll() is None
            threading.Event().wait(0.01)

    def line(self) -> dict[str, object]:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def end(self, number: signal.Signals) -> None:
        self._process.send_signal(number)
        self._process.communicate(timeout=10)
        self._deadline.cancel()


def test_a_watch_goes_on_exactly_after_the_last_line_it_printed(
    served: Served, tmp_path: Path
) -> None:
    file, desk = tmp_path / "cursor", served.backend.desk
    seen = []
    for turn, number in enumerate((signal.SIGKILL, signal.SIGINT, signal.SIGKILL)):
        watching = Watching(served, file)
        if turn:
            seen.append(watching.line())  # what happened while nobody watched
        desk.submit(an_alert("door", first_sequence=turn))
        seen.append(watching.line())
        while file.read_text().strip() != seen[-1]["cursor"]:
            threading.Event().wait(0.01)
        watching.end(number)
        desk.submit(closed(an_alert("door", first_sequence=turn)))
        while len(desk.log.changes(0)) < 2 * (turn + 1):
            threading.Event().wait(0.01)
    assert [one["cursor"] for one in seen] == [cursor(n) for n in range(1, 6)]
    assert [one["change"] for one in seen] == ["opened", "closed", "opened", "closed", "opened"]
    assert [path.name for path in tmp_path.iterdir()] == ["cursor"]
