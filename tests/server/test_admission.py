"""Admission in a real supervisor: who counts, who is refused, and what is shown."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import SimpleNamespace

import pytest
from prometheus_client import generate_latest

from server.admission import PATIENCE_SECONDS, Admission, CapacityRules
from server.alert_machine import AlertMachine
from server.alerts import AlertDefaults
from server.batcher import Lane
from server.engine.pace import Pace, WindowCost
from server.ingest.events import FrameStats, SkippedWindow, WindowsSkipped
from server.record import StreamRecord
from server.registry import Registry
from server.sampling import EveryNth, OnMotion
from server.scoring import DropReason
from server.streams import SourceUrl, StreamConfig
from server.telemetry import Telemetry
from server.views import CapacityError, StreamExistsError
from server.windows import WindowSpan

PACE = Pace(1, WindowCost(0.05, 0.05), WindowCost(0.05, 0.05), 8)


class Clock:
    """Stands for `time.monotonic` in the admission."""

    def __init__(self) -> None:
        self.now_seconds = 1000.0

    def __call__(self) -> float:
        return self.now_seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("server.admission.time", SimpleNamespace(monotonic=clock))
    return clock


class Account:
    """An admission over a registry, with streams that take what the test says."""

    def __init__(self, clock: Clock, *, cores: float = 1.0, enforced: bool = True) -> None:
        self.clock = clock
        self.registry = Registry(max_streams=40)
        self.telemetry = Telemetry()
        self.thinned: dict[str, bool] = {}
        self.turn = asyncio.Lock()
        rules = CapacityRules(cores, 1.0, enforced, PACE, 1.0)
        self.admission = Admission(self.registry, rules, self.telemetry, list, self.thin)

    def thin(self, stream_id: str, thinned: bool) -> None:
        self.registry.known(stream_id).thinned = thinned
        self.thinned[stream_id] = thinned

    def enter(self, config: StreamConfig, *, lossless: bool = False) -> StreamRecord:
        lane = Lane(config.stream_id, lossless=lossless)
        machine = AlertMachine(
            config.stream_id, "b" * 64, AlertDefaults().policy(0.5, config.alerts)
        )
        stream = StreamRecord(config, self.clock.now_seconds, lane, machine, 0)
        self.clock.now_seconds += 0.001  # creation gives the order
        with self.registry.lock:
            self.registry.enter(stream)
        self.telemetry.stream_up(config.stream_id, True)
        return stream

    def leave(self, stream_id: str) -> None:
        with self.registry.lock:
            self.registry.remove(stream_id)
        self.admission.forget(stream_id)

    async def ask(self, stream_ids: list[str]) -> int:
        """How many of those that ask one after the other are let in."""
        return sum([await self._ask(stream_id) for stream_id in stream_ids])

    async def ask_together(self, stream_ids: list[str]) -> int:
        """How many of those that ask at the same time are let in."""
        return sum(await asyncio.gather(*map(self._ask, stream_ids)))

    async def _ask(self, stream_id: str) -> bool:
        async with self.admission.entering(self.turn, at_once=False):
            await asyncio.sleep(0)  # as the store takes its time
            with suppress(CapacityError):
                self.admission.check(camera(stream_id), lossless=False)
                self.enter(camera(stream_id))
                return True
        return False

    async def ask_with_a_file(self, stream_id: str) -> None:
        async with asyncio.timeout(1), self.admission.entering(self.turn, at_once=True):
            self.admission.check(camera(stream_id), lossless=True)

    def run(self, seconds: int, cores: dict[str, float], *, windows: int = 2) -> None:
        """Streams run for so long and close so many windows a second each."""
        for _ in range(seconds):
            self.clock.now_seconds += 1
            for stream_id, taken in cores.items():
                stream = self.registry.known(stream_id)
                self.admission.closed(stream, windows, windows)
                self.admission.told(FrameStats(stream_id, 25, windows, 0.0, 0.0, 0.0, taken))

    def metrics(self) -> str:
        return generate_latest(self.telemetry.registry).decode()


@pytest.fixture
def account(clock: Clock) -> Account:
    return Account(clock)


def camera(stream_id: str, **options: object) -> StreamConfig:
    return StreamConfig(stream_id, SourceUrl("rtsp://10.0.0.1/x"), **options)  # type: ignore[arg-type]


def test_a_stream_that_no_longer_fits_is_refused_with_the_figures(account: Account) -> None:
    for stream_id in ("a", "b", "c"):
        account.enter(camera(stream_id))
    account.run(10, dict.fromkeys("abc", 0.2))
    with pytest.raises(CapacityError) as caught:
        account.admission.check(camera("d"), lossless=False)
    assert str(caught.value) == (
        "this server holds about 3 streams like the 3 it has (0.90 of 1.00 cores in use, one takes "
        "0.3); delete one, let it be thinned (sampling_when_full), or raise capacity.share"
    )
    assert 'gvvad_streams_refused_total{reason="capacity"} 1.0' in account.metrics()


def test_those_that_were_let_in_count_before_they_are_measured(account: Account) -> None:
    account.enter(camera("a"))
    account.run(10, {"a": 0.1})
    for number in range(4):  # .2 each, of 1
        account.admission.check(camera(f"new{number}"), lossless=False)
        account.enter(camera(f"new{number}"))
    for number in range(4, 50):
        with pytest.raises(CapacityError):
            account.admission.check(camera(f"new{number}"), lossless=False)


def test_a_server_that_has_measured_nothing_takes_every_stream(account: Account) -> None:
    for number in range(30):
        account.admission.check(camera(f"s{number}"), lossless=False)
        account.enter(camera(f"s{number}"))


def test_what_was_measured_stands_for_the_next_once_all_are_gone(account: Account) -> None:
    for stream_id in ("a", "b"):
        account.enter(camera(stream_id))
    account.run(10, {"a": 0.2, "b": 0.1})  # and .1 to encode two windows a second
    account.admission.look()
    for stream_id in ("a", "b"):
        account.leave(stream_id)
    assert account.admission.capacity().summary().streams_estimated == 4
    assert asyncio.run(account.ask([f"new{number}" for number in range(50)])) == 4


@pytest.mark.parametrize("together", [False, True])
def test_the_first_of_many_are_measured_before_the_others_are_let_in(
    account: Account, *, together: bool
) -> None:
    ask = account.ask_together if together else account.ask

    async def fifty() -> int:
        asked = asyncio.create_task(ask([f"s{number}" for number in range(50)]))
        while len(account.registry.all()) < 3:  # .25 + .05 each, were they large
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        assert len(account.registry.all()) == 3
        await account.ask_with_a_file("file")
        account.run(10, {"s0": 0.1, "s1": 0.1, "s2": 0.1})
        return await asked

    assert asyncio.run(fifty()) == 5  # .2 each


def test_for_cameras_that_show_nothing_the_others_wait_once(account: Account) -> None:
    async def thirty() -> int:
        asked = asyncio.create_task(account.ask([f"s{number}" for number in range(30)]))
        await asyncio.sleep(0.3)
        assert len(account.registry.all()) == 3
        account.clock.now_seconds += PATIENCE_SECONDS
        return await asked

    assert asyncio.run(thirty()) == 30


def test_without_a_limit_nobody_waits(clock: Clock) -> None:
    account = Account(clock, enforced=False)
    assert asyncio.run(account.ask([f"s{number}" for number in range(30)])) == 30


def test_files_are_neither_counted_nor_refused(account: Account) -> None:
    for number in range(5):
        account.enter(camera(f"s{number}"))
        account.enter(camera(f"file{number}"), lossless=True)
    taken = {f"s{n}": 0.1 for n in range(5)} | {f"file{n}": 0.4 for n in range(5)}
    account.run(10, taken)
    assert account.admission.capacity().summary().streams == 5
    account.admission.check(camera("file"), lossless=True)
    with pytest.raises(CapacityError):
        account.admission.check(camera("new"), lossless=False)


def test_other_refusals_come_first_and_are_counted_by_their_reason(account: Account) -> None:
    for number in range(40):
        account.enter(camera(f"s{number}"))
    with pytest.raises(StreamExistsError):
        account.admission.check(camera("s1"), lossless=False)
    with pytest.raises(CapacityError, match="max_streams"):
        account.admission.check(camera("new"), lossless=True)
    assert 'gvvad_streams_refused_total{reason="max_streams"} 1.0' in account.metrics()


def test_a_camera_that_grows_thins_the_newest_of_the_least_important(
    account: Account, caplog: pytest.LogCaptureFixture
) -> None:
    when_full = EveryNth(10)
    account.enter(camera("important", priority=9, sampling_when_full=when_full))
    account.enter(camera("old", sampling_when_full=when_full))
    account.enter(camera("new", sampling_when_full=when_full))
    account.enter(camera("plain"))
    names = ("important", "old", "new", "plain")
    account.run(60, dict.fromkeys(names, 0.1))
    account.admission.settle()
    assert account.thinned == {}
    account.run(60, dict.fromkeys(names, 0.1) | {"plain": 0.35})
    account.admission.settle()
    assert account.thinned == {"new": True}
    account.run(60, dict.fromkeys(names, 0.1) | {"plain": 2.0})
    account.admission.settle()
    assert account.thinned == {"new": True, "old": True, "important": True}
    assert [r for r in caplog.records if "take more than there is" in r.getMessage()]
    account.run(200, dict.fromkeys(names, 0.1))
    account.admission.settle()
    assert account.thinned == dict.fromkeys(("important", "old", "new"), False)


def test_motion_counts_by_what_was_seen_of_it(account: Account) -> None:
    stream = account.enter(camera("a", sampling=OnMotion()))
    account.run(10, {"a": 0.1}, windows=0)
    span = WindowSpan(0, 0, 16, 0.0, 1.0, 0.0)
    still = WindowsSkipped("a", 1, (SkippedWindow(span, DropReason.STILL),))
    for _ in range(100):
        account.admission.skipped(stream, still)
        account.run(1, {"a": 0.1}, windows=0)
    assert account.admission.capacity().load.cores == pytest.approx(0.1)
    backlog = WindowsSkipped("a", 1, (SkippedWindow(span, DropReason.BACKLOG),))
    for _ in range(200):
        account.admission.skipped(stream, backlog)
        account.run(1, {"a": 0.1}, windows=0)
    assert account.admission.capacity().load.cores == pytest.approx(0.15, rel=0.05)


def test_a_look_shows_the_account(account: Account) -> None:
    account.enter(camera("a"))
    account.run(10, {"a": 0.3})
    account.admission.look()
    metrics = account.metrics()
    assert "gvvad_capacity_cores 1.0" in metrics
    assert 'gvvad_load_cores{stage="decode"} 0.3' in metrics
    assert 'gvvad_stream_cores{stream="a"} 0.4' in metrics
    assert "gvvad_capacity_streams 2.0" in metrics
    assert 'gvvad_engine_window_core_seconds{run="full"} 0.05' in metrics


def test_a_server_that_refuses_nothing_still_shows_that_it_is_full(clock: Clock) -> None:
    account = Account(clock, enforced=False)
    account.enter(camera("a"))
    account.run(10, {"a": 3.0})
    account.admission.check(camera("b"), lossless=False)
    assert account.admission.capacity().used > 3
