"""What a demo has seen, and the figures that its summary gives."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field

import numpy as np

from server.alerts import Alert
from server.demo.camera import Turn
from server.scoring import WindowScore
from server.views import ModelInfo


@dataclass(frozen=True, slots=True)
class Latency:
    """From a window's last frame to its score, in seconds."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class ScoreRange:
    """Of all scored windows, each in [0, 1]."""

    min: float
    max: float
    mean: float


@dataclass(frozen=True, slots=True)
class Summary:
    """The object that `--json` prints.

    Attributes:
        bundle: id, 64 hex digits.
        encoder: architecture.
        engine: what really ran.
        windows: scored.
        dropped: not scored.
        frames: decoded by the server.
        latency_seconds: None without a scored window.
        score: None without a scored window.
        alerts: opened.
        seconds: from the camera's first frame to the end of the newest window.
        picture: path of the picture; None where there is none.
    """

    bundle: str
    encoder: str
    engine: str
    windows: int
    dropped: int
    frames: int
    latency_seconds: Latency | None
    score: ScoreRange | None
    alerts: int
    seconds: float
    picture: str | None


@dataclass(slots=True)
class Record:
    """Everything a demo has seen so far."""

    turns: list[Turn] = field(default_factory=list)
    windows: list[WindowScore] = field(default_factory=list)
    frames: int = 0
    _alerts: dict[str, Alert] = field(default_factory=dict)

    def add(self, item: WindowScore | Alert | Turn) -> None:
        """Take what has just happened."""
        match item:
            case WindowScore():
                self.windows.append(item)
            case Alert():
                self._alerts[item.alert_id] = item
            case Turn():
                self.turns.append(item)

    @property
    def alerts(self) -> list[Alert]:
        """Newest state of each alert, in the order in which they opened."""
        return list(self._alerts.values())

    @property
    def scored(self) -> list[WindowScore]:
        return [window for window in self.windows if window.score is not None]

    @property
    def dropped(self) -> int:
        return len(self.windows) - len(self.scored)

    def since_start_seconds(self, capture_seconds: float) -> float:
        """UTC capture time -> seconds since the camera's first frame."""
        if not self.turns:
            return 0.0
        return max(0.0, capture_seconds - self.turns[0].started_seconds)

    def clip_seconds(self, capture_seconds: float) -> float:
        """UTC capture time -> seconds into the clip, which may play several times."""
        starts = [turn.started_seconds for turn in self.turns]
        turn = max(0, bisect_right(starts, capture_seconds) - 1)
        return max(0.0, capture_seconds - starts[turn]) if starts else 0.0

    def summary(self, model: ModelInfo, picture: str | None) -> Summary:
        """The figures of all that has been seen."""
        scores = [window.score for window in self.windows if window.score is not None]
        latencies = [window.latency_seconds for window in self.scored]
        ends = [window.span.end_capture_seconds for window in self.windows]
        return Summary(
            bundle=model.bundle_id,
            encoder=model.encoder,
            engine=model.engine,
            windows=len(scores),
            dropped=self.dropped,
            frames=self.frames,
            latency_seconds=_latency(latencies) if latencies else None,
            score=ScoreRange(min(scores), max(scores), sum(scores) / len(scores))
            if scores
            else None,
            alerts=len(self._alerts),
            seconds=round(self.since_start_seconds(max(ends)), 3) if ends else 0.0,
            picture=picture,
        )


def _latency(seconds: list[float]) -> Latency:
    p50, p95, p99 = (float(value) for value in np.percentile(seconds, (50, 95, 99)))
    return Latency(round(p50, 4), round(p95, 4), round(p99, 4))
