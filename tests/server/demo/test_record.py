"""What a demo remembers: from capture times back to the clip, and its figures."""

from __future__ import annotations

import pytest

from server.alerts import Alert, AlertState
from server.demo.camera import Turn
from server.demo.record import Record
from server.scoring import DropReason, WindowScore
from server.views import ModelInfo
from server.windows import WindowSpan

EPOCH = 1_800_000_000.0
MODEL = ModelInfo(
    bundle_id="ab" * 32,
    bundle_name="tiny",
    encoder="means",
    engine="onnxruntime",
    precision="fp32",
    device="cpu",
    threshold=0.5,
    window_seconds=1.6,
    fps=10.0,
    sampled_frames=16,
    height=112,
    width=112,
    feature_dim=3,
)


def window(sequence: int, score: float | None, latency_seconds: float = 0.05) -> WindowScore:
    start = EPOCH + 1.6 * sequence
    span = WindowSpan(sequence, 16 * sequence, 16 * sequence + 16, start, start + 1.5, 0.0)
    dropped = DropReason.OVERLOAD if score is None else None
    return WindowScore("demo", sequence, span, score, dropped, latency_seconds)


def alert(state: AlertState, end_seconds: float) -> Alert:
    span = (EPOCH + 1.6, EPOCH + end_seconds)
    return Alert("a1", "demo", MODEL.bundle_id, state, 1, 2, *span, 0.9, EPOCH + 3.1)


def test_a_capture_time_leads_back_to_the_clip_that_plays_again() -> None:
    record = Record()
    for turn in range(3):
        record.add(Turn(turn, EPOCH + 2.0 * turn, fps=25.0))
    times = [EPOCH + seconds for seconds in (-0.1, 0.0, 1.9, 2.0, 5.5)]
    assert [record.clip_seconds(at) for at in times] == pytest.approx([0, 0, 1.9, 0, 1.5])
    assert [record.since_start_seconds(at) for at in times] == pytest.approx([0, 0, 1.9, 2, 5.5])


def test_the_summary_counts_what_was_scored_and_what_was_dropped() -> None:
    record = Record(frames=120)
    record.add(Turn(0, EPOCH, fps=25.0))
    for sequence, score in enumerate([0.1, None, 0.8, 0.3]):
        record.add(window(sequence, score, latency_seconds=0.01 * (sequence + 1)))
    record.add(alert(AlertState.OPEN, 3.1))
    record.add(alert(AlertState.CLOSED, 4.7))
    summary = record.summary(MODEL, "demo.png")
    assert (summary.windows, summary.dropped, summary.frames, summary.alerts) == (3, 1, 120, 1)
    assert summary.score is not None
    assert (summary.score.min, summary.score.max) == (0.1, 0.8)
    assert summary.score.mean == pytest.approx(0.4)
    assert summary.latency_seconds is not None
    assert summary.latency_seconds.p50 == pytest.approx(0.03)
    assert summary.seconds == pytest.approx(3 * 1.6 + 1.5)
    assert [(one.state, one.end_seconds) for one in record.alerts] == [
        (AlertState.CLOSED, EPOCH + 4.7)
    ]


def test_a_demo_that_saw_nothing_has_a_summary_without_figures() -> None:
    summary = Record().summary(MODEL, None)
    assert (summary.windows, summary.alerts, summary.seconds) == (0, 0, 0.0)
    assert summary.score is None
    assert summary.latency_seconds is None
    assert summary.picture is None
