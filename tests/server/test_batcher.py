"""The batcher: order, fairness, drops and state, with a real engine."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from server.batcher import MAX_DROPS_HELD, Batcher, BatchSettings, Lane
from server.contract import Feature, Image, State
from server.engine.onnxruntime import EngineError, EngineOptions, OnnxDetector
from server.scoring import DropReason, Step, WindowScore
from server.windows import Window, WindowSpan
from tests.support.tiny_bundle import Fault, make_tiny_bundle, trail_scores


class Gate:
    """The tiny detector behind a gate, so that a test decides when the engine is busy."""

    def __init__(self, inner: OnnxDetector) -> None:
        self._inner = inner
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Event()
        self.failure: Exception | None = None
        self.steps: list[int] = []

    def encode(self, images: Image) -> Feature:
        self.entered.set()
        assert self.open.wait(10)
        if self.failure is not None:
            raise self.failure
        return self._inner.encode(images)

    def step(self, features: Feature, state: State) -> Step:
        self.steps.append(len(features))
        return self._inner.step(features, state)

    def zero_state(self) -> State:
        return self._inner.zero_state()


class Turnstile(Gate):
    """A gate that lets one batch pass at a time."""

    def __init__(self, inner: OnnxDetector) -> None:
        super().__init__(inner)
        self.waiting, self.passes = threading.Semaphore(0), threading.Semaphore(0)

    def encode(self, images: Image) -> Feature:
        self.waiting.release()
        assert self.passes.acquire(timeout=10)
        return super().encode(images)


class Sink:
    """Keeps what is published."""

    def __init__(self) -> None:
        self.scores: list[WindowScore] = []
        self.breaks: list[str] = []
        self.batches: list[int] = []
        self._changed = threading.Condition()

    def scored(self, lane: Lane, score: WindowScore) -> None:
        with self._changed:
            self.scores.append(score)
            self._changed.notify_all()

    def broke_off(self, lane: Lane) -> None:
        self.breaks.append(lane.stream_id)

    def stage(self, name: str, seconds: float) -> None:
        assert seconds >= 0

    def batch(self, size: int) -> None:
        self.batches.append(size)

    def wait_for(self, count: int) -> list[WindowScore]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.scores) >= count, 10)
        return self.scores


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> OnnxDetector:
    directory: Path = tmp_path_factory.mktemp("bundles") / "tiny"
    return OnnxDetector(make_tiny_bundle(directory), EngineOptions(threads=1))


@pytest.fixture
def gate(detector: OnnxDetector) -> Gate:
    return Gate(detector)


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def batcher(gate: Gate, sink: Sink) -> Iterator[Batcher]:
    batcher = Batcher(gate, BatchSettings(max_batch=4, max_wait_seconds=0.001), sink)
    batcher.start()
    yield batcher
    gate.open.set()
    batcher.stop()


def window(number: int, level: int = 128) -> Window:
    images = np.full((4, 24, 32, 3), level, np.uint8)
    span = (16 * number, 16 * number + 16, number * 1.6, number * 1.6 + 1.5)
    return Window(number, images, *span, 0.0, 1.5, time.monotonic())


def span_of(number: int) -> WindowSpan:
    return WindowSpan(number, 16 * number, 16 * number + 16, 0.0, 1.5, time.monotonic())


def hold(gate: Gate, batcher: Batcher, lane: Lane) -> None:
    """Keep the engine busy with window 0 of the lane."""
    gate.open.clear()
    gate.entered.clear()
    batcher.submit(lane, window(0))
    assert gate.entered.wait(10)


def test_scores_follow_the_state_of_their_own_stream(batcher: Batcher, sink: Sink) -> None:
    dark, bright = batcher.open_lane("dark", 0), batcher.open_lane("bright", 100)
    for number in range(5):
        batcher.submit(dark, window(number, 51))
        batcher.submit(bright, window(number, 204))
        sink.wait_for(2 * number + 2)
    by_stream = {
        name: [s for s in sink.scores if s.stream_id == name] for name in ("dark", "bright")
    }
    assert [s.sequence for s in by_stream["bright"]] == list(range(100, 105))
    # float32 means of flat images: a few ulp.
    for name, level in (("dark", 0.2), ("bright", 0.8)):
        expected = trail_scores([level] * 5)
        assert [s.score for s in by_stream[name]] == pytest.approx(expected, abs=1e-6)


def test_files_wait_for_all_cameras(batcher: Batcher, gate: Gate, sink: Sink) -> None:
    files = [batcher.open_lane(f"file{n}", 0, lossless=True) for n in range(12)]
    cameras = [batcher.open_lane(f"cam{n}", 0) for n in range(3)]
    hold(gate, batcher, files[0])
    for lane in [*files, *cameras]:
        batcher.submit(lane, window(1))
    gate.open.set()
    scores = sink.wait_for(16)
    assert {score.stream_id for score in scores[1:4]} == {"cam0", "cam1", "cam2"}


def test_the_newest_window_wins_and_the_older_one_is_told(
    batcher: Batcher, gate: Gate, sink: Sink
) -> None:
    lane = batcher.open_lane("cam", 0)
    hold(gate, batcher, lane)
    for number in (1, 2, 3):
        batcher.submit(lane, window(number))
    gate.open.set()
    scores = sink.wait_for(4)
    assert [s.sequence for s in scores] == [0, 1, 2, 3]
    assert [s.drop_reason for s in scores] == [
        None,
        DropReason.OVERLOAD,
        DropReason.OVERLOAD,
        None,
    ]
    # Dropped windows step the head with the last feature: state never skips time.
    level = 128 / 255
    assert scores[3].score == pytest.approx(trail_scores([level] * 4)[3], abs=1e-6)


def test_a_window_after_a_gap_starts_from_zero_even_if_dropped(
    batcher: Batcher, gate: Gate, sink: Sink
) -> None:
    lane = batcher.open_lane("cam", 0)
    hold(gate, batcher, lane)
    batcher.break_off(lane)
    batcher.submit(lane, window(0, 204))
    batcher.submit(lane, window(1, 204))
    gate.open.set()
    scores = sink.wait_for(3)
    assert sink.breaks == ["cam"]
    assert scores[1].drop_reason is DropReason.OVERLOAD
    assert scores[2].score == pytest.approx(trail_scores([0.8])[0], abs=1e-6)


def test_a_lossless_lane_keeps_every_window(batcher: Batcher, gate: Gate, sink: Sink) -> None:
    lane = batcher.open_lane("file", 0, lossless=True)
    hold(gate, batcher, lane)
    for number in (1, 2):
        batcher.submit(lane, window(number))
    gate.open.set()
    assert [s.drop_reason for s in sink.wait_for(3)] == [None, None, None]


def test_a_batch_takes_one_window_of_each_stream(batcher: Batcher, gate: Gate, sink: Sink) -> None:
    busy = batcher.open_lane("busy", 0)
    lanes = [batcher.open_lane(f"cam{n}", 0) for n in range(6)]
    hold(gate, batcher, busy)
    for lane in lanes:
        batcher.submit(lane, window(0))
    gate.open.set()
    scores = sink.wait_for(7)
    assert sorted(s.stream_id for s in scores[1:]) == [lane.stream_id for lane in lanes]
    assert sink.batches == [1, 4, 2]


@pytest.fixture
def turnstile(detector: OnnxDetector) -> Turnstile:
    return Turnstile(detector)


@pytest.fixture
def one_by_one(turnstile: Turnstile, sink: Sink) -> Iterator[Batcher]:
    """A batcher that scores a single window at a time."""
    batcher = Batcher(turnstile, BatchSettings(max_batch=1, max_wait_seconds=0), sink)
    batcher.start()
    yield batcher
    turnstile.passes.release(1000)
    batcher.stop()


def test_higher_priority_comes_first_and_equals_take_turns(
    one_by_one: Batcher, turnstile: Turnstile, sink: Sink
) -> None:
    names = ("busy", "low", "first", "second", "high")
    lanes = {name: one_by_one.open_lane(name, 0) for name in names}
    one_by_one.prioritise(lanes["low"], 0)
    one_by_one.prioritise(lanes["high"], 9)
    one_by_one.submit(lanes["busy"], window(0))
    assert turnstile.waiting.acquire(timeout=10)
    for number in range(2):
        for name in names[1:]:
            one_by_one.submit(lanes[name], window(number))
        turnstile.passes.release(3)
        sink.wait_for(3 if number == 0 else 7)  # and a drop of the one that never came
    order = [s.stream_id for s in sink.scores if s.score is not None]
    assert order == ["busy", "high", "first", "second", "high", "first"]
    one_by_one.prioritise(lanes["low"], 9)
    turnstile.passes.release(2)
    order = [s.stream_id for s in sink.wait_for(9)]
    assert order[-2:] == ["second", "low"]  # the one before was on its way already


def test_what_a_starved_stream_loses_is_told_all_the_same(
    one_by_one: Batcher, turnstile: Turnstile, sink: Sink
) -> None:
    high, low = one_by_one.open_lane("high", 0), one_by_one.open_lane("low", 0)
    one_by_one.prioritise(high, 9)
    rounds = MAX_DROPS_HELD + 50
    one_by_one.submit(high, window(0))
    for number in range(rounds):
        assert turnstile.waiting.acquire(timeout=10)
        one_by_one.submit(low, window(number))
        one_by_one.submit(high, window(number + 1))
        turnstile.passes.release()
    turnstile.passes.release(2)
    scores = sink.wait_for(2 * rounds + 1)
    of_high, of_low = ([s for s in scores if s.stream_id == name] for name in ("high", "low"))
    assert [s.drop_reason for s in of_high] == [None] * (rounds + 1)
    assert [s.sequence for s in of_low] == list(range(rounds))
    reasons = [s.drop_reason for s in of_low]
    assert reasons == [DropReason.OVERLOAD] * (rounds - 1) + [None]


def test_a_window_that_is_left_out_takes_no_place_in_a_batch(
    batcher: Batcher, gate: Gate, sink: Sink
) -> None:
    busy = batcher.open_lane("busy", 0)
    thinned = [batcher.open_lane(f"thinned{n}", 0) for n in range(4)]
    whole = [batcher.open_lane(f"whole{n}", 0) for n in range(4)]
    hold(gate, batcher, busy)
    for lane in thinned:
        batcher.report_drop(lane, span_of(1), DropReason.STILL)
    for lane in whole:
        batcher.submit(lane, window(0))
    gate.open.set()
    scores = sink.wait_for(9)
    assert sink.batches == [1, 4]
    assert sum(s.drop_reason is DropReason.STILL for s in scores) == 4


def test_what_many_streams_lose_is_one_step_of_the_head(
    batcher: Batcher, gate: Gate, sink: Sink
) -> None:
    """As each would be alone: a server that loses most windows still has time to score some."""
    lanes = [batcher.open_lane(f"cam{n}", 0) for n in range(70)]
    for lane in lanes:
        batcher.submit(lane, window(0, 51))
    sink.wait_for(70)
    busy = batcher.open_lane("busy", 0)
    hold(gate, batcher, busy)
    gate.steps.clear()
    for number in (1, 2):
        for lane in lanes:
            batcher.report_drop(lane, span_of(number), DropReason.BACKLOG)
    gate.open.set()
    scores = sink.wait_for(70 * 3 + 1)[71:]
    assert gate.steps == [1, 64, 6, 64, 6]
    for lane in lanes:
        of_lane = [s for s in scores if s.stream_id == lane.stream_id]
        assert [s.sequence for s in of_lane] == [1, 2]
    batcher.submit(lanes[3], window(3, 51))
    expected = trail_scores([0.2] * 4)
    assert sink.wait_for(70 * 3 + 2)[-1].score == pytest.approx(expected[3], abs=1e-6)


def test_windows_lost_on_the_way_keep_their_sequence(batcher: Batcher, sink: Sink) -> None:
    lane = batcher.open_lane("cam", 0)
    batcher.submit(lane, window(0))
    sink.wait_for(1)
    batcher.report_drop(lane, span_of(1), DropReason.BACKLOG)
    batcher.pass_over(lane, 5)
    batcher.submit(lane, window(7))
    reasons = {s.sequence: s.drop_reason for s in sink.wait_for(3)}
    assert reasons == {0: None, 1: DropReason.BACKLOG, 7: None}


@pytest.mark.parametrize("failure", [EngineError("the device is gone"), MemoryError()])
def test_an_engine_that_fails_drops_its_windows_and_goes_on(
    failure: Exception,
    batcher: Batcher,
    gate: Gate,
    sink: Sink,
    caplog: pytest.LogCaptureFixture,
) -> None:
    lane = batcher.open_lane("cam", 0)
    gate.failure = failure
    for number in range(3):
        batcher.submit(lane, window(number))
        sink.wait_for(number + 1)
    gate.failure = None
    batcher.submit(lane, window(3))
    scores = sink.wait_for(4)
    assert [s.drop_reason for s in scores] == [DropReason.ENGINE] * 3 + [None]
    assert [s.sequence for s in scores] == [0, 1, 2, 3]
    assert sum("engine failed" in record.message for record in caplog.records) == 1


@pytest.mark.parametrize("fault", [Fault.RAISES, Fault.NAN])
def test_a_window_that_the_engine_fails_on_costs_no_other_stream_its_score(
    fault: Fault, tmp_path: Path, sink: Sink
) -> None:
    bundle = make_tiny_bundle(tmp_path / "faulty", fault=fault)
    gate = Gate(OnnxDetector(bundle, EngineOptions(threads=1)))
    batcher = Batcher(gate, BatchSettings(max_batch=4, max_wait_seconds=0.001), sink)
    batcher.start()
    busy, dark, bright = (batcher.open_lane(name, 0) for name in ("busy", "dark", "bright"))
    levels = [51, 255, 51]
    for number, level in enumerate(levels):
        hold(gate, batcher, busy)
        batcher.submit(dark, window(number, 51))
        batcher.submit(bright, window(number, level))
        gate.open.set()
        sink.wait_for(3 * (number + 1))
    batcher.stop()
    of_dark, of_bright = (
        [s for s in sink.scores if s.stream_id == name] for name in ("dark", "bright")
    )
    expected = trail_scores([0.2] * 3)
    assert [s.score for s in of_dark] == pytest.approx(expected, abs=1e-6)
    assert [s.drop_reason for s in of_bright] == [None, DropReason.ENGINE, None]
    # The last feature stood in for the lost one: state never skips time.
    assert of_bright[2].score == pytest.approx(expected[2], abs=1e-6)
    assert 2 in sink.batches


def test_a_closed_lane_publishes_nothing_more(batcher: Batcher, gate: Gate, sink: Sink) -> None:
    gone, other = batcher.open_lane("gone", 0), batcher.open_lane("other", 0)
    hold(gate, batcher, gone)
    batcher.submit(gone, window(1))
    batcher.submit(other, window(0))
    batcher.close_lane(gone)
    gate.open.set()
    sink.wait_for(1)
    batcher.stop()
    assert [s.stream_id for s in sink.scores] == ["other"]


def test_a_stuck_engine_holds_a_bounded_number_of_entries(
    batcher: Batcher, gate: Gate, sink: Sink
) -> None:
    lane = batcher.open_lane("cam", 0)
    hold(gate, batcher, lane)
    for number in range(1, 3 * MAX_DROPS_HELD):
        batcher.submit(lane, window(number))
    assert len(lane.entries) == MAX_DROPS_HELD
    gate.open.set()
    last = sink.wait_for(MAX_DROPS_HELD + 1)[-1]
    assert (last.sequence, last.drop_reason) == (3 * MAX_DROPS_HELD - 1, None)


def test_a_window_that_waited_behind_a_run_waits_for_no_others(gate: Gate, sink: Sink) -> None:
    patient = Batcher(gate, BatchSettings(max_batch=4, max_wait_seconds=1.0), sink)
    patient.start()
    try:
        busy, late = patient.open_lane("busy", 0), patient.open_lane("late", 0)
        gate.open.clear()
        patient.submit(busy, window(0))
        assert gate.entered.wait(10)  # once its second of patience is over
        patient.submit(late, window(0))
        threading.Event().wait(1.0)
        gate.open.set()
        opened = time.monotonic()
        sink.wait_for(2)
        assert time.monotonic() - opened < 0.9  # and not another second
    finally:
        gate.open.set()
        patient.stop()
