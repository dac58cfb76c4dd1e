"""What waits to be sent: bounded, in order, the newest window wins."""

from __future__ import annotations

import threading

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from server.ingest.events import IngestEvent, StatusChanged, WindowReady, WindowsSkipped
from server.ingest.outbox import LOSSLESS_CREDITS, MAX_PENDING, MAX_SKIPPED_TOLD, Outbox
from server.scoring import DropReason
from server.streams import StreamState
from server.windows import Window

IMAGES = np.zeros((1, 8, 8, 3), np.uint8)


def _window(number: int) -> Window:
    first, end = 16 * number, 16 * number + 16
    return Window(number, IMAGES, first, end, first / 25, end / 25, first / 25, end / 25, end / 25)


def _outbox() -> Outbox:
    return Outbox("a", lambda: None)


def _status(message: str) -> StatusChanged:
    return StatusChanged("a", StreamState.RUNNING, None, message)


def _drained(outbox: Outbox) -> list[IngestEvent]:
    return list(iter(outbox.pop, None))


def _numbers(events: list[IngestEvent]) -> list[int]:
    numbers = []
    for event in events:
        if isinstance(event, WindowReady):
            numbers.append(event.window.number)
        elif isinstance(event, WindowsSkipped):
            assert event.count == len(event.windows)
            numbers += [skipped.span.number for skipped in event.windows]
    return numbers


def _reasons(events: list[IngestEvent]) -> dict[int, DropReason]:
    return {
        skipped.span.number: skipped.reason
        for event in events
        if isinstance(event, WindowsSkipped)
        for skipped in event.windows
    }


@given(st.lists(st.sampled_from(["offer", "thinned", "still", "status", "pop"]), max_size=150))
def test_every_window_is_told_once_in_order_with_its_reason(steps: list[str]) -> None:
    outbox, told, offered = _outbox(), [], 0
    left_out: dict[int, DropReason] = {}
    for step in steps:
        if step == "offer":
            outbox.offer(_window(offered))
            offered += 1
        elif step in ("thinned", "still"):
            left_out[offered] = DropReason(step)
            outbox.skip(_window(offered).span, left_out[offered])
            offered += 1
        elif step == "status":
            outbox.put(_status(""))
        elif (event := outbox.pop()) is not None:
            told.append(event)
    waiting = _drained(outbox)
    assert _numbers(told + waiting) == list(range(offered))
    reasons = _reasons(told + waiting)
    assert {number: reasons[number] for number in left_out} == left_out
    assert {reasons[n] for n in reasons.keys() - left_out.keys()} <= {DropReason.BACKLOG}
    assert sum(isinstance(event, WindowReady) for event in waiting) <= 1
    assert len(waiting) <= MAX_PENDING + 1


def test_a_window_keeps_its_place_among_changes_of_state() -> None:
    outbox = _outbox()
    outbox.offer(_window(0))
    outbox.put(_status("gap"))
    outbox.offer(_window(1))
    skipped, change, ready = _drained(outbox)
    assert isinstance(skipped, WindowsSkipped)
    assert skipped.windows[0].span.end_frame == 16
    assert isinstance(change, StatusChanged)
    assert isinstance(ready, WindowReady)


def test_a_parent_that_never_reads_costs_no_memory() -> None:
    outbox = _outbox()
    for number in range(MAX_SKIPPED_TOLD + 100):
        outbox.offer(_window(number))
        outbox.put(_status(str(number)))
    events = _drained(outbox)
    assert len(events) <= MAX_PENDING + 1
    skips = [event for event in events if isinstance(event, WindowsSkipped)]
    assert sum(event.count for event in skips) == MAX_SKIPPED_TOLD + 99
    assert sum(len(event.windows) for event in skips) <= MAX_SKIPPED_TOLD + MAX_PENDING
    assert isinstance(events[-1], StatusChanged)
    assert events[-1].message == str(MAX_SKIPPED_TOLD + 99)


def test_a_lossless_stream_waits_for_what_was_acknowledged() -> None:
    outbox, delivered = _outbox(), threading.Semaphore(0)

    def play() -> None:
        for number in range(LOSSLESS_CREDITS + 1):
            outbox.deliver(_window(number), lambda: True)
            delivered.release()

    player = threading.Thread(target=play)
    player.start()
    for _ in range(LOSSLESS_CREDITS):
        assert delivered.acquire(timeout=5)
    assert not delivered.acquire(timeout=0.1)
    outbox.acknowledge()
    assert delivered.acquire(timeout=5)
    player.join(5)
    assert _numbers(_drained(outbox)) == list(range(LOSSLESS_CREDITS + 1))


def test_a_lossless_stream_that_is_stopped_waits_no_longer() -> None:
    outbox = _outbox()
    for number in range(LOSSLESS_CREDITS + 1):
        outbox.deliver(_window(number), lambda: False)
    assert _numbers(_drained(outbox)) == list(range(LOSSLESS_CREDITS))
