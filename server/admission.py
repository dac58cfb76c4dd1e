"""Whether another stream is taken, and which ones are thinned: measurement, law and deed.

`server.capacity` decides; here its figures come together from the registry and from what
was measured, every two seconds and whenever a client asks.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from server.capacity import Capacity, Load, Member, StreamCost
from server.cores import cpu_seconds_of
from server.engine.pace import DECODE_CORES, Pace, WindowCost
from server.ingest.events import FrameStats, WindowsSkipped
from server.record import StreamRecord
from server.registry import Registry
from server.sampling import EveryNth, EveryWindow, OnMotion, Sampling
from server.scoring import DropReason
from server.streams import StreamConfig
from server.telemetry import Telemetry
from server.usage import NOTHING_KNOWN, Account, Usage
from server.views import CapacityError

LOOK_SECONDS = 2.0

MOTION_SHARE = 0.5
"""Part of its windows that a stream sampled on motion is taken to need until it was seen so."""

LARGE_CORES = 0.25
"""What a large camera takes besides encoding: 25 frames a second of 1920x1080."""

PATIENCE_SECONDS = 8.0
"""For so long newcomers wait once for the first measurement; a client waits ten seconds."""

_BY_SAMPLING = frozenset({DropReason.THINNED, DropReason.STILL})

_POLL_SECONDS = 0.1
_LATELY_SECONDS = 0.5
_SOON_SECONDS = 0.5

logger = logging.getLogger(__name__)

_NO_COST = WindowCost(0.0, 0.0)

Thin = Callable[[str, bool], None]
"""Thins a stream, or gives it all its windows back."""


@dataclass(frozen=True, slots=True)
class CapacityRules:
    """What the streams may take.

    Attributes:
        cores: that the server may use; over 0.
        share: of them, and of the engine's time, that all streams together may take.
        enforced: whether a stream beyond that is refused.
        pace: of the engine.
        windows_per_second: of a camera, where the bundle says; a guess before any is measured.
    """

    cores: float = math.inf
    share: float = 1.0
    enforced: bool = False
    pace: Pace = field(default_factory=lambda: Pace(None, _NO_COST, _NO_COST, 1))
    windows_per_second: float = 1.0

    @property
    def budget(self) -> Load:
        """Of all streams together; the engine is one."""
        return Load(self.cores * self.share, self.share)


class Admission:
    """Keeps the account of all streams.

    Args:
        registry: of the streams.
        rules: what they may take.
        telemetry: where the account is shown.
        worker_pids: process ids of the decode workers that live now.
        thin: does what is decided.
    """

    def __init__(
        self,
        registry: Registry,
        rules: CapacityRules,
        telemetry: Telemetry,
        worker_pids: Callable[[], Sequence[int]],
        thin: Thin,
    ) -> None:
        self._registry, self._rules = registry, rules
        self._telemetry = telemetry
        self._worker_pids, self._thin = worker_pids, thin
        self._usage = Usage(rules.pace)
        self._overloaded = False
        self._remembered: StreamCost | None = None
        # Many may come at once: what one comes into is not added up anew for each.
        self._account: Capacity | None = None
        self._account_until_seconds = 0.0
        self._settling: asyncio.TimerHandle | None = None
        self._patient_until_seconds: float | None = None
        self._watching: asyncio.Task[None] | None = None
        telemetry.engine_pace(rules.pace)

    # Told from any thread

    def told(self, stats: FrameStats) -> None:
        """A decode worker gave account of a stream."""
        self._usage.told(stats.stream_id, time.monotonic(), stats.cpu_seconds)

    def closed(self, stream: StreamRecord, windows: int, for_engine: int) -> None:
        """A stream closed so many windows, of which so many are for the engine."""
        live = not stream.lane.lossless
        self._usage.closed(stream.config.stream_id, windows, for_engine, live=live)

    def skipped(self, stream: StreamRecord, event: WindowsSkipped) -> None:
        """A stream closed windows that do not come to the engine, by its sampling or by delay."""
        by_sampling = sum(one.reason in _BY_SAMPLING for one in event.windows)
        self.closed(stream, event.count, event.count - by_sampling)

    def interrupted(self, stream_id: str) -> None:
        """A stream's source broke off."""
        self._usage.interrupted(stream_id)

    def ran(self, windows: int) -> None:
        """The engine encoded so many windows in one run."""
        self._usage.ran(windows)

    def forget(self, stream_id: str) -> None:
        """A stream is gone."""
        self._usage.forget(stream_id)
        self._account = None

    # Asked in the event loop

    def start(self) -> None:
        """Look every two seconds from now on."""
        self._watching = asyncio.create_task(self._watch())

    def stop(self) -> None:
        """Look no more; works from every state."""
        for running in (self._watching, self._settling):
            if running is not None:
                running.cancel()

    async def _watch(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(LOOK_SECONDS)

    def look(self) -> None:
        """Measure, show the account, and thin or restore where that is due."""
        used = {pid: cpu_seconds_of(pid) for pid in [os.getpid(), *self._worker_pids()]}
        known = {pid: seconds for pid, seconds in used.items() if seconds is not None}
        self._usage.looked(time.monotonic(), known, os.getpid())
        capacity = self.settle()
        if capacity.measured:  # it stands for the next ones, should all of these go
            self._remembered = capacity.expected
        self._telemetry.capacity(capacity.summary())
        for member in capacity.members:
            if member.cost is not None:
                cores = member.cost.at(member.share).cores
                self._telemetry.stream_cores(member.stream_id, cores)

    def settle_soon(self) -> None:
        """Thin what must be, once for all newcomers of a moment."""
        if self._settling is None:
            loop = asyncio.get_running_loop()
            self._settling = loop.call_later(_SOON_SECONDS, self._settle_now)

    def _settle_now(self) -> None:
        self._settling = None
        self.settle()

    def settle(self) -> Capacity:
        """Thin or restore what the account of this moment asks for; returns it after that."""
        capacity = self.capacity()
        adjustments = capacity.adjustments()
        for change in adjustments:
            self._thin(change.stream_id, change.thinned)
        if adjustments:
            capacity = self.capacity()
        self._tell_overload(capacity)
        return capacity

    def _tell_overload(self, capacity: Capacity) -> None:
        if capacity.overloaded and not self._overloaded:
            logger.warning(
                "streams take more than there is (%s), and no more of them may be thinned: "
                "latency will grow; delete a stream, lower a camera's rate or size, or let one "
                "be thinned",
                _in_use(capacity),
            )
        elif self._overloaded and not capacity.overloaded:
            logger.info("streams fit again (%s)", _in_use(capacity))
        self._overloaded = capacity.overloaded

    @asynccontextmanager
    async def entering(self, turn: asyncio.Lock, *, at_once: bool) -> AsyncIterator[None]:
        """Hold the turn, for a newcomer.

        A server that never measured a stream takes as many at once as it would hold of large
        cameras; the next ones wait until the first are measured, some seconds, and not in
        others' turn.

        Args:
            turn: of whoever changes the streams.
            at_once: not this one waits; it takes no place, or has it.
        """
        while True:
            async with turn:
                if at_once or not self._must_wait():
                    yield
                    return
            await asyncio.sleep(_POLL_SECONDS)

    def _must_wait(self) -> bool:
        capacity = self._lately()
        if not capacity.enforced or capacity.known or capacity.room_for_any(LARGE_CORES):
            return False
        now_seconds = time.monotonic()
        if self._patient_until_seconds is None:
            self._patient_until_seconds = now_seconds + PATIENCE_SECONDS
        return now_seconds < self._patient_until_seconds

    def check(self, config: StreamConfig, *, lossless: bool) -> bool:
        """Refuse a stream that there is no place or no capacity for.

        Args:
            config: of the stream.
            lossless: it waits for what others leave, and is not counted.

        Returns:
            Whether streams must be thinned for it: settle soon.

        Raises:
            StreamExistsError: the id, or the port to listen on, is taken.
            CapacityError: there are as many streams as may be, or they take all there is.
        """
        try:
            self._registry.check_free(config)
        except CapacityError:
            self._telemetry.stream_refused("max_streams")
            raise
        if lossless:
            return False
        capacity = self._lately()
        newcomer = _member_of(config, len(capacity.members))
        if not capacity.admits(newcomer):
            self._telemetry.stream_refused("capacity")
            raise CapacityError(refusal(capacity, newcomer))
        self._account = replace(capacity, members=[*capacity.members, newcomer])
        return self._account.overloaded

    def _lately(self) -> Capacity:
        """The account of half a second ago at most, and those that came since."""
        now_seconds, account = time.monotonic(), self._account
        if account is None or now_seconds >= self._account_until_seconds:
            account = self._account = self.capacity()
            self._account_until_seconds = now_seconds + _LATELY_SECONDS
        return account

    def capacity(self) -> Capacity:
        """The account of this moment."""
        rules = self._rules
        live = [stream for stream in self._registry.all() if not stream.lane.lossless]
        live.sort(key=lambda stream: stream.created_seconds)
        known = self._usage.accounts()
        members = [
            _member_of(
                stream.config,
                number,
                known.get(stream.config.stream_id, NOTHING_KNOWN),
                thinned=stream.thinned,
            )
            for number, stream in enumerate(live)
        ]
        encode = self._usage.window().times(rules.windows_per_second)
        return Capacity(
            rules.budget,
            members,
            self._usage.rest(),
            self._remembered or StreamCost(DECODE_CORES, encode),
            prior_measured=self._remembered is not None,
            enforced=rules.enforced,
        )


def refusal(capacity: Capacity, newcomer: Member) -> str:
    """Why there is no room for another stream, in one sentence."""
    count, each = len(capacity.members), capacity.each
    engine_binds = not Load(0.0, capacity.load.engine + each.engine).fits(capacity.budget)
    one = f"{each.engine:.3g}" if engine_binds else f"{each.cores:.3g}"
    thinning = "let it be thinned (sampling_when_full), "
    if newcomer.thin_share is not None:
        thinning = ""
    return (
        f"this server holds about {capacity.streams:.0f} streams like the {count} it has "
        f"({_in_use(capacity, engine=engine_binds)}, one takes {one}); "
        f"delete one, {thinning}or raise capacity.share"
    )


def _in_use(capacity: Capacity, *, engine: bool = False) -> str:
    load, budget = capacity.load, capacity.budget
    if engine:
        return f"the engine is busy {load.engine:.2f} of {budget.engine:.2f} of the time"
    return f"{load.cores:.2f} of {budget.cores:.2f} cores in use"


def _member_of(
    config: StreamConfig, number: int, known: Account = NOTHING_KNOWN, *, thinned: bool = False
) -> Member:
    when_full = config.sampling_when_full
    # What was seen is of the rule that is in effect.
    seen_full, seen_thin = (None, known.share) if thinned else (known.share, None)
    return Member(
        config.stream_id,
        config.priority,
        number,
        known.cost,
        full_share=_share(config.sampling, seen_full),
        thin_share=None if when_full is None else _share(when_full, seen_thin),
        thinned=thinned,
    )


def _share(sampling: Sampling, seen: float | None = None) -> float:
    """Part of the windows that a rule sends to the engine; of motion what was seen, or a guess."""
    match sampling:
        case EveryWindow():
            return 1.0
        case EveryNth():
            return 1.0 / sampling.n
        case OnMotion():
            return MOTION_SHARE if seen is None else seen
