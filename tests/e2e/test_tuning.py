"""A running server whose streams are tuned, snoozed and quietened by command."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.cli import main
from server.contract import WindowSpec
from tests.support.clips import grey_clip
from tests.support.serving import ServerProcess
from tests.support.tiny_bundle import make_tiny_bundle

DARK, BRIGHT = 26, 250
WAIT_SECONDS = 30


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServerProcess]:
    bundle = make_tiny_bundle(tmp_path / "tiny", window=WindowSpec(4, 10.0)).directory
    with ServerProcess(
        bundle=bundle,
        store=tmp_path / "streams.db",
        access__file_roots=tmp_path,
        alerts__min_duration_seconds=0,
        alerts__merge_gap_seconds=0,
    ) as server:
        monkeypatch.setenv("GVVAD_SERVER", server.address)
        yield server


def alerts(server: ServerProcess) -> str:
    """The metrics on alerts."""
    with urllib.request.urlopen(f"{server.http}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return "\n".join(line for line in lines if line.startswith("gvvad_alerts"))


def wait_for(server: ServerProcess, *lines: str) -> None:
    tick = threading.Event()
    for _ in range(WAIT_SECONDS * 20):
        if set(lines) <= set(alerts(server).splitlines()):
            return
        tick.wait(0.05)
    raise AssertionError(f"{lines} are not in\n{alerts(server)}")


def test_alerts_of_a_stream_are_delivered_or_not_as_its_tuning_says(
    server: ServerProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Three bright stretches of 3.2 s with 6.4 s of dark between them. By their trails two
    # windows of the first are at an alert's scores and three of the others, 1.6 s each.
    light = ([BRIGHT] * 32 + [DARK] * 64) * 3
    url = f"file://{grey_clip(tmp_path / 'three.mp4', light)}"
    for stream, flags in {
        "plain": [],
        "cooled": ["--cooldown", "1h"],
        "merged": ["--merge-gap", "1m"],
        "night": ["--quiet", "00:00-24:00 Europe/Berlin"],
        "split": ["--max-duration", "2"],
    }.items():
        assert main(["streams", "add", stream, url, *flags]) == 0

    def delivered(stream: str, count: int) -> str:
        return f'gvvad_alerts_total{{stream="{stream}"}} {count}.0'

    def suppressed(stream: str, reason: str, count: int) -> str:
        return f'gvvad_alerts_suppressed_total{{reason="{reason}",stream="{stream}"}} {count}.0'

    wait_for(
        server,
        delivered("plain", 3),
        delivered("cooled", 1), suppressed("cooled", "cooldown", 2),
        delivered("merged", 1),
        delivered("night", 0), suppressed("night", "quiet_hours", 3),
        delivered("split", 8),
    )  # fmt: skip
    capsys.readouterr()
    assert main(["streams", "get", "night", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["quiet_hours"] == ["00:00-24:00 Europe/Berlin"]
    log = "".join(server.log)
    assert log.count("closed (split), peak") == 5
    assert log.count("open (not delivered: quiet hours), peak") == 3


def test_a_close_threshold_above_the_bundles_is_one_line_and_exit_code_2(
    server: ServerProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["streams", "add", "door", "push://", "--close-threshold", "0.9"]) == 2
    assert capsys.readouterr().err == (
        "gvvad: close_threshold (0.9) must be at most the open threshold, which is 0.5 here; "
        "lower the one or raise the other\n"
    )
    assert main(["streams", "list"]) == 0
    assert "door" not in capsys.readouterr().out
