"""Threads and prices by a short trial: the rule by figures, the trial on a real engine."""

from __future__ import annotations

import logging
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.bundle import Bundle
from server.contract import Feature, Image
from server.engine.choice import Engine, EngineChoice, load_engine
from server.engine.pace import LATENCY_SECONDS, Bench, Pace, WindowCost, choose, open_at_pace
from server.engine.plans import Batches
from tests.support.tiny_bundle import make_tiny_bundle

ANY = EngineChoice("onnxruntime", None, None, Batches(4, 4), True, None)
BENCH = Bench((16, 112, 112, 3), 8, cores=2.0, windows_per_second=0.625)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture
def bench(bundle: Bundle) -> Bench:
    size = bundle.manifest.preprocess
    shape = (bundle.manifest.window.sampled_frames, size.height, size.width, 3)
    return Bench(shape, 4, cores=2.0, windows_per_second=1.0)


def pace(threads: int, core_ms: float, *, speedup: float = 1.0) -> Pace:
    cost = WindowCost(core_ms / 1000, core_ms / 1000 / speedup)
    return Pace(threads, cost, cost, 8)


def test_fewer_threads_win_where_they_take_less_of_the_cores() -> None:
    one, two = pace(1, 4.0), pace(2, 5.0, speedup=1.8)
    assert choose([two, one], BENCH) is one


def test_a_lone_window_must_not_wait_for_one_thread() -> None:
    one = pace(1, 1000 * LATENCY_SECONDS + 1)
    two = pace(2, 1000 * LATENCY_SECONDS + 20, speedup=1.8)
    assert choose([two, one], BENCH) is two


def test_the_engine_must_not_bind_before_the_cores_do() -> None:
    # At 40 ms a window 25 cameras fill two cores, half of that with encoding: a whole thread.
    one, two = pace(1, 40.0), pace(2, 46.0, speedup=1.9)
    often = replace(BENCH, windows_per_second=1.5625)
    assert choose([two, one], often) is two
    assert choose([two, one], replace(often, windows_per_second=0.2)) is one


def test_where_none_is_fast_enough_the_fastest_is_taken() -> None:
    tried = [pace(4, 900, speedup=3.5), pace(2, 800, speedup=1.9), pace(1, 700)]
    assert choose(tried, replace(BENCH, cores=4.0)) is tried[0]


@given(st.floats(1e-4, 10), st.floats(1e-4, 10), st.integers(1, 32), st.integers(1, 64))
def test_a_run_costs_more_with_every_window(
    alone: float, full: float, batch: int, windows: int
) -> None:
    priced = Pace(1, WindowCost(alone, alone), WindowCost(full, full), batch)
    assert priced.run(windows).core_seconds <= priced.run(windows + 1).core_seconds + 1e-12
    assert priced.run(1).core_seconds == pytest.approx(alone)
    if batch > 1 and batch * full >= alone:
        assert priced.run(batch).seconds == pytest.approx(batch * full)


def test_the_trial_finds_a_pace_and_says_so_in_one_line(
    bundle: Bundle, bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    opened: list[int | None] = []

    def load(choice: EngineChoice) -> Engine:
        opened.append(choice.threads)
        return load_engine(bundle, choice)

    with caplog.at_level(logging.INFO, "server.engine.pace"):
        engine, found = open_at_pace(ANY, bench, load)
    assert sorted(filter(None, opened)) == [1, 2]
    assert found.threads in (1, 2)
    assert 0 < found.alone.seconds < LATENCY_SECONDS
    assert found.full.core_seconds > 0
    assert engine.name == "onnxruntime"
    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"engine threads: {found.threads}, ")
    assert "core-ms a window" in line


def test_threads_that_were_asked_for_are_not_searched(bundle: Bundle, bench: Bench) -> None:
    opened: list[int | None] = []

    def load(choice: EngineChoice) -> Engine:
        opened.append(choice.threads)
        return load_engine(bundle, choice)

    _, found = open_at_pace(replace(ANY, threads=2), bench, load)
    assert opened == [2]
    assert found.threads == 2


def test_one_core_needs_no_search(bundle: Bundle, bench: Bench) -> None:
    _, found = open_at_pace(ANY, replace(bench, cores=0.5), lambda c: load_engine(bundle, c))
    assert found.threads == 1


class Costly:
    """An engine whose windows cost what a table says, by the size of the run."""

    name, device, precision = "onnxruntime", "cpu", "fp32"

    def __init__(self, core_seconds: dict[int, float]) -> None:
        self._core_seconds = core_seconds

    def warm_up(self, max_batch: int) -> None:
        self.encode(np.zeros((max_batch, 1), np.uint8))

    def encode(self, images: Image) -> Feature:
        until = time.process_time() + len(images) * self._core_seconds[len(images)]
        while time.process_time() < until:
            pass
        return np.zeros((len(images), 1), np.float32)

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("core_ms", "batch"),
    [
        ({1: 2.0, 2: 2.0, 4: 2.6, 8: 3.0}, 2),
        ({1: 4.0, 2: 3.0, 4: 2.0, 8: 1.0}, 8),
        ({1: 1.0, 2: 2.0, 4: 2.0, 8: 2.0}, 1),
    ],
)
def test_runs_are_as_large_as_pays(core_ms: dict[int, float], batch: int) -> None:
    engine = Costly({size: ms / 1000 for size, ms in core_ms.items()})
    asked = replace(ANY, threads=1)
    found = [
        open_at_pace(asked, replace(BENCH, halves=halves), lambda _: engine)[1]  # type: ignore[arg-type]  # it has no head
        for halves in (True, False)
    ]
    assert [pace.batch for pace in found] == [batch, 8]
    assert found[0].full.core_seconds == pytest.approx(core_ms[batch] / 1000, rel=0.2)
