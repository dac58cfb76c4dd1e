"""The past of the scores: what was taken comes back, within its bounds, and never waits."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from server.alerts import ScoredSpan
from server.history import MAX_WAITING_WINDOWS, HistoryLimits, ScoreHistory
from server.series import ScoreSeries
from server.store.database import Database
from server.store.history import HistoryStore, PackedChunk, pack, unpack
from server.store.streams import StreamStore
from server.store.tables import SCORE_HISTORY
from server.streams import SourceUrl, StreamConfig

BUNDLE, OTHER = "ab" * 32, "cd" * 32
WINDOW_SECONDS = 1.28
ROUNDED = 0.5 / 65535


def spans(
    count: int, *, first: int = 0, gap: bool = True, start: float = 1.7e9
) -> list[ScoredSpan]:
    """Windows that follow each other; every tenth was dropped, half of those for being still."""
    return [
        ScoredSpan(
            index,
            start + index * WINDOW_SECONDS,
            start + index * WINDOW_SECONDS + 1.2,
            None if index % 10 == 9 else (index % 97) / 97,
            after_gap=gap and index == first,
            still=index % 20 == 19,
        )
        for index in range(first, first + count)
    ]


def assert_same(found: ScoreSeries, wanted: list[ScoredSpan]) -> None:
    series = ScoreSeries.of(wanted)
    assert len(found) == len(series)
    np.testing.assert_allclose(found.start_seconds, series.start_seconds, atol=0.0006)
    np.testing.assert_allclose(found.end_seconds, series.end_seconds, atol=0.0006)
    np.testing.assert_allclose(found.scores, series.scores, atol=ROUNDED)
    np.testing.assert_array_equal(found.after_gap, series.after_gap)
    np.testing.assert_array_equal(found.unmoved, series.unmoved)


@pytest.fixture
def database(store_url: str) -> Iterator[Database]:
    database = Database(store_url)
    store = StreamStore(database)
    for name in ("door", "yard"):
        store.save(StreamConfig(name, SourceUrl("push://")), 1.0)
    yield database
    database.close()


def until(wanted: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not wanted():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(st.floats(0, 60), st.floats(0, 200), st.none() | st.floats(0, 1), st.booleans()),
        min_size=1,
        max_size=60,
    ),
    st.floats(0, 2e9),
)
def test_packed_windows_come_back_to_a_tick(windows, origin) -> None:
    now, made = origin, []
    for pause, length, score, gap in windows:
        made.append(ScoredSpan(0, now + pause, now + pause + length, score, gap))
        now += pause + length
    found, wanted = unpack(pack(ScoreSeries.of(made))), ScoreSeries.of(made)
    tick = max(0.001, 200 / 65000)
    np.testing.assert_allclose(found.start_seconds, wanted.start_seconds, atol=tick)
    np.testing.assert_allclose(found.end_seconds, wanted.end_seconds, atol=tick)
    np.testing.assert_allclose(found.scores, wanted.scores, atol=ROUNDED * 1.001)
    np.testing.assert_array_equal(found.after_gap, wanted.after_gap)


def test_a_day_of_a_camera_takes_less_than_four_bytes_a_window() -> None:
    windows = 67_500
    noise = np.random.default_rng(0).random(windows)
    series = ScoreSeries.regular(WINDOW_SECONDS, noise)
    packed = sum(len(pack(series.part(at, at + 2048))) for at in range(0, windows, 2048))
    assert packed / windows < 4


@pytest.mark.parametrize(
    "packed", [b"", b"\x01" * 40, b"\x09" + pack(ScoreSeries.of(spans(3)))[1:]]
)
def test_bytes_that_are_no_windows_are_told_so(packed: bytes) -> None:
    with pytest.raises(ValueError, match="packed run"):
        unpack(packed)


def test_what_was_taken_comes_back_in_order_and_after_a_restart(database: Database) -> None:
    taken = spans(5000)
    for begin, end in ((0, 3000), (3000, 5000)):
        history = ScoreHistory(database, BUNDLE, HistoryLimits())
        history.start()
        for span in taken[begin:end]:
            history.add("door", span)
        assert_same(history.read("door", None), taken[:end])
        history.stop()
    assert len(ScoreHistory(database, OTHER, HistoryLimits()).read("door", None)) == 0


def test_a_clock_that_is_set_begins_another_chunk_and_loses_nothing(database: Database) -> None:
    history = ScoreHistory(database, BUNDLE, HistoryLimits())
    taken = spans(50) + spans(50, start=0.0, gap=False) + spans(50, start=3e9, gap=False)
    for span in taken:
        history.add("door", span)
    assert_same(history.read("door", None), taken)


def test_a_flush_needs_nobody_to_ask_for_it(database: Database) -> None:
    history = ScoreHistory(database, BUNDLE, HistoryLimits(flush_seconds=0.05))
    history.start()
    for span in spans(20):
        history.add("door", span)
    until(lambda: len(HistoryStore(database).read("door", BUNDLE, 0.0)) == 20)
    history.stop()


def test_chunks_grow_in_place_and_not_in_number(database: Database) -> None:
    history = ScoreHistory(database, BUNDLE, HistoryLimits())
    for first in range(0, 3000, 50):
        for span in spans(50, first=first, gap=first == 0):
            history.add("door", span)
        history.flush()
    assert rows(database) == 2
    assert_same(history.read("door", None), spans(3000))


def rows(database: Database) -> int:
    with database.transaction() as connection:
        count: int = connection.execute(
            sa.select(sa.func.count()).select_from(SCORE_HISTORY)
        ).scalar_one()
    return count


def test_a_chunk_that_was_deleted_meanwhile_is_written_anew(database: Database) -> None:
    store = HistoryStore(database)
    packed = pack(ScoreSeries.of(spans(3)))
    chunks = [PackedChunk(None, name, BUNDLE, 1.0, 2.0, packed) for name in "abc"]
    known = [
        replace(chunk, chunk_id=chunk_id, windows=pack(ScoreSeries.of(spans(5))))
        for chunk, chunk_id in zip(chunks, store.write(chunks), strict=True)
    ]
    store.forget("b")
    fresh = PackedChunk(None, "d", BUNDLE, 1.0, 2.0, packed)
    ids = store.write([known[0], known[1], fresh, known[2]])
    assert (ids[0], ids[3]) == (known[0].chunk_id, known[2].chunk_id)
    assert len(set(ids)) == rows(database) == 4
    for name, length in zip("abcd", (5, 5, 5, 3), strict=True):
        assert len(store.read(name, BUNDLE, 0.0)) == length
    # Each id is of the stream whose chunk stood in its place.
    assert store.write([replace(known[1], chunk_id=ids[1], windows=packed)]) == [ids[1]]
    assert len(store.read("b", BUNDLE, 0.0)) == 3
    assert store.write([]) == []


def test_the_past_is_trimmed_by_age_and_by_bytes_of_each_stream(database: Database) -> None:
    store = HistoryStore(database)
    history = ScoreHistory(database, BUNDLE, HistoryLimits())
    for name, count in (("door", 10_000), ("yard", 100)):
        for span in spans(count):
            history.add(name, span)
    history.flush()
    chunks = rows(database)
    assert store.trim(0.0, 10**9) == 0
    half = len(pack(ScoreSeries.of(spans(2048)))) * 5 // 2
    assert store.trim(0.0, half) == chunks - rows(database) > 0
    kept = store.read("door", BUNDLE, 0.0)
    assert 0 < len(kept) < 10_000
    assert kept.end_seconds[-1] == pytest.approx(spans(10_000)[-1].end_seconds, abs=0.001)
    assert len(store.read("yard", BUNDLE, 0.0)) == 100
    store.trim(time.time() + 1, 10**9)
    assert rows(database) == 0


def test_a_forgotten_stream_leaves_nothing_and_others_stay(database: Database) -> None:
    history = ScoreHistory(database, BUNDLE, HistoryLimits())
    for name in ("door", "yard"):
        for span in spans(100):
            history.add(name, span)
    history.flush()
    history.add("door", spans(1)[0])
    history.forget("door")
    assert len(history.read("door", None)) == 0
    assert_same(history.read("yard", None), spans(100))


def test_a_start_deletes_what_outlived_its_stream(database: Database) -> None:
    history = ScoreHistory(database, BUNDLE, HistoryLimits())
    for name in ("door", "ghost"):
        for span in spans(10):
            history.add(name, span)
    history.flush()
    later = ScoreHistory(database, BUNDLE, HistoryLimits())
    later.start()
    assert len(later.read("ghost", None)) == 0
    assert len(later.read("door", None)) == 10
    later.stop()


def test_a_store_that_fails_costs_history_and_nothing_else(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    dropped: list[None] = []
    history = ScoreHistory(
        database, BUNDLE, HistoryLimits(), count_dropped=lambda: dropped.append(None)
    )
    rename(database, "score_history", "away")
    coming = iter(spans(3 * (MAX_WAITING_WINDOWS // 2)))
    with caplog.at_level(logging.INFO, "server.history"):
        for _ in range(3):
            for span in islice(coming, MAX_WAITING_WINDOWS // 2):
                history.add("door", span)
            history.flush()
            history.flush()
        assert len(caplog.messages) == 1
        assert caplog.messages[0].startswith("scores are not kept for now: store ")
        assert 0 < len(dropped) < MAX_WAITING_WINDOWS
        rename(database, "away", "score_history")
        history.flush()
    assert caplog.messages[1] == f"scores are kept again; {len(dropped)} windows were lost"
    kept = len(history.read("door", None))
    assert kept == 3 * (MAX_WAITING_WINDOWS // 2) - len(dropped)


def rename(database: Database, old: str, new: str) -> None:
    with database.transaction() as connection:
        connection.execute(sa.text(f"ALTER TABLE {old} RENAME TO {new}"))


def test_taking_a_score_never_waits_for_the_store(database: Database) -> None:
    history = ScoreHistory(database, BUNDLE, HistoryLimits(flush_seconds=0.01))
    history.start()
    with database.transaction():  # nobody else writes now
        worker = threading.Thread(
            target=lambda: [history.add("door", span) for span in spans(10_000)]
        )
        worker.start()
        worker.join(5)
        assert not worker.is_alive()
    history.stop()
    assert len(history.read("door", None)) == 10_000
