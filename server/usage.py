"""What streams, engine and server took lately, from counts that come in; pure but for locking.

Newer seconds weigh more: what is `MEMORY_SECONDS` old counts about a third.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from server.capacity import Load, StreamCost
from server.engine.pace import Pace

MEMORY_SECONDS = 30.0

SETTLE_SECONDS = 4.0
"""A stream counts as measured once it was watched for so long."""

START_SECONDS = 10.0
"""A process that starts, its imports above all, takes for so long what it never takes again."""

LONGEST_SILENCE_SECONDS = 60.0
"""A stream that told nothing for longer was away; that time is none of its rate."""


@dataclass(slots=True)
class Rate:
    """Amounts a second, of several kinds; old ones fade."""

    amounts: list[float]
    seconds: float = 0.0

    def add(self, seconds: float, *amounts: float) -> None:
        """So much came in so many seconds."""
        fade = math.exp(-seconds / MEMORY_SECONDS)
        self.seconds = self.seconds * fade + seconds
        self.amounts = [old * fade + new for old, new in zip(self.amounts, amounts, strict=True)]

    def per_second(self) -> list[float]:
        """Of each kind; zeros before anything came."""
        return [amount / self.seconds if self.seconds else 0.0 for amount in self.amounts]


@dataclass(slots=True)
class _Stream:
    """Of one stream: processor seconds of its thread, windows, and those for the engine."""

    rate: Rate = field(default_factory=lambda: Rate([0.0, 0.0, 0.0]))
    told_at_seconds: float | None = None
    windows: int = 0
    for_engine: int = 0


class Account(NamedTuple):
    """What is known of one stream.

    Attributes:
        cost: what it takes; None where it was not watched for long enough.
        share: part of its windows that lately went to the engine; None before it had any.
    """

    cost: StreamCost | None
    share: float | None


NOTHING_KNOWN = Account(None, None)


def _account(seconds: float, amounts: Sequence[float], window: Load) -> Account:
    cpu_seconds, windows, for_engine = amounts
    share = for_engine / windows if windows else None
    if seconds < SETTLE_SECONDS:
        return Account(None, share)
    return Account(StreamCost(cpu_seconds / seconds, window.times(windows / seconds)), share)


class Usage:
    """What was told by decode workers and engine, and what that makes of costs. Thread-safe.

    Args:
        pace: prices the engine's runs.
    """

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._lock = threading.Lock()
        self._streams: dict[str, _Stream] = {}
        # Since the last look: seconds of stream threads, of the engine, windows in all and live.
        self._thread_seconds = self._engine_core_seconds = 0.0
        self._windows = self._live_windows = 0
        self._runs = Rate([0.0, 0.0, 0.0])  # windows, core seconds, engine seconds
        self._engine = Rate([0.0, 0.0])  # core seconds at its price, and of its whole process
        self._rest = Rate([0.0])
        self._looked_at_seconds: float | None = None
        self._used_of: dict[int, float] = {}
        self._steady_from_seconds = -math.inf

    def interrupted(self, stream_id: str) -> None:
        """The stream's source broke off: what it does until it flows again is no rate of it."""
        with self._lock:
            stream = self._streams.get(stream_id)
            if stream is not None:
                stream.told_at_seconds = None

    def closed(self, stream_id: str, windows: int, for_engine: int, *, live: bool) -> None:
        """A stream closed so many windows, of which so many are for the engine."""
        with self._lock:
            self._windows += windows
            self._live_windows += windows if live else 0
            stream = self._streams.setdefault(stream_id, _Stream())
            stream.windows += windows
            stream.for_engine += for_engine

    def told(self, stream_id: str, now_seconds: float, cpu_seconds: float) -> None:
        """A stream's thread took so much since it last told."""
        with self._lock:
            self._thread_seconds += cpu_seconds
            stream = self._streams.setdefault(stream_id, _Stream())
            last = stream.told_at_seconds
            stream.told_at_seconds = now_seconds
            # The first account after a start holds the opening of the source.
            if last is not None and 0 < now_seconds - last <= LONGEST_SILENCE_SECONDS:
                stream.rate.add(now_seconds - last, cpu_seconds, stream.windows, stream.for_engine)
            stream.windows = stream.for_engine = 0

    def ran(self, windows: int) -> None:
        """The engine encoded so many windows in one run."""
        cost = self._pace.run(windows)
        with self._lock:
            self._engine_core_seconds += cost.core_seconds
            # By windows and not by time: a price holds however rare windows are.
            self._runs.add(0.1 * windows, windows, cost.core_seconds, cost.seconds)

    def looked(self, now_seconds: float, used_of: Mapping[int, float], engine_pid: int) -> None:
        """Look at the server's processes.

        Args:
            now_seconds: monotonic clock.
            used_of: processor seconds of each so far, by process id.
            engine_pid: the one that the engine runs in.
        """
        with self._lock:
            if used_of.keys() != self._used_of.keys():
                self._steady_from_seconds = now_seconds + START_SECONDS
            new = {pid: now - self._used_of.get(pid, now) for pid, now in used_of.items()}
            self._used_of = dict(used_of)
            last, self._looked_at_seconds = self._looked_at_seconds, now_seconds
            priced, whole = self._engine_core_seconds, new.get(engine_pid, 0.0)
            if last is not None and now_seconds > last:
                self._engine.add(now_seconds - last, priced, whole)
            rest = sum(new.values()) - self._thread_seconds - priced * self._discount()
            # Files that are read at full speed move many windows; a camera need not pay for those.
            share = self._live_windows / self._windows if self._windows else 1.0
            self._thread_seconds = self._engine_core_seconds = 0.0
            self._windows = self._live_windows = 0
            if last is not None and last >= self._steady_from_seconds:
                self._rest.add(now_seconds - last, rest * share)

    def forget(self, stream_id: str) -> None:
        """The stream is gone."""
        with self._lock:
            self._streams.pop(stream_id, None)

    def rest(self) -> Load:
        """What the server takes beyond the threads of its streams and its engine."""
        with self._lock:
            # Accounts come a little late, so that single seconds may go below zero.
            return Load(max(0.0, self._rest.per_second()[0]))

    def accounts(self) -> dict[str, Account]:
        """What is known of every stream."""
        with self._lock:  # for as long as it takes to copy: decode workers' threads wait for it
            rates = [
                (name, one.rate.seconds, one.rate.amounts) for name, one in self._streams.items()
            ]
            window = self._window()
        return {name: _account(seconds, amounts, window) for name, seconds, amounts in rates}

    def window(self) -> Load:
        """Price of a window in runs as they are lately; alone before the first."""
        with self._lock:
            return self._window()

    def _window(self) -> Load:
        windows, core_seconds, seconds = self._runs.amounts
        if not windows:
            return Load(self._pace.alone.core_seconds, self._pace.alone.seconds)
        return Load(core_seconds / windows * self._discount(), seconds / windows)

    def _discount(self) -> float:
        """What a price that was found too high on a busy machine is lowered by.

        The engine cannot take more than its whole process does. A price that was too low
        needs nothing of the kind: what is missing shows in the rest.
        """
        priced, whole = self._engine.amounts
        return min(1.0, whole / priced) if priced and self._engine.seconds > SETTLE_SECONDS else 1.0
