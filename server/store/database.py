"""One database: SQLite by default, PostgreSQL by URL, brought up to date by Alembic.

It holds the cameras' credentials, so a SQLite file is readable by its owner alone
and no error shows a value. Transactions are short, synchronous and safe from any
thread; one at a time, which makes the order of the log of changes that of its
positions.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import StaticPool

_MIGRATIONS = Path(__file__).parent / "migrations"
_BEFORE_ALEMBIC = "0001"
"""What a database is that has streams and no word of Alembic's."""

_MIGRATION_LOCK = 0x67767661  # any number that no other program locks
_CLOSE_SECONDS = 1.0

_PATIENCE = {"connect_timeout": "5", "keepalives_idle": "10", "tcp_user_timeout": "10000"}
"""libpq's parameters: a PostgreSQL that vanished is noticed within ten seconds, not hours."""


class StoreError(OSError):
    """The store cannot be used; the message says why, without credentials."""


class Database:
    """A database with all of the server's tables.

    Args:
        url: SQLAlchemy URL; `sqlite://` keeps everything in memory.

    Raises:
        StoreError: the URL is none, the database cannot be opened, or a newer
            server has written it.
    """

    def __init__(self, url: str) -> None:
        self._lock = threading.Lock()
        self._url = _parsed(url)
        self._engine = _engine(self._url)
        try:
            with self.transaction() as connection:
                self._migrate(connection)
        except StoreError:
            self._engine.dispose()
            raise

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """All that is done within is there afterwards, or nothing of it.

        Raises:
            StoreError: the database failed.
        """
        try:
            with self._lock, self._engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise StoreError(f"store {self._shown()}: {_cause(error)}") from None

    def close(self) -> None:
        """Let go of the database; one that answers no more is left to the end of the process."""
        if self._lock.acquire(timeout=_CLOSE_SECONDS):
            try:
                self._engine.dispose()
            finally:
                self._lock.release()

    def _migrate(self, connection: Connection) -> None:
        if connection.dialect.name == "postgresql":
            # Servers that start at once on an empty database take turns; in SQLite they do anyway.
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
        config.attributes["connection"] = connection
        at = MigrationContext.configure(connection).get_current_revision()
        known = {one.revision for one in ScriptDirectory.from_config(config).walk_revisions()}
        if at is not None and at not in known:
            raise StoreError(
                f"store {self._shown()} has schema revision {at}, this server reads up to "
                f"{max(known)}; start the version that wrote it, or choose another store"
            )
        if at is None and sa.inspect(connection).has_table("streams"):
            command.stamp(config, _BEFORE_ALEMBIC)
        command.upgrade(config, "head")

    def _shown(self) -> str:
        # PostgreSQL takes a password as a field of the query too.
        return self._url.set(query={}).render_as_string(hide_password=True)


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # its port is no number: part of a password, perhaps
        raise StoreError(
            "store.url is not a database URL; expected sqlite:///FILE or postgresql://..."
        ) from None
    if parsed.drivername == "postgresql":
        # SQLAlchemy's own choice of a driver differs between its versions.
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise StoreError(
            f"store.url names the database {parsed.get_backend_name()!r}; "
            "expected sqlite:///FILE or postgresql://..."
        )
    return parsed


def _engine(url: URL) -> Engine:
    try:
        if url.get_backend_name() != "sqlite":
            # Pre-ping: a database that restarted must not cost a stream its update.
            return sa.create_engine(
                url.update_query_dict({**_PATIENCE, **url.query}),
                hide_parameters=True,
                pool_pre_ping=True,
            )
        in_memory = url.database in (None, "", ":memory:")
        if not in_memory:
            _make_private(Path(str(url.database)))
        # One connection: the lock serialises its use, and memory lives as long as it.
        engine = sa.create_engine(
            url,
            hide_parameters=True,  # they hold credentials, which no error may show
            poolclass=StaticPool,
            connect_args={"check_same_thread": False, "timeout": 5},
        )
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        raise StoreError(
            f"store.url needs a database driver that is not installed ({error}); "
            "install it (psycopg for PostgreSQL) or choose sqlite:///FILE"
        ) from None
    except (ArgumentError, ValueError, TypeError):
        raise StoreError(
            f"store.url has parts that {url.get_backend_name()} does not take; "
            "expected sqlite:///FILE or postgresql://..."
        ) from None
    sa.event.listen(engine, "connect", _set_up_sqlite)
    sa.event.listen(engine, "begin", _begin)
    return engine


def _make_private(path: Path) -> None:
    # Made here and not by SQLite, which would follow the umask; its log and shared
    # memory take the file's mode.
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
    except OSError as error:
        raise StoreError(
            f"store file {path} cannot be written ({error.strerror}); "
            "choose another with --set store.url=sqlite:///FILE"
        ) from None


def _set_up_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # Python's module would begin no transaction before a change of the schema: a kill in
    # the middle of a migration would leave half of it.
    connection.isolation_level = None
    cursor = connection.cursor()
    # A client that was told of an alert must find it after a power cut too.
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _cause(error: SQLAlchemyError) -> str:
    # The driver's own words: SQLAlchemy's add the statement and a link.
    if isinstance(error, DBAPIError) and error.orig is not None:
        return str(error.orig).splitlines()[0]
    return type(error).__name__
