"""A database comes up to date from whatever it was, in each kind of database."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from server.alert_records import ChangeKind
from server.store.alerts import AlertLog
from server.store.database import Database
from server.store.streams import StoredStream, StreamStore
from server.store.tables import METADATA
from server.streams import SourceUrl, StreamConfig
from server.tuning import AlertTuning
from tests.support.backend import an_alert

ROOT = Path(__file__).parents[3]

BEFORE_ALEMBIC = [
    "CREATE TABLE gvvad_schema (version INTEGER NOT NULL)",
    "INSERT INTO gvvad_schema VALUES (1)",
    "CREATE TABLE streams (stream_id VARCHAR(63) NOT NULL PRIMARY KEY, url TEXT NOT NULL, "
    "mode VARCHAR(16) NOT NULL, transport VARCHAR(16) NOT NULL, "
    "open_threshold DOUBLE PRECISION, next_sequence BIGINT NOT NULL, "
    "created_seconds DOUBLE PRECISION NOT NULL)",
    "INSERT INTO streams VALUES ('door', 'rtsp://joe:pw@cam/a', 'pull', 'tcp', 0.25, 1000, 5.5)",
]

SERVER = """
import sys
from server.store.database import Database
sys.stdin.read(1)
Database(sys.argv[1]).close()
"""


def engine(url: str) -> sa.Engine:
    return sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))


def test_a_database_of_the_time_before_alembic_keeps_its_streams(store_url: str) -> None:
    with (made := engine(store_url)).begin() as connection:
        for statement in BEFORE_ALEMBIC:
            connection.execute(sa.text(statement))
    made.dispose()
    database = Database(store_url)
    door = StreamConfig("door", SourceUrl("rtsp://joe:pw@cam/a"), open_threshold=0.25)
    assert StreamStore(database).load() == [StoredStream(door, 1000, 5.5)]
    assert door.alerts == AlertTuning()
    AlertLog(database).append(ChangeKind.OPENED, an_alert("door"), 1.0)
    database.close()
    with (made := engine(store_url)).connect() as connection:
        assert not sa.inspect(connection).has_table("gvvad_schema")
    made.dispose()


def test_the_migrations_make_the_tables_that_the_code_knows(store_url: str) -> None:
    Database(store_url).close()
    with (made := engine(store_url)).connect() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, METADATA) == []
    made.dispose()


def test_servers_that_start_at_once_on_an_empty_database_all_come_up(store_url: str) -> None:
    servers = [
        subprocess.Popen(
            [sys.executable, "-c", SERVER, store_url],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for server in servers:  # all are loaded by the time that the last one is told
        assert server.stdin is not None
        server.stdin.write("x")
        server.stdin.flush()
    said = [server.communicate(timeout=60)[1] for server in servers]
    assert [server.returncode for server in servers] == [0] * len(servers), said


@pytest.mark.long
@pytest.mark.parametrize("statements", [3, 9, 15])
def test_a_migration_that_is_cut_off_leaves_what_was_there(store_url: str, statements: int) -> None:
    with (made := engine(store_url)).begin() as connection:
        for statement in BEFORE_ALEMBIC:
            connection.execute(sa.text(statement))
    made.dispose()
    code = (
        "import os, sys, sqlalchemy as sa\n"
        "from server.store.database import Database\n"
        "left = [int(sys.argv[2])]\n"
        "def count(*_):\n"
        "    left[0] -= 1\n"
        "    if not left[0]: os._exit(9)\n"
        "sa.event.listen(sa.Engine, 'after_cursor_execute', count)\n"
        "Database(sys.argv[1]).close()\n"
    )
    cut = subprocess.run(
        [sys.executable, "-c", code, store_url, str(statements)], cwd=ROOT, timeout=60
    )
    assert cut.returncode == 9
    database = Database(store_url)
    assert [one.config.stream_id for one in StreamStore(database).load()] == ["door"]
    AlertLog(database).append(ChangeKind.OPENED, an_alert("door"), 1.0)
    database.close()
