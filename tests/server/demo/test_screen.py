"""What the user sees: lines in a pipe, a panel in a terminal."""

from __future__ import annotations

import io

from rich.console import Console

from server.alerts import AlertState
from server.demo.camera import Turn
from server.demo.record import Record
from server.demo.screen import LiveScreen, PlainScreen, Programme, Screen
from tests.server.demo.test_record import EPOCH, MODEL, alert, window


def play(screen: Screen) -> None:
    record = Record(frames=80)
    screen.tick(record, "connecting")
    happenings = (
        Turn(0, EPOCH, fps=25.0),
        window(0, 0.1),
        window(1, 0.9),
        alert(AlertState.OPEN, 3.1),
        window(2, None),
        alert(AlertState.CLOSED, 4.7),
    )
    for item in happenings:
        record.add(item)
        screen.happened(item, record)
    screen.tick(record, "running")
    screen.close()


def test_a_pipe_gets_one_line_for_everything_that_happens() -> None:
    output = io.StringIO()
    play(PlainScreen(output))
    assert output.getvalue().splitlines() == [
        "          stream is connecting",
        "    0.0 s  the camera plays the clip",
        "    1.5 s  window   0  score 0.10 ▁  latency 50 ms",
        "    3.1 s  window   1  score 0.90 █  latency 50 ms",
        "    3.1 s  ALERT from 1.6 s and goes on, peak score 0.90",
        "    4.7 s  window   2  dropped (overload)",
        "    4.7 s  ALERT from 1.6 s to 4.7 s, peak score 0.90",
        "          stream is running",
    ]


def test_a_terminal_shows_score_curve_latency_drops_and_alerts() -> None:
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, color_system=None, width=100)
    play(LiveScreen(console, Programme("a test", 30.0), MODEL))
    last = output.getvalue().rpartition("a test")[2]
    curve = [line.strip("│ ") for line in last.splitlines()[4:8]]
    assert curve == ["▅", "█", "█", "▃█·"]
    assert "alert from score 0.50" in last
    assert "ALERT from 1.6 s to 4.7 s, peak score 0.90" in last
    assert "means · onnxruntime fp32 on cpu" in last
    row = next(line for line in last.splitlines() if "50 ms" in line)
    assert row.split("│")[1].split()[-6:] == ["50", "ms", "2", "1", "80", "running"]
