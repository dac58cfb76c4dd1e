"""Many cameras on one thread: each shows its frames at its own absolute times.

Only cameras with readers are on the timetable, and frames that are due within
the same tick go out in one go: waking up costs as much as sending. A camera that
was late is late once; it never shifts those after.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from dataclasses import dataclass, field
from typing import Protocol

from server.bench.rtp import RtpStream

TICK_SECONDS = 0.01
"""Real cameras' frames come as unevenly."""

_BIN_SECONDS = 0.0001
_BINS = 50_000


class Reader(Protocol):
    """Whoever watches a camera."""

    def offer(self, frame: bytes | bytearray, *, is_key: bool) -> None:
        """Take a frame's packets, or leave them."""


class Lateness:
    """How much after they were due frames were sent, in bins of 0.1 ms up to five seconds."""

    def __init__(self) -> None:
        self._counts = [0] * _BINS

    def add(self, seconds: float) -> None:
        """Count a frame."""
        self._counts[min(max(0, int(seconds / _BIN_SECONDS)), _BINS - 1)] += 1

    def take_quantile_seconds(self, quantile: float) -> float:
        """The upper end of that quantile's bin; 0 without any frame. Counting begins anew."""
        counts, self._counts = self._counts, [0] * _BINS
        left = math.ceil(quantile * sum(counts))
        for number, count in enumerate(counts if left else []):
            left -= count
            if left <= 0:
                return (number + 1) * _BIN_SECONDS
        return 0.0


@dataclass(slots=True, eq=False)
class Camera:
    """A camera, whether anybody watches or not.

    Attributes:
        stream: what it sends.
        start_seconds: when its frame 0 was due, on the loop's clock; may lie in the past.
        readers: who watches.
        is_scheduled: whether it is on the timetable.
    """

    stream: RtpStream
    start_seconds: float
    readers: set[Reader] = field(default_factory=set)
    is_scheduled: bool = False

    def due_seconds(self, number: int) -> float:
        """When a frame is to be sent, on the loop's clock."""
        return self.start_seconds + number / self.stream.fps

    def next_number(self, now_seconds: float) -> int:
        """The first frame that is due after that time."""
        return math.floor((now_seconds - self.start_seconds) * self.stream.fps) + 1

    def send(self, number: int, utc_seconds: float) -> None:
        """Offer a frame to all readers alike; it was taken at that time."""
        packets: bytes | bytearray = self.stream.packets(number)
        is_key = self.stream.is_key(number)
        if is_key:
            # Whoever begins here knows from its first frame on when frames are taken.
            packets = self.stream.sender_report(number, utc_seconds) + packets
        for reader in self.readers:
            reader.offer(packets, is_key=is_key)


_Entry = tuple[float, int, int, Camera]


class Pacer:
    """The timetable of all cameras.

    Args:
        loop: on whose thread everything happens.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due: list[_Entry] = []
        self._timer: asyncio.TimerHandle | None = None
        self.lateness = Lateness()

    def join(self, camera: Camera, reader: Reader) -> int:
        """Let somebody watch, from the next key frame on.

        Returns:
            The number of that key frame.
        """
        number = camera.next_number(self._loop.time())
        camera.readers.add(reader)
        if not camera.is_scheduled:
            camera.is_scheduled = True
            heapq.heappush(self._due, _entry(camera, number))
            self._set_timer()
        return camera.stream.next_key(number)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._due:
            tick = math.ceil(self._due[0][0] / TICK_SECONDS)
            self._timer = self._loop.call_at(tick * TICK_SECONDS, self._send_due)

    def _send_due(self) -> None:
        due, now_seconds, utc_seconds = self._due, self._loop.time(), time.time()
        while due and due[0][0] <= now_seconds:
            due_seconds, _, number, camera = due[0]
            if camera.readers:
                late_seconds = now_seconds - due_seconds
                camera.send(number, utc_seconds - late_seconds)
                self.lateness.add(late_seconds)
                heapq.heapreplace(due, _entry(camera, number + 1))
            else:
                camera.is_scheduled = False
                heapq.heappop(due)
        self._set_timer()


def _entry(camera: Camera, number: int) -> _Entry:
    # The id settles ties, so that cameras themselves are never compared.
    return camera.due_seconds(number), id(camera), number, camera
