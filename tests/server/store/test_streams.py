"""Streams at rest, in each kind of database."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
import sqlalchemy as sa

from server.sampling import EveryNth, OnMotion
from server.store.database import Database, StoreError
from server.store.streams import StoredStream, StreamStore
from server.store.tables import STREAMS
from server.streams import Mode, SourceUrl, StreamConfig, Transport

DOOR = StreamConfig("door", SourceUrl("rtsp://joe:s3cret@cam/a"))
HALL = StreamConfig(
    "hall",
    SourceUrl("rtsp://127.0.0.1:8554/b"),
    Mode.LISTEN,
    Transport.UDP,
    open_threshold=0.25,
    sampling=OnMotion(7.5),
    sampling_when_full=EveryNth(4),
    priority=0,
)


@pytest.fixture
def store(store_url: str) -> Iterator[StreamStore]:
    store = StreamStore(Database(store_url))
    yield store
    store.database.close()


def test_streams_come_back_whole_after_a_restart(store: StreamStore, store_url: str) -> None:
    store.save(HALL, 1_700_000_000.25)
    store.save(DOOR, 1_700_000_001.5)
    store.reserve("hall", 1000)
    store.database.close()
    again = StreamStore(Database(store_url))
    assert again.load() == [
        StoredStream(DOOR, 0, 1_700_000_001.5),
        StoredStream(HALL, 1000, 1_700_000_000.25),
    ]
    again.database.close()


def test_a_stream_that_cannot_be_read_is_left_out_alone(
    store: StreamStore, caplog: pytest.LogCaptureFixture
) -> None:
    for stream_id in ("a", "b"):
        store.save(StreamConfig(stream_id, SourceUrl("rtsp://joe:s3cret@10.0.0.1/cam")), 1.0)
    odd = sa.update(STREAMS).values(url="gopher://joe:s3cret@10.0.0.1/")
    with store.database.transaction() as connection:
        connection.execute(odd.where(STREAMS.c.stream_id == "a"))
    assert [stored.config.stream_id for stored in store.load()] == ["b"]
    assert [record.stream for record in caplog.records] == ["a"]
    assert "left out" in caplog.text
    assert "s3cret" not in caplog.text


def test_an_update_keeps_sequence_and_creation(store: StreamStore) -> None:
    store.save(DOOR, 5.0)
    store.reserve("door", 40)
    changed = replace(DOOR, url=SourceUrl("rtsp://other/a"), open_threshold=0.5)
    store.update(changed)
    assert store.load() == [StoredStream(changed, 40, 5.0)]


def test_a_server_that_stops_gives_back_what_it_reserved(store: StreamStore) -> None:
    store.save(DOOR, 0.0)
    store.reserve("door", 1000)
    store.settle("door", 17)
    assert store.load()[0].next_sequence == 17


def test_a_deleted_stream_is_gone_and_may_be_deleted_again(store: StreamStore) -> None:
    store.save(DOOR, 0.0)
    store.delete("door")
    store.delete("door")
    assert store.load() == []


def test_an_id_is_kept_once(store: StreamStore) -> None:
    store.save(DOOR, 0.0)
    with pytest.raises(StoreError, match=r"(?i)unique") as caught:
        store.save(DOOR, 0.0)
    assert "s3cret" not in str(caught.value)


def test_a_stream_that_is_not_there_cannot_change(store: StreamStore) -> None:
    with pytest.raises(StoreError, match="no stream door"):
        store.update(DOOR)
    with pytest.raises(StoreError, match="no stream door"):
        store.reserve("door", 5)


def test_threads_share_a_store(store: StreamStore) -> None:
    def add(prefix: str) -> None:
        for number in range(20):
            store.save(replace(DOOR, stream_id=f"{prefix}{number}"), 0.0)
            store.reserve(f"{prefix}{number}", number)

    threads = [threading.Thread(target=add, args=(prefix,)) for prefix in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert len(store.load()) == 80


def test_an_id_that_comes_back_goes_on_after_its_last_sequence(store: StreamStore) -> None:
    assert store.begins_at("door") == 0
    store.save(DOOR, 0.0)
    store.reserve("door", 40)
    store.delete("door")
    assert store.begins_at("door") == 40
    store.retire("door", 7)  # never back
    store.save(DOOR, 1.0)
    assert store.load() == [StoredStream(DOOR, 40, 1.0)]
