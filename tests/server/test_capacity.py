"""Laws of the capacity: what is admitted fits, what must give way does, and nothing flaps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from hypothesis import example, given
from hypothesis import strategies as st

from server.admission import refusal
from server.capacity import RESTORE_SHARE, Capacity, Load, Member, StreamCost

BUDGET = Load(1.7, 0.85)

shares = st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0])
costs = st.builds(
    StreamCost,
    st.floats(0, 0.5),
    st.builds(Load, st.floats(0, 0.3), st.floats(0, 0.3)),
)


@st.composite
def members(draw: st.DrawFn, *, most: int = 8, measured: bool = False) -> list[Member]:
    count = draw(st.integers(0, most))
    return [
        Member(
            f"s{number}",
            priority=draw(st.integers(0, 3)),
            number=number,
            cost=draw(costs if measured else st.none() | costs),
            full_share=draw(shares),
            thin_share=draw(st.none() | shares),
            thinned=draw(st.booleans()),
        )
        for number in range(count)
    ]


rests = st.builds(Load, st.floats(0, 0.3))


def camera(
    stream_id: str,
    number: int,
    *,
    decode: float = 0.05,
    encode: float = 0.05,
    priority: int = 0,
    thin_share: float | None = None,
    thinned: bool = False,
) -> Member:
    cost = StreamCost(decode, Load(encode, encode / 2))
    return Member(stream_id, priority, number, cost, 1.0, thin_share, thinned)


def settled(capacity: Capacity) -> Capacity:
    """After what it asks for was done."""
    changes = {change.stream_id: change.thinned for change in capacity.adjustments()}
    after = [
        replace(member, thinned=changes.get(member.stream_id, member.thinned))
        for member in capacity.members
    ]
    return replace(capacity, members=after)


def join(capacity: Capacity, newcomer: Member) -> Capacity:
    return settled(replace(capacity, members=[*capacity.members, newcomer]))


@given(members(measured=True), rests, st.lists(st.tuples(st.integers(0, 3), st.none() | shares)))
def test_what_is_admitted_fits_however_many_ask(
    running: list[Member], rest: Load, asking: list[tuple[int, float | None]]
) -> None:
    capacity = settled(Capacity(BUDGET, running, rest))
    for number, (priority, thin_share) in enumerate(asking, len(running)):
        newcomer = Member(f"s{number}", priority, number, thin_share=thin_share)
        if not capacity.known:
            assert capacity.admits(newcomer)
            return
        if capacity.admits(newcomer):
            capacity = join(capacity, newcomer)
            assert not capacity.overloaded


@given(members(measured=True), rests)
@example([camera("idle", 0, decode=0.0, encode=0.0)], Load(0.25))
def test_fifty_calls_at_once_are_answered_as_one_after_the_other(
    running: list[Member], rest: Load
) -> None:
    capacity = settled(Capacity(BUDGET, running, rest))
    if not running or capacity.each.cores < 0.04:
        return
    admitted = 0
    for number in range(50):
        newcomer = Member(f"new{number}", 0, 100 + number)
        if capacity.admits(newcomer):
            admitted += 1
            capacity = replace(capacity, members=[*capacity.members, newcomer])
    assert admitted < 50
    assert capacity.load.fits(BUDGET) or admitted == 0
    assert not capacity.admits(Member("one more", 0, 999))


@given(members(), rests, st.permutations(range(6)))
def test_the_order_of_the_streams_in_the_account_changes_nothing(
    running: list[Member], rest: Load, order: Sequence[int]
) -> None:
    shuffled = sorted(running, key=lambda member: order[member.number % 6])
    one, other = Capacity(BUDGET, running, rest), Capacity(BUDGET, shuffled, rest)
    assert math.isclose(one.load.cores, other.load.cores, abs_tol=1e-12)
    assert set(one.adjustments()) == set(other.adjustments())


@given(members(), rests)
def test_nothing_flaps_while_costs_stay(running: list[Member], rest: Load) -> None:
    capacity = Capacity(BUDGET, running, rest)
    changed: list[str] = []
    for _ in range(4):
        capacity, before = settled(capacity), capacity
        changed += [c.stream_id for c in before.adjustments() if not c.thinned]
        thinned_again = [c.stream_id for c in capacity.adjustments() if c.thinned]
        assert not set(thinned_again) & set(changed)
    assert capacity.adjustments() == []


@given(members(measured=True), rests, st.lists(st.floats(0.97, 1.03), min_size=1, max_size=8))
def test_costs_that_wander_a_little_thin_nobody_whom_they_let_back(
    running: list[Member], rest: Load, wander: list[float]
) -> None:
    capacity = settled(settled(Capacity(BUDGET, running, rest)))
    restored: set[str] = set()
    for factor in wander:
        moved = [
            replace(m, cost=StreamCost(c.decode_cores * factor, c.encode.times(factor)))
            for m, original in zip(capacity.members, running, strict=True)
            if (c := original.cost) is not None
        ]
        now = replace(capacity, members=moved)
        assert not {c.stream_id for c in now.adjustments() if c.thinned} & restored
        restored |= {c.stream_id for c in now.adjustments() if not c.thinned}
        capacity = settled(now)


@given(members(), rests)
def test_the_least_important_and_newest_are_thinned_first(
    running: list[Member], rest: Load
) -> None:
    capacity = Capacity(BUDGET, running, rest)
    thinned = {change.stream_id for change in capacity.adjustments() if change.thinned}
    after = settled(capacity)
    saving = [
        m
        for m in after.members
        if m.thin_share is not None
        and m.thin_share < m.full_share
        and (m.cost or capacity.expected).encode != Load()
    ]
    kept = [m for m in saving if not m.thinned]
    for one in thinned:
        rank = next((m.priority, -m.number) for m in running if m.stream_id == one)
        assert all(rank < (m.priority, -m.number) for m in kept)
    if after.overloaded:
        assert kept == []


@given(members(), rests)
def test_no_stream_is_thinned_that_must_not_be(running: list[Member], rest: Load) -> None:
    after = settled(Capacity(BUDGET, running, rest))
    assert not [m for m in after.members if m.thin_share is None and m.thinned]


@given(members(measured=True), rests, members(most=1))
def test_what_was_refused_in_full_and_let_in_thinned_is_thinned_at_once(
    running: list[Member], rest: Load, asking: list[Member]
) -> None:
    capacity = settled(Capacity(BUDGET, running, rest))
    for asked in asking:
        newcomer = replace(asked, stream_id="new", number=99, cost=None, thinned=False)
        in_full = capacity.admits(replace(newcomer, thin_share=None))
        if capacity.measured and capacity.admits(newcomer) and not in_full:
            joined = join(capacity, newcomer)
            assert [m.thinned for m in joined.members if m.stream_id == "new"] == [True]


def test_a_server_that_has_measured_nothing_admits() -> None:
    unknown = [Member(f"s{n}", number=n) for n in range(100)]
    assert Capacity(BUDGET, unknown, prior=StreamCost(9, Load(9, 9))).admits(Member("new"))


def test_streams_that_cost_nothing_have_no_bound() -> None:
    idle = [camera(f"s{n}", n, decode=0, encode=0) for n in range(3)]
    capacity = Capacity(BUDGET, idle)
    assert capacity.streams == math.inf
    assert capacity.admits(Member("new"))
    assert capacity.used == 0


def test_one_stream_that_costs_more_than_everything_stays_alone() -> None:
    capacity = Capacity(BUDGET, [camera("4k", 0, decode=3.0)])
    assert capacity.overloaded
    assert capacity.adjustments() == []
    assert not capacity.admits(Member("new"))
    assert capacity.streams == 0


def test_the_estimate_counts_what_is_there_and_what_still_fits() -> None:
    streams = [camera(f"s{n}", n) for n in range(10)]
    assert Capacity(BUDGET, streams).streams == 17


def test_thinning_saves_encoding_and_never_decoding() -> None:
    # Ten take 1.6; an eleventh takes 1.75 with its decoding and 1.76 with its encoding too.
    streams = [camera(f"s{n}", n, decode=0.15, encode=0.01) for n in range(10)]
    capacity = Capacity(BUDGET, streams)
    assert not capacity.admits(Member("new", thin_share=0.0))
    roomier = replace(capacity, budget=Load(1.755, 0.85))
    assert roomier.admits(Member("new", thin_share=0.0))
    assert not roomier.admits(Member("new"))


def test_a_newcomer_may_count_on_the_thinning_of_lesser_streams_only() -> None:
    lesser = [camera(f"s{n}", n, priority=1, thin_share=0.0) for n in range(17)]
    capacity = Capacity(BUDGET, lesser)
    assert capacity.admits(Member("greater", priority=2, number=17))
    assert not capacity.admits(Member("equal", priority=1, number=17))
    joined = join(capacity, Member("greater", priority=2, number=17))
    assert [m.stream_id for m in joined.members if m.thinned] == ["s15", "s16"]


def test_a_thinned_stream_comes_back_only_into_clear_room() -> None:
    streams = [camera(f"s{n}", n) for n in range(15)]
    thin = camera("thin", 15, thin_share=0.0, thinned=True)
    full = Capacity(BUDGET, [*streams, thin])
    assert full.adjustments() == []  # with it 1.6 of 1.7 would be taken: more than 0.9 of it
    freed = replace(full, members=[*streams[:-1], thin])
    assert [change.thinned for change in freed.adjustments()] == [False]
    assert settled(freed).load.cores <= RESTORE_SHARE * BUDGET.cores


def test_a_stream_that_withdraws_its_leave_gets_its_windows_back() -> None:
    streams = [camera(f"s{n}", n, decode=0.2) for n in range(10)]
    unwilling = replace(streams[3], thinned=True)
    changes = Capacity(BUDGET, [*streams, unwilling]).adjustments()
    assert [(c.stream_id, c.thinned) for c in changes] == [("s3", False)]


@given(members(), rests)
@example([camera("engine", 0, decode=0.0, encode=1.6)], Load())
def test_the_refusal_names_what_is_full(running: list[Member], rest: Load) -> None:
    capacity = Capacity(BUDGET, running, rest)
    newcomer = Member("new", number=99)
    if capacity.admits(newcomer):
        return
    sentence = refusal(capacity, newcomer)
    assert f"like the {len(running)} it has" in sentence
    assert "sampling_when_full" in sentence
    assert "cores in use" in sentence or "the engine is busy" in sentence


def test_the_refusal_reads_as_one_sentence() -> None:
    streams = [camera(f"s{n}", n, decode=0.033, encode=0.03) for n in range(26)]
    assert refusal(Capacity(BUDGET, streams), Member("new")) == (
        "this server holds about 26 streams like the 26 it has (1.64 of 1.70 cores in use, one "
        "takes 0.063); delete one, let it be thinned (sampling_when_full), or raise capacity.share"
    )


def test_a_server_that_does_not_enforce_refuses_nothing() -> None:
    capacity = Capacity(BUDGET, [camera("4k", 0, decode=3.0)], enforced=False)
    assert capacity.admits(Member("new"))
