"""How many streams this server holds, and which of them give way; pure.

A stream costs the cores that decode it and, for each of its windows, cores and time of
the engine. What was measured counts; a stream that was not measured yet counts as the
measured ones do on average. Thinning saves encoding and never decoding.

What is promised: a stream is admitted only if all of them together then stay within the
budget, thinned ones at what they cost thinned. An admitted stream is never given up: when
costs grow, streams that allow it are thinned, the least important and newest first; they
come back in the opposite order, and only into clear room, so that none goes to and fro.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

RESTORE_SHARE = 0.9
"""A thinned stream comes back only if all then take no more than this part of the budget:
costs that wander by less than the rest of it thin nobody again."""

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Load:
    """What work takes, or what there is of it.

    Attributes:
        cores: processor seconds a second.
        engine: seconds a second in which the engine is busy; it does one batch at a time.
    """

    cores: float = 0.0
    engine: float = 0.0

    def __add__(self, other: Load) -> Load:
        return Load(self.cores + other.cores, self.engine + other.engine)

    def times(self, factor: float) -> Load:
        """So many of it."""
        return Load(self.cores * factor, self.engine * factor)

    def fits(self, budget: Load) -> bool:
        """Whether a budget covers it."""
        return self.cores <= budget.cores + _ROUNDING and self.engine <= budget.engine + _ROUNDING


@dataclass(frozen=True, slots=True)
class StreamCost:
    """What one stream takes.

    Attributes:
        decode_cores: to receive, decode and render it, whatever becomes of its windows.
        encode: of all its windows.
    """

    decode_cores: float
    encode: Load

    def at(self, share: float) -> Load:
        """The load where that share of its windows is encoded."""
        return Load(self.decode_cores) + self.encode.times(share)


@dataclass(frozen=True, slots=True)
class Member:
    """A stream that competes for the budget; lossless ones take what is left and do not.

    Attributes:
        stream_id: the stream.
        priority: the higher, the later it is thinned.
        number: rises with every stream; the newest has the highest.
        cost: measured; None where it was not yet.
        full_share: part of its windows that is encoded while it is not thinned.
        thin_share: that part once it is thinned; None where it must not be thinned.
        thinned: whether it is.
    """

    stream_id: str
    priority: int = 0
    number: int = 0
    cost: StreamCost | None = None
    full_share: float = 1.0
    thin_share: float | None = None
    thinned: bool = False

    @property
    def share(self) -> float:
        """Part of its windows that is encoded now."""
        if not self.thinned or self.thin_share is None:
            return self.full_share
        return min(self.full_share, self.thin_share)


@dataclass(frozen=True, slots=True)
class Adjustment:
    """A stream to thin, or to give all its windows back."""

    stream_id: str
    thinned: bool


@dataclass(frozen=True, slots=True)
class CapacitySummary:
    """What operators see of the account.

    Attributes:
        cores: that all streams together may take.
        decode_cores: that they take to receive, decode and render.
        encode_cores: that the engine takes for their windows.
        rest_cores: that the server takes beyond those.
        used_ratio: part of the capacity that is taken, of cores or of the engine's time,
            whichever is fuller.
        streams: that count: all but lossless ones.
        thinned: of those, thinned because the server is full.
        streams_estimated: streams like these that would fill the capacity; None where they
            cost nothing.
        enforced: whether a stream that no longer fits is refused.
    """

    cores: float
    decode_cores: float
    encode_cores: float
    rest_cores: float
    used_ratio: float
    streams: int
    thinned: int
    streams_estimated: int | None
    enforced: bool


@dataclass(frozen=True, slots=True)
class Capacity:
    """The budget and all that draws on it, at one moment.

    Attributes:
        budget: for all streams together; over 0.
        members: the streams.
        rest: what the server takes beyond its streams and its engine.
        prior: stands for the cost of a stream while none is measured.
        prior_measured: whether the prior is what earlier streams took, and no guess.
        enforced: whether a stream may be refused.
    """

    budget: Load
    members: Sequence[Member] = ()
    rest: Load = field(default_factory=Load)
    prior: StreamCost = field(default_factory=lambda: StreamCost(0.0, Load()))
    prior_measured: bool = False
    enforced: bool = True

    @property
    def measured(self) -> list[StreamCost]:
        """Costs that are known."""
        return [member.cost for member in self.members if member.cost is not None]

    @property
    def known(self) -> bool:
        """Whether what a stream takes was measured at all."""
        return self.prior_measured or any(member.cost is not None for member in self.members)

    @property
    def expected(self) -> StreamCost:
        """What a stream like these takes, its part of the rest included."""
        known = self.measured
        if not known:
            return self.prior
        # In plain numbers: a look at a thousand streams must not hold up the event loop.
        decode_cores = math.fsum(cost.decode_cores for cost in known) + self.rest.cores
        encode_cores = math.fsum(cost.encode.cores for cost in known)
        engine = math.fsum(cost.encode.engine for cost in known)
        encode = Load(encode_cores, engine).times(1 / len(known))
        return StreamCost(decode_cores / len(known), encode)

    @property
    def each(self) -> Load:
        """The load of one more stream like these that is not thinned."""
        shares = [member.full_share for member in self.members] or [1.0]
        return self.expected.at(math.fsum(shares) / len(shares))

    @property
    def load(self) -> Load:
        """What all streams take; those that were not measured as it is expected of them."""
        expected = self.expected
        costs = [(member.cost or expected, member.share) for member in self.members]
        cores = math.fsum(cost.decode_cores + cost.encode.cores * share for cost, share in costs)
        engine = math.fsum(cost.encode.engine * share for cost, share in costs)
        return self.rest + Load(cores, engine)

    @property
    def used(self) -> float:
        """Part of the budget that is taken, of cores or of the engine, whichever is fuller."""
        load = self.load
        return max(load.cores / self.budget.cores, load.engine / self.budget.engine)

    @property
    def streams(self) -> float:
        """How many streams like these would fill the budget; infinite where they cost nothing."""
        each, load = self.each, self.load
        spare = (
            (self.budget.cores - load.cores, each.cores),
            (self.budget.engine - load.engine, each.engine),
        )
        more = min((left / one for left, one in spare if one > 0), default=math.inf)
        count = len(self.members) + more
        return max(0.0, math.floor(count + _ROUNDING)) if math.isfinite(count) else math.inf

    @property
    def overloaded(self) -> bool:
        """Whether the streams take more than the budget."""
        return not self.load.fits(self.budget)

    def summary(self) -> CapacitySummary:
        """What operators see."""
        load, estimate, each = self.load, self.streams, self.expected.decode_cores
        decode = math.fsum(m.cost.decode_cores if m.cost else each for m in self.members)
        return CapacitySummary(
            cores=self.budget.cores,
            decode_cores=decode,
            encode_cores=max(0.0, load.cores - decode - self.rest.cores),
            rest_cores=self.rest.cores,
            used_ratio=self.used,
            streams=len(self.members),
            thinned=sum(member.thinned for member in self.members),
            streams_estimated=int(estimate) if math.isfinite(estimate) else None,
            enforced=self.enforced,
        )

    def admits(self, newcomer: Member) -> bool:
        """Whether there is room for another stream.

        It may count on its own thinning and on that of less important streams. A server
        that never measured a stream admits: it knows of no reason not to.
        """
        if not self.enforced or not self.known:
            return True
        reached = [
            replace(one, thinned=True)
            if one.priority < newcomer.priority and not one.thinned
            else one
            for one in self.members
        ]
        joined = replace(self, members=[*reached, replace(newcomer, thinned=True)])
        return not joined.overloaded

    def room_for_any(self, decode_cores: float) -> bool:
        """Whether one more would fit, did each take so much to be decoded; while none is known."""
        each = StreamCost(decode_cores, self.prior.encode).at(1.0)
        return (self.rest + each.times(len(self.members) + 1)).fits(self.budget)

    def adjustments(self) -> list[Adjustment]:
        """What to change now; with costs as they are, a second look then changes nothing back."""
        unwilling = [m for m in self.members if m.thinned and m.thin_share is None]
        freed = [Adjustment(member.stream_id, False) for member in unwilling]
        return freed + (self._to_thin() if self.overloaded else self._to_restore())

    def _to_thin(self) -> list[Adjustment]:
        load, expected, chosen = self.load, self.expected, []
        for member in sorted(self.members, key=lambda m: (m.priority, -m.number)):
            if load.fits(self.budget):
                break
            saved = _saved(member, expected)
            if not member.thinned and saved != Load():
                load += saved.times(-1)
                chosen.append(Adjustment(member.stream_id, True))
        return chosen

    def _to_restore(self) -> list[Adjustment]:
        load, expected, chosen = self.load, self.expected, []
        goal = self.budget.times(RESTORE_SHARE)
        for member in sorted(self.members, key=lambda m: (-m.priority, m.number)):
            if not member.thinned or member.thin_share is None:
                continue
            load += _saved(member, expected)
            if not load.fits(goal):
                break  # not a lesser one in its place
            chosen.append(Adjustment(member.stream_id, False))
        return chosen


def _saved(member: Member, expected: StreamCost) -> Load:
    """What thinning a stream saves, whether it is thinned now or not."""
    if member.thin_share is None:
        return Load()
    fewer = max(0.0, member.full_share - member.thin_share)
    return (member.cost or expected).encode.times(fewer)
