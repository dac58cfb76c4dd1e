"""What the user sees while the demo runs: a live panel, or plain lines without a terminal."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import IO, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from server.alerts import Alert
from server.demo.camera import Turn
from server.demo.record import Record
from server.scoring import WindowScore
from server.views import ModelInfo

BARS = "▁▂▃▄▅▆▇█"
_CURVE_ROWS = 4
_PANEL_COLUMNS = 4  # that the panel's frame takes


@dataclass(frozen=True, slots=True)
class Programme:
    """What is on.

    Attributes:
        title: what the camera plays.
        seconds: how long.
    """

    title: str
    seconds: float


class Screen(Protocol):
    """Shows a running demo; `close` leaves the terminal as it was."""

    def happened(self, item: WindowScore | Alert | Turn, record: Record) -> None: ...

    def tick(self, record: Record, state: str) -> None: ...

    def close(self) -> None: ...


def bar(score: float) -> str:
    """One character as high as the score.

    >>> bar(0.0), bar(0.5), bar(1.0)
    ('▁', '▅', '█')
    """
    return BARS[min(len(BARS) - 1, int(score * len(BARS)))]


class PlainScreen:
    """One line a window or alert, for logs and pipes."""

    def __init__(self, output: IO[str]) -> None:
        self._output = output
        self._shown_state = ""

    def happened(self, item: WindowScore | Alert | Turn, record: Record) -> None:
        match item:
            case WindowScore():
                self._line(record, item.span.end_capture_seconds, _window_words(item))
            case Alert():
                self._line(record, item.end_seconds, _alert_words(item, record))
            case Turn():
                self._line(record, item.started_seconds, "the camera plays the clip")

    def tick(self, record: Record, state: str) -> None:
        if state != self._shown_state:
            self._output.write(f"          stream is {state}\n")
            self._output.flush()
            self._shown_state = state

    def close(self) -> None:
        self._output.flush()

    def _line(self, record: Record, at_seconds: float, words: str) -> None:
        self._output.write(f"{record.since_start_seconds(at_seconds):7.1f} s  {words}\n")
        self._output.flush()


class LiveScreen:
    """A panel in the terminal that is redrawn a few times a second."""

    def __init__(self, console: Console, programme: Programme, model: ModelInfo) -> None:
        self._programme, self._model = programme, model
        self._columns = console.width - _PANEL_COLUMNS
        self._live = Live(console=console, auto_refresh=False)
        self._live.start()

    def happened(self, item: WindowScore | Alert | Turn, record: Record) -> None:
        self._draw(record, "running")

    def tick(self, record: Record, state: str) -> None:
        self._draw(record, state)

    def close(self) -> None:
        self._live.stop()

    def _draw(self, record: Record, state: str) -> None:
        body = Group(self._clock(record, state), self._curve(record), self._alerts(record))
        model = self._model
        subtitle = f"{model.encoder} · {model.engine} {model.precision} on {model.device}"
        panel = Panel(body, title=self._programme.title, subtitle=subtitle, title_align="left")
        self._live.update(panel, refresh=True)

    def _clock(self, record: Record, state: str) -> RenderableType:
        started = record.turns[0].started_seconds if record.turns else time.time()
        elapsed = min(self._programme.seconds, max(0.0, time.time() - started))
        newest = record.scored[-1] if record.scored else None
        score = Text("-" if newest is None else f"{newest.score:.2f}", style="bold")
        if newest is not None and (newest.score or 0.0) >= self._model.threshold:
            score.stylize("red")
        latency = "-" if newest is None else f"{newest.latency_seconds * 1000:.0f} ms"
        table = Table.grid(padding=(0, 3))
        table.add_row("time", "score", "latency", "windows", "dropped", "frames", "stream")
        table.add_row(
            f"{elapsed:.1f} of {self._programme.seconds:g} s",
            score,
            latency,
            str(len(record.scored)),
            str(record.dropped),
            str(record.frames),
            state,
        )
        return table

    def _curve(self, record: Record) -> RenderableType:
        """Bars of a few rows, the newest window on the right."""
        threshold = self._model.threshold
        curve = Text("\n")
        for row in reversed(range(_CURVE_ROWS)):
            for window in record.windows[-self._columns :]:
                if window.score is None:
                    curve.append("·" if row == 0 else " ", style="yellow")
                else:
                    style = "red" if window.score >= threshold else "cyan"
                    curve.append(_cell(window.score, row), style=style)
            curve.append("\n")
        curve.append(f"alert from score {threshold:.2f}\n", style="dim")
        return curve

    def _alerts(self, record: Record) -> RenderableType:
        lines = Text()
        for alert in record.alerts[-3:]:
            style = "red" if alert.is_closed else "bold red"
            lines.append(f"{_alert_words(alert, record)}\n", style=style)
        return lines or Text("no alert", style="dim")


def _cell(score: float, row: int) -> str:
    """What a bar of _CURVE_ROWS rows shows in one of them; row 0 is the lowest, never empty."""
    eighths = round(score * _CURVE_ROWS * len(BARS)) - row * len(BARS)
    if row == 0:
        eighths = max(1, eighths)
    return " " if eighths <= 0 else BARS[min(len(BARS), eighths) - 1]


def _alert_words(alert: Alert, record: Record) -> str:
    start = record.since_start_seconds(alert.start_seconds)
    end = record.since_start_seconds(alert.end_seconds)
    lasting = f"to {end:.1f} s" if alert.is_closed else "and goes on"
    return f"ALERT from {start:.1f} s {lasting}, peak score {alert.peak_score:.2f}"


def _window_words(window: WindowScore) -> str:
    if window.score is None:
        reason = window.drop_reason.value if window.drop_reason is not None else "unknown"
        return f"window {window.sequence:3}  dropped ({reason})"
    return (
        f"window {window.sequence:3}  score {window.score:.2f} {bar(window.score)}  "
        f"latency {window.latency_seconds * 1000:.0f} ms"
    )
