"""Streams at rest: SQLite by default, PostgreSQL by URL.

The store holds the cameras' credentials, so a SQLite file is readable by its
owner alone and no error shows a value. Calls are short, synchronous and safe
from any thread.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import StaticPool

from server.logs import about
from server.streams import Mode, SourceUrl, StreamConfig, Transport

_logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1

# PostgreSQL has no PRAGMA user_version, so the version is a row of its own.
_METADATA = sa.MetaData()
_SCHEMA = sa.Table("gvvad_schema", _METADATA, sa.Column("version", sa.Integer, nullable=False))
_STREAMS = sa.Table(
    "streams",
    _METADATA,
    sa.Column("stream_id", sa.String(63), primary_key=True),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("mode", sa.String(16), nullable=False),
    sa.Column("transport", sa.String(16), nullable=False),
    sa.Column("open_threshold", sa.Double, nullable=True),
    sa.Column("next_sequence", sa.BigInteger, nullable=False),
    sa.Column("created_seconds", sa.Double, nullable=False),
)


class StoreError(OSError):
    """The store cannot be used; the message says why, without credentials."""


@dataclass(frozen=True, slots=True)
class StoredStream:
    """A stream as it comes back after a restart.

    Attributes:
        config: what was asked for, with its credentials.
        next_sequence: the lowest sequence that was never given to a window.
        created_seconds: UTC time of its creation.
    """

    config: StreamConfig
    next_sequence: int
    created_seconds: float


class Store:
    """The streams of one server.

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
            with self._transaction() as connection:
                _METADATA.create_all(connection)
                self._check_schema(connection)
        except StoreError:
            self._engine.dispose()
            raise

    def load(self) -> list[StoredStream]:
        """All streams, ordered by id; one that this version cannot read is logged and left out."""
        with self._transaction() as connection:
            rows = connection.execute(sa.select(_STREAMS).order_by(_STREAMS.c.stream_id)).all()
        streams = []
        for row in rows:
            try:
                streams.append(_stored(row))
            except ValueError as error:  # another version's, or changed by hand
                _logger.error(
                    "stored stream %s is left out (%s); correct or delete its row in the store",
                    row.stream_id,
                    error,
                    extra=about(row.stream_id),
                )
        return streams

    def save(self, config: StreamConfig, created_seconds: float) -> None:
        """Add a stream, whose sequence begins at 0.

        Raises:
            StoreError: the id is there already, or nothing can be written.
        """
        values = {"next_sequence": 0, "created_seconds": created_seconds, **_columns(config)}
        with self._transaction() as connection:
            connection.execute(sa.insert(_STREAMS).values(values))

    def update(self, config: StreamConfig) -> None:
        """Replace what was asked for; sequence and creation stay."""
        self._change(config.stream_id, sa.update(_STREAMS).values(_columns(config)))

    def reserve(self, stream_id: str, next_sequence: int) -> None:
        """Promise that no sequence below `next_sequence` is given out after a restart.

        A lower value than the stored one changes nothing.
        """
        # In SQL, not read and written back: two callers must not undo each other.
        raised = sa.case(
            (_STREAMS.c.next_sequence < next_sequence, next_sequence),
            else_=_STREAMS.c.next_sequence,
        )
        self._change(stream_id, sa.update(_STREAMS).values(next_sequence=raised))

    def settle(self, stream_id: str, next_sequence: int) -> None:
        """Give back what was reserved and not used: the server stops in good order."""
        self._change(stream_id, sa.update(_STREAMS).values(next_sequence=next_sequence))

    def delete(self, stream_id: str) -> None:
        """Forget a stream; one that is not there is forgotten already."""
        with self._transaction() as connection:
            connection.execute(sa.delete(_STREAMS).where(_STREAMS.c.stream_id == stream_id))

    def close(self) -> None:
        """Let go of the database."""
        with self._lock:
            self._engine.dispose()

    def _change(self, stream_id: str, statement: sa.Update) -> None:
        with self._transaction() as connection:
            found = connection.execute(statement.where(_STREAMS.c.stream_id == stream_id))
            if found.rowcount != 1:
                raise StoreError(f"the store has no stream {stream_id}")

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        try:
            with self._lock, self._engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise StoreError(f"store {self._shown()}: {_cause(error)}") from None

    def _check_schema(self, connection: Connection) -> None:
        version = connection.execute(sa.select(_SCHEMA.c.version)).scalar_one_or_none()
        if version is None:
            connection.execute(sa.insert(_SCHEMA).values(version=SCHEMA_VERSION))
        elif version != SCHEMA_VERSION:
            raise StoreError(
                f"store {self._shown()} has schema version {version}, this server reads "
                f"{SCHEMA_VERSION}; start the version that wrote it, or choose another store"
            )

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
            return sa.create_engine(url, hide_parameters=True, pool_pre_ping=True)
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
    if not in_memory:
        sa.event.listen(engine, "connect", _set_pragmas)
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


def _set_pragmas(connection: object, _record: object) -> None:
    cursor = connection.cursor()  # type: ignore[attr-defined]
    # WAL: a crash loses at most the last transaction, never the file.
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()


def _cause(error: SQLAlchemyError) -> str:
    # The driver's own words: SQLAlchemy's add the statement and a link.
    if isinstance(error, DBAPIError) and error.orig is not None:
        return str(error.orig).splitlines()[0]
    return type(error).__name__


def _columns(config: StreamConfig) -> dict[str, object]:
    return {
        "stream_id": config.stream_id,
        "url": config.url.reveal(),
        "mode": config.mode.value,
        "transport": config.transport.value,
        "open_threshold": config.open_threshold,
    }


def _stored(row: sa.Row[tuple[object, ...]]) -> StoredStream:
    config = StreamConfig(
        stream_id=row.stream_id,
        url=SourceUrl(row.url),
        mode=Mode(row.mode),
        transport=Transport(row.transport),
        open_threshold=row.open_threshold,
    )
    return StoredStream(config, row.next_sequence, row.created_seconds)
