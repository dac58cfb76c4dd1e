"""Messages between two processes' ends, with pictures in them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from server.ingest.channel import Channel
from server.ingest.events import WindowReady
from server.ingest.messages import Envelope, Heartbeat
from server.windows import Window


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = socket.socketpair()
    pair = Channel(ours.detach()), Channel(theirs.detach())
    yield pair
    for end in pair:
        end.close()


def a_window(number: int, images: np.ndarray) -> Window:
    return Window(number, images, 0, 16, 0.0, 1.5, 100.0, 101.5, 7.0)


def test_windows_and_beats_arrive_in_order_and_whole(ends: tuple[Channel, Channel]) -> None:
    sender, receiver = ends
    dice = np.random.default_rng(0)
    sent = [
        Envelope(1, WindowReady("cam", a_window(n, dice.integers(0, 256, (16, 112, 112, 3), "u1"))))
        for n in range(20)
    ]
    with ThreadPoolExecutor(1) as pool:
        # Larger than any socket's buffer: it goes in parts, while the other side reads.
        done = pool.submit(lambda: [(sender.send(one), sender.send(Heartbeat())) for one in sent])
        for one in sent:
            got = receiver.receive()
            assert got.event.window.number == one.event.window.number
            np.testing.assert_array_equal(got.event.window.images, one.event.window.images)
            assert receiver.receive() == Heartbeat()
        done.result()


@given(
    st.lists(
        arrays(st.sampled_from(["u1", "f4"]), array_shapes(min_side=0, max_dims=3)), max_size=5
    ),
    st.text(),
)
def test_any_arrays_come_back_as_they_were(given: list[np.ndarray], text: str) -> None:
    ours, theirs = socket.socketpair()
    sender, receiver = Channel(ours.detach()), Channel(theirs.detach())
    try:
        sender.send((text, given))
        told, got = receiver.receive()
    finally:
        sender.close()
        receiver.close()
    assert told == text
    for one, other in zip(given, got, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def test_arrays_that_lie_scattered_in_memory_arrive_whole(ends: tuple[Channel, Channel]) -> None:
    sender, receiver = ends
    picture = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    sender.send(picture[::2, ::-1])
    np.testing.assert_array_equal(receiver.receive(), picture[::2, ::-1])


def test_what_arrives_may_be_changed(ends: tuple[Channel, Channel]) -> None:
    sender, receiver = ends
    sender.send(np.zeros(4, np.uint8))
    received = receiver.receive()
    received[:] = 1
    assert received.sum() == 4


def test_a_peer_that_hangs_up_between_messages_or_within_one_is_told() -> None:
    for left_over in (b"", b"\x10"):
        ours, theirs = socket.socketpair()
        with theirs:
            theirs.send(left_over)
        receiver = Channel(ours.detach())
        with pytest.raises(EOFError):
            receiver.receive()
        with pytest.raises(OSError, match="Broken pipe"):
            receiver.send(np.zeros(1_000_000, np.uint8))
        receiver.close()


def test_what_is_no_message_of_ours_is_refused() -> None:
    ours, theirs = socket.socketpair()
    receiver = Channel(ours.detach())
    with theirs:
        theirs.send(b"\xff" * 64)
        with pytest.raises(OSError, match="a message with 65535 buffers; expected at most 64"):
            receiver.receive()
    receiver.close()
