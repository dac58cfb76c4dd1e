"""Streams at rest, in real SQLite files."""

from __future__ import annotations

import sqlite3
import stat
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.store.database import Database, StoreError
from server.store.streams import StoredStream, StreamStore
from server.streams import Mode, SourceUrl, StreamConfig, Transport

DOOR = StreamConfig("door", SourceUrl("rtsp://joe:s3cret@cam/a"))
HALL = StreamConfig(
    "hall", SourceUrl("rtsp://127.0.0.1:8554/b"), Mode.LISTEN, Transport.UDP, open_threshold=0.25
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "streams.db"


@pytest.fixture
def store(path: Path) -> Iterator[StreamStore]:
    store = StreamStore(Database(f"sqlite:///{path}"))
    yield store
    store.database.close()


def test_streams_come_back_whole_after_a_restart(store: StreamStore, path: Path) -> None:
    store.save(HALL, 1_700_000_000.25)
    store.save(DOOR, 1_700_000_001.5)
    store.reserve("hall", 1000)
    store.database.close()
    again = StreamStore(Database(f"sqlite:///{path}"))
    assert again.load() == [
        StoredStream(DOOR, 0, 1_700_000_001.5),
        StoredStream(HALL, 1000, 1_700_000_000.25),
    ]
    again.database.close()


def test_a_stream_that_cannot_be_read_is_left_out_alone(
    store: StreamStore, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for stream_id in ("a", "b"):
        store.save(StreamConfig(stream_id, SourceUrl("rtsp://joe:s3cret@10.0.0.1/cam")), 1.0)
    with sqlite3.connect(path) as connection:
        connection.execute(
            "UPDATE streams SET url = 'gopher://joe:s3cret@10.0.0.1/' WHERE stream_id = 'a'"
        )
    connection.close()
    assert [stored.config.stream_id for stored in store.load()] == ["b"]
    assert "stored stream a is left out" in caplog.text
    assert "s3cret" not in caplog.text


def test_an_update_keeps_sequence_and_creation(store: StreamStore) -> None:
    store.save(DOOR, 5.0)
    store.reserve("door", 40)
    changed = replace(DOOR, url=SourceUrl("rtsp://other/a"), open_threshold=0.5)
    store.update(changed)
    assert store.load() == [StoredStream(changed, 40, 5.0)]


@given(st.lists(st.integers(0, 2**62), max_size=10))
def test_a_reservation_never_goes_back(sequences: list[int]) -> None:
    store = StreamStore(Database("sqlite://"))
    store.save(DOOR, 0.0)
    for sequence in sequences:
        store.reserve("door", sequence)
    assert store.load()[0].next_sequence == max(sequences, default=0)
    store.database.close()


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
    with pytest.raises(StoreError, match="UNIQUE") as caught:
        store.save(DOOR, 0.0)
    assert "s3cret" not in str(caught.value)


def test_a_stream_that_is_not_there_cannot_change(store: StreamStore) -> None:
    with pytest.raises(StoreError, match="no stream door"):
        store.update(DOOR)
    with pytest.raises(StoreError, match="no stream door"):
        store.reserve("door", 5)


def test_the_file_and_its_log_belong_to_the_owner_alone(store: StreamStore, path: Path) -> None:
    store.save(DOOR, 0.0)
    files = sorted(path.parent.iterdir())
    assert path in files
    assert len(files) > 1, "SQLite keeps a write-ahead log beside the file"
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_a_file_that_others_may_read_is_closed_to_them(path: Path) -> None:
    path.touch(0o644)
    path.chmod(0o644)
    Database(f"sqlite:///{path}").close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


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


def test_memory_keeps_streams_across_threads_and_nothing_after(tmp_path: Path) -> None:
    store = StreamStore(Database("sqlite://"))
    thread = threading.Thread(target=store.save, args=(DOOR, 0.0))
    thread.start()
    thread.join(timeout=10)
    assert [stored.config for stored in store.load()] == [DOOR]
    store.database.close()
    again = StreamStore(Database("sqlite://"))
    assert again.load() == []
    again.database.close()


def test_a_newer_schema_is_refused(store: StreamStore, path: Path) -> None:
    store.database.close()
    with sqlite3.connect(path) as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    database.close()
    with pytest.raises(StoreError, match=r"schema revision 9999, this server reads up to 0002"):
        StreamStore(Database(f"sqlite:///{path}"))


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    path.write_text("this is a shopping list, long enough to be no database header" * 20)
    with pytest.raises(StoreError, match="not a database"):
        StreamStore(Database(f"sqlite:///{path}"))


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("gvvad.db", "not a database URL"),
        ("mysql://joe:s3cret@db/x", "names the database 'mysql'"),
        ("postgresql+nodriver://joe:s3cret@db/x", "not installed"),
        ("sqlite:////nowhere/at/all/x.db", "cannot be written"),
        ("postgresql://joe:a/s3cret@db:s3cret/x", "not a database URL"),
        ("sqlite://joe:s3cret@/x.db", "does not take"),
    ],
)
def test_a_url_that_leads_nowhere_is_one_sentence(url: str, sentence: str) -> None:
    with pytest.raises(StoreError, match=sentence) as caught:
        StreamStore(Database(url))
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_directory_in_place_of_the_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="Is a directory"):
        StreamStore(Database(f"sqlite:///{tmp_path}"))
