"""What is SQLite's own: files, memory, and URLs that lead nowhere."""

from __future__ import annotations

import sqlite3
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.store.database import Database, StoreError
from server.store.streams import StreamStore
from server.streams import SourceUrl, StreamConfig

DOOR = StreamConfig("door", SourceUrl("rtsp://joe:s3cret@cam/a"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "streams.db"


@pytest.fixture
def store(path: Path) -> Iterator[StreamStore]:
    store = StreamStore(Database(f"sqlite:///{path}"))
    yield store
    store.database.close()


@given(st.lists(st.integers(0, 2**62), max_size=10))
def test_a_reservation_never_goes_back(sequences: list[int]) -> None:
    store = StreamStore(Database("sqlite://"))
    store.save(DOOR, 0.0)
    for sequence in sequences:
        store.reserve("door", sequence)
    assert store.load()[0].next_sequence == max(sequences, default=0)
    store.database.close()


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
    with pytest.raises(StoreError, match=r"schema revision 9999, this server reads up to 0003"):
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
