"""Windows of all streams to scores, on one engine thread.

Each stream has a lane. A live one keeps its newest window only: when the
engine cannot keep up, the older one becomes a drop, told with its reason, and
delay never grows. A lossless one keeps all; its source sends the next only when
one is done. Windows of streams of higher priority come first, those of equal
priority in turn. Every window gets the next sequence of its stream when it
arrives, scored or not, and leaves in that order.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from server.engine.onnxruntime import EngineError
from server.logs import about
from server.sampling import DEFAULT_PRIORITY
from server.scoring import (
    Detector,
    DropReason,
    StreamMemory,
    Verdict,
    WindowScore,
    score_features,
    skip_windows,
)
from server.thread_names import ENGINE, thread_named
from server.windows import Window, WindowSpan

logger = logging.getLogger(__name__)

# What an engine ends in, and NumPy around it, where it fails on a window.
_FAILURES = (EngineError, MemoryError)
_IDLE_WAIT_SECONDS = 1.0
_MOST_SKIPPED = 64
"""Streams that one run of the head takes over lost windows; its state takes memory."""
MAX_DROPS_HELD = 256
"""Drops of a lane that wait to be told while the engine is stuck; older ones are forgotten."""


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """How windows of different streams are joined.

    Attributes:
        max_batch: windows of one encoder call.
        max_wait_seconds: how long after it came a window may wait for others.
    """

    max_batch: int = 8
    max_wait_seconds: float = 0.005

    def __post_init__(self) -> None:
        if not 1 <= self.max_batch <= 256:
            raise ValueError(f"max_batch ({self.max_batch}) must be 1 to 256")
        if not 0 <= self.max_wait_seconds <= 1:
            raise ValueError(f"max_wait_seconds ({self.max_wait_seconds}) must be 0 to 1")


@dataclass(slots=True)
class _Entry:
    """A place in a lane: a window, a drop, or the mark that the source broke off."""

    sequence: int
    span: WindowSpan | None
    window: Window | None = None
    drop_reason: DropReason | None = None
    came_seconds: float = field(default_factory=time.monotonic)


@dataclass(slots=True, eq=False)
class Lane:
    """One stream's place at the batcher. Touched only through the batcher.

    Attributes:
        stream_id: the stream.
        next_sequence: what its next window gets.
        lossless: keep every window.
        priority: lanes with a higher one come first.
        memory: the head's state.
        failing: the engine failed on its newest window.
        turn: of equal lanes the lowest comes first.
    """

    stream_id: str
    next_sequence: int = 0
    lossless: bool = False
    priority: int = DEFAULT_PRIORITY
    memory: StreamMemory = field(default_factory=StreamMemory)
    entries: deque[_Entry] = field(default_factory=deque)
    open: bool = True
    failing: bool = False
    turn: int = 0


class ScoreSink(Protocol):
    """Where results go; called on the engine thread, in order for each stream."""

    def scored(self, lane: Lane, score: WindowScore) -> None:
        """A window was scored or dropped."""

    def broke_off(self, lane: Lane) -> None:
        """The lane's source broke off after all that came before."""

    def stage(self, name: str, seconds: float) -> None:
        """One stage of a batch took this long."""

    def batch(self, size: int) -> None:
        """A batch of this many windows was encoded."""


class Batcher:
    """Owns the detector and the thread that runs it."""

    def __init__(self, detector: Detector, settings: BatchSettings, sink: ScoreSink) -> None:
        self._detector = detector
        self._settings = settings
        self._sink = sink
        # Sets in order of entry, so that nothing here takes longer the more lanes there are.
        self._lanes: dict[Lane, None] = {}
        self._ready: dict[Lane, None] = {}  # with a window that waits
        self._changed: dict[Lane, None] = {}  # with something to tell, perhaps, before a window
        self._turns = itertools.count()
        self._wake = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Start the engine thread."""
        self._thread.start()

    def stop(self, timeout_seconds: float = 2.0) -> None:
        """Stop after the batch in work; what still waits is discarded."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout_seconds)

    def open_lane(self, stream_id: str, next_sequence: int, *, lossless: bool = False) -> Lane:
        """Make a place for a stream."""
        lane = Lane(stream_id, next_sequence, lossless)
        with self._wake:
            lane.turn = next(self._turns)
            self._lanes[lane] = None
        return lane

    def prioritise(self, lane: Lane, priority: int) -> None:
        """Have a stream's windows come earlier or later than others', from the next batch on."""
        with self._wake:
            lane.priority = priority

    def close_lane(self, lane: Lane) -> None:
        """Forget a stream; nothing of it is published once this returns, save a batch in work."""
        with self._wake:
            lane.open = False
            lane.entries.clear()
            for lanes in (self._lanes, self._ready, self._changed):
                lanes.pop(lane, None)
            self._wake.notify_all()

    def submit(self, lane: Lane, window: Window) -> None:
        """Hand over a stream's next window; never waits."""
        with self._wake:
            if not lane.lossless:
                _drop_waiting(lane)
            if lane.open:
                self._put(lane, _Entry(_take_sequence(lane), window.span, window=window))

    def report_drop(self, lane: Lane, span: WindowSpan, reason: DropReason) -> None:
        """A window of the stream was lost before it came here; it keeps its place and sequence."""
        with self._wake:
            if lane.open:
                self._put(lane, _Entry(_take_sequence(lane), span, drop_reason=reason))

    def pass_over(self, lane: Lane, count: int) -> None:
        """So many windows were lost of which nothing else is known; they had their sequences."""
        with self._wake:
            lane.next_sequence += count

    def break_off(self, lane: Lane) -> None:
        """The stream's source broke off: nothing is known until its next window."""
        with self._wake:
            if lane.open:
                self._put(lane, _Entry(lane.next_sequence, None))

    def _put(self, lane: Lane, entry: _Entry) -> None:
        lane.entries.append(entry)
        self._changed[lane] = None
        if entry.window is not None:
            self._ready[lane] = None
        while len(lane.entries) > MAX_DROPS_HELD:
            lane.entries.popleft()
        self._wake.notify_all()

    def _run(self) -> None:
        with thread_named(ENGINE):
            self._loop()

    def _loop(self) -> None:
        while True:
            work = self._collect()
            if work is None:
                return
            try:
                self._advance(work)
            except Exception:  # one stream's fault must not end the engine of all
                logger.exception("a batch was lost")

    def _collect(self) -> list[tuple[Lane, list[_Entry]]] | None:
        """Wait for work; take from the lanes whose turn it is everything up to their first window.

        One window a stream and batch keeps streams fair and their order; lanes
        that come first this time go last next time among those of their priority. What
        the others have lost meanwhile is told without waiting for their turn.
        """
        with self._wake:
            while not (self._stopping or self._ready or self._changed):
                self._wake.wait(_IDLE_WAIT_SECONDS)
            if not self._batch_is_full():
                self._wake.wait_for(self._batch_is_full, self._patience_seconds())
            if self._stopping:
                return None
            chosen = heapq.nsmallest(self._settings.max_batch, self._ready, key=_rank)
            others = [lane for lane in self._changed if lane not in chosen]
            taken = [(lane, _take_entries(lane, scored=False)) for lane in others]
            taken += [(lane, _take_entries(lane, scored=True)) for lane in chosen]
            self._changed = {lane: None for lane in chosen if lane.entries}
            for lane in chosen:
                lane.turn = next(self._turns)
                if not _has_window(lane):
                    del self._ready[lane]
            return [(lane, entries) for lane, entries in taken if entries]

    def _patience_seconds(self) -> float:
        """Until the first of the windows has waited for as long as it may: behind a run it did."""
        came = [
            entry.came_seconds for lane in self._ready for entry in lane.entries if entry.window
        ]
        left = min(came, default=0.0) + self._settings.max_wait_seconds - time.monotonic()
        return max(0.0, left)

    def _batch_is_full(self) -> bool:
        most = min(self._settings.max_batch, len(self._lanes))
        return self._stopping or len(self._ready) >= most

    def _advance(self, work: list[tuple[Lane, list[_Entry]]]) -> None:
        # What was lost comes before a window. Of each stream one at a time, as windows do too:
        # a server that loses many of many streams would else be busy with nothing but those.
        while lost := [(lane, left.pop(0)) for lane, left in work if left and not left[0].window]:
            self._advance_over(lost)
        batch = [(lane, left[0]) for lane, left in work if left]
        if batch:
            self._score(batch)

    def _advance_over(self, lost: list[tuple[Lane, _Entry]]) -> None:
        for lane, entry in lost:
            if entry.span is None or entry.span.number == 0:
                lane.memory.reset()
        passed = [(lane, entry) for lane, entry in lost if entry.span is not None]
        self._skip([lane.memory for lane, _ in passed])
        for lane, entry in lost:
            if entry.span is not None:
                self._publish(lane, entry, None)
            elif lane.open:
                self._sink.broke_off(lane)

    def _skip(self, memories: list[StreamMemory]) -> None:
        for first in range(0, len(memories), _MOST_SKIPPED):
            some = memories[first : first + _MOST_SKIPPED]
            try:
                skip_windows(self._detector, some)
            except _FAILURES:
                self._skip_one_by_one(some)

    def _skip_one_by_one(self, memories: list[StreamMemory]) -> None:
        for memory in memories:
            try:
                skip_windows(self._detector, [memory])
            except _FAILURES:
                memory.reset()

    def _score(self, batch: list[tuple[Lane, _Entry]]) -> None:
        windows = [entry.window for _, entry in batch if entry.window is not None]
        started = time.monotonic()
        for window in windows:
            self._sink.stage("queue", started - window.arrival_seconds)
        for lane, entry in batch:
            if entry.span is not None and entry.span.number == 0:
                lane.memory.reset()
        try:
            features = self._detector.encode(np.stack([window.images for window in windows]))
            encoded = time.monotonic()
            verdicts = score_features(self._detector, features, [lane.memory for lane, _ in batch])
        except _FAILURES as error:
            self._fail(batch, error)
            return
        stepped = time.monotonic()
        for (lane, entry), verdict in zip(batch, verdicts, strict=True):
            lane.failing = False
            self._publish(lane, entry, verdict)
        self._sink.batch(len(batch))
        self._sink.stage("encode", encoded - started)
        self._sink.stage("head", stepped - encoded)
        self._sink.stage("publish", time.monotonic() - stepped)

    def _fail(self, batch: list[tuple[Lane, _Entry]], error: EngineError | MemoryError) -> None:
        """Drop the window that failed; of several, find out which: the others get scores."""
        if len(batch) > 1:
            for one in batch:
                self._score([one])
            return
        [(lane, entry)] = batch
        if not lane.failing:
            reason = str(error) or "out of memory"
            logger.error("engine failed on a window: %s", reason, extra=about(lane.stream_id))
        lane.failing = True
        entry.drop_reason = DropReason.ENGINE
        self._advance_over([(lane, entry)])

    def _publish(self, lane: Lane, entry: _Entry, verdict: Verdict | None) -> None:
        if not lane.open or entry.span is None:
            return
        latency_seconds = max(0.0, time.monotonic() - entry.span.arrival_seconds)
        self._sink.scored(
            lane,
            WindowScore(
                lane.stream_id,
                entry.sequence,
                entry.span,
                None if verdict is None else verdict.score,
                entry.drop_reason,
                latency_seconds,
                () if verdict is None else verdict.explanation,
            ),
        )


def _take_sequence(lane: Lane) -> int:
    sequence = lane.next_sequence
    lane.next_sequence += 1
    return sequence


def _rank(lane: Lane) -> tuple[bool, int, int]:
    """Files after all cameras: they take what is left; equals in turn."""
    return lane.lossless, -lane.priority, lane.turn


def _has_window(lane: Lane) -> bool:
    return any(entry.window is not None for entry in lane.entries)


def _take_entries(lane: Lane, *, scored: bool) -> list[_Entry]:
    """What comes before a lane's first window, and that one too where it is to be scored."""
    taken: list[_Entry] = []
    while lane.entries:
        if lane.entries[0].window is not None and not scored:
            break
        taken.append(lane.entries.popleft())
        if taken[-1].window is not None:
            break
    return taken


def _drop_waiting(lane: Lane) -> None:
    for entry in lane.entries:
        if entry.window is not None:
            entry.window, entry.drop_reason = None, DropReason.OVERLOAD
