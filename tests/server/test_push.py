"""One push session on its own: when it waits, what it drops, when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from server.ingest.events import StatusChanged
from server.push import BYTES_UNDER_WAY, FRAMES_UNDER_WAY, PushCalls, PushLimits, PushSession
from server.pushed import Codec, PushedFrame, PushFormat
from server.streams import Reason, StreamState
from server.views import CapacityError, LimitError, LostError
from tests.support.backend import a_score

KEY, DELTA = b"\0\0\1\x65key", b"\0\0\1\x41delta"
JPEG = b"\xff\xd8"


class Worker:
    """Stands where the decode worker does: takes frames, gives room back when told."""

    def __init__(self, push: PushFormat, limits: PushLimits | None = None) -> None:
        self.fed: list[PushedFrame | None] = []
        self.acknowledged = 0
        self.session = PushSession(
            "door", push, limits or PushLimits(), 5, self.fed.append, self._acknowledge
        )

    def _acknowledge(self) -> None:
        self.acknowledged += 1

    async def take(self, count: int = 1) -> None:
        for _ in range(count):
            self.session.took(damaged=False)
        await asyncio.sleep(0)

    @property
    def data(self) -> list[bytes]:
        return [frame.data for frame in self.fed if frame is not None]


def frame(index: int, data: bytes = JPEG) -> PushedFrame:
    return PushedFrame(data, index * 40_000, 0.0)


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(work())


def test_a_lossless_session_waits_for_room() -> None:
    async def work() -> None:
        worker = Worker(PushFormat(Codec.JPEG))
        for index in range(FRAMES_UNDER_WAY):
            await worker.session.send(frame(index))
        waiting = asyncio.create_task(worker.session.send(frame(99)))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        assert len(worker.fed) == FRAMES_UNDER_WAY
        await worker.take()
        await asyncio.wait_for(waiting, 1)
        assert len(worker.fed) == FRAMES_UNDER_WAY + 1

    run(work)


def test_large_frames_fill_the_room_sooner() -> None:
    async def work() -> None:
        push = PushFormat(Codec.GRAY8, 2048, 1024)
        worker = Worker(push)
        frames = BYTES_UNDER_WAY // push.frame_bytes
        for index in range(frames):
            await worker.session.send(frame(index, bytes(push.frame_bytes)))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(worker.session.send(frame(9, bytes(push.frame_bytes))), 0.01)

    run(work)


def test_a_live_session_keeps_the_newest_picture() -> None:
    async def work() -> None:
        worker = Worker(PushFormat(Codec.JPEG, lossless=False))
        for index in range(FRAMES_UNDER_WAY + 5):
            await worker.session.send(frame(index, JPEG + bytes([index])))
        assert len(worker.fed) == FRAMES_UNDER_WAY
        assert worker.session.counts.dropped == 4
        await worker.take()
        assert worker.data[-1] == JPEG + bytes([FRAMES_UNDER_WAY + 4])
        assert worker.session.counts.dropped == 4

    run(work)


def test_the_newest_picture_is_not_lost_at_the_end() -> None:
    async def work() -> None:
        worker = Worker(PushFormat(Codec.JPEG, lossless=False))
        for index in range(FRAMES_UNDER_WAY + 1):
            await worker.session.send(frame(index, JPEG + bytes([index])))
        await worker.session.finish()
        assert worker.data[-1] == JPEG + bytes([FRAMES_UNDER_WAY])
        assert worker.fed[-1] is None

    run(work)


def test_a_live_session_that_dropped_goes_on_with_a_key_frame() -> None:
    async def work() -> None:
        worker = Worker(PushFormat(Codec.H264, lossless=False))
        await worker.session.send(frame(0, KEY))
        for index in range(1, FRAMES_UNDER_WAY + 3):
            await worker.session.send(frame(index, DELTA))
        assert worker.session.counts.dropped == 3
        await worker.take(FRAMES_UNDER_WAY)
        await worker.session.send(frame(20, DELTA))
        assert worker.session.counts.dropped == 4
        await worker.session.send(frame(21, KEY))
        await worker.session.send(frame(22, DELTA))
        assert worker.data[-2:] == [KEY, DELTA]
        assert worker.session.counts.dropped == 4

    run(work)


@pytest.mark.parametrize("lossless", [True, False])
def test_only_a_lossless_session_acknowledges(lossless: bool) -> None:
    async def work() -> None:
        worker = Worker(PushFormat(Codec.JPEG, lossless=lossless))
        worker.session.sent()
        assert worker.acknowledged == lossless

    run(work)


def status(state: StreamState, reason: Reason) -> StatusChanged:
    return StatusChanged("door", state, reason, "a sentence")


def test_a_session_ends_with_its_last_score_whichever_comes_first() -> None:
    async def work() -> None:
        for ends_early in (True, False):
            session = Worker(PushFormat(Codec.JPEG)).session
            if ends_early:
                session.conclude(status(StreamState.ENDED, Reason.END_OF_STREAM), 7)
            for sequence in (3, 4, 5, 6):  # 3 and 4 are of the push before
                session.offer(a_score("door", sequence))
            if not ends_early:
                session.conclude(status(StreamState.ENDED, Reason.END_OF_STREAM), 7)
            got = [score.sequence async for _, score in session.scores]
            assert got == [5, 6]
            assert session.failure is None

    run(work)


def test_a_session_without_a_window_ends_at_once() -> None:
    async def work() -> None:
        session = Worker(PushFormat(Codec.JPEG)).session
        session.conclude(status(StreamState.ENDED, Reason.END_OF_STREAM), 5)
        assert [score async for score in session.scores] == []

    run(work)


def test_the_first_failure_counts_and_scores_before_it_are_told() -> None:
    async def work() -> None:
        session = Worker(PushFormat(Codec.JPEG)).session
        session.offer(a_score("door", 5))
        session.conclude(status(StreamState.BACKING_OFF, Reason.WORKER_LOST), 6)
        session.fail(LimitError("later"))
        assert [score.sequence async for _, score in session.scores] == [5]
        assert isinstance(session.failure, LostError)

    run(work)


def test_frames_a_second_are_counted_by_their_own_times_in_any_order() -> None:
    async def work() -> None:
        limits = PushLimits(max_frames_per_second=25)
        worker = Worker(PushFormat(Codec.JPEG, lossless=False), limits)
        order = [0, 4, 2, 1, 3]  # as B-frames come
        for group in range(40):
            for place in order:
                await worker.session.send(frame(group * 5 + place))
        for _ in range(24):
            await worker.session.send(frame(1000))
        with pytest.raises(LimitError, match="over 25 frames within one second"):
            await send_twice(worker.session, frame(1000))

    run(work)


async def send_twice(session: PushSession, one: PushedFrame) -> None:
    await session.send(one)
    await session.send(one)


def test_each_client_has_its_own_places() -> None:
    calls = PushCalls(PushLimits(max_calls_per_client=1))
    with (
        calls.admitted("ipv4:10.0.0.1"),
        calls.admitted("ipv4:10.0.0.2"),
        pytest.raises(CapacityError, match="1 open calls"),
        calls.admitted("ipv4:10.0.0.1"),
    ):
        raise AssertionError("a second call got in")
    with calls.admitted("ipv4:10.0.0.1"):
        pass
