"""Streams at rest, with the promise that no sequence is ever given out twice."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import sqlalchemy as sa
from pydantic import TypeAdapter
from sqlalchemy.engine import Connection

from server.logs import about
from server.sampling import read_sampling, sampling_text
from server.store.database import Database, StoreError
from server.store.tables import RETIRED, STREAMS
from server.streams import Mode, SourceUrl, StreamConfig, Transport
from server.tuning import AlertTuning, EvidenceMode, Mask

_logger = logging.getLogger(__name__)

_TUNING = TypeAdapter(AlertTuning)
_MASKS = TypeAdapter(tuple[Mask, ...])


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


class StreamStore:
    """The streams of one server, in its database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def load(self) -> list[StoredStream]:
        """All streams, ordered by id; one that this version cannot read is logged and left out."""
        with self.database.transaction() as connection:
            rows = connection.execute(sa.select(STREAMS).order_by(STREAMS.c.stream_id)).all()
        streams = []
        for row in rows:
            try:
                streams.append(_stored(row))
            except ValueError as error:  # another version's, or changed by hand
                _logger.error(
                    "left out (%s); correct or delete its row in the store",
                    error,
                    extra=about(row.stream_id),
                )
        return streams

    def save(self, config: StreamConfig, created_seconds: float) -> None:
        """Add a stream; its sequence begins at 0, or where one of that id that is gone ended.

        Raises:
            StoreError: the id is there already, or nothing can be written.
        """
        with self.database.transaction() as connection:
            begins = sa.select(RETIRED.c.next_sequence).where(
                RETIRED.c.stream_id == config.stream_id
            )
            values = {
                "next_sequence": connection.execute(begins).scalar_one_or_none() or 0,
                "created_seconds": created_seconds,
                **_columns(config),
            }
            connection.execute(sa.insert(STREAMS).values(values))

    def update(self, config: StreamConfig) -> None:
        """Replace what was asked for; sequence and creation stay."""
        self._change(config.stream_id, sa.update(STREAMS).values(_columns(config)))

    def reserve(self, stream_id: str, next_sequence: int) -> None:
        """Promise that no sequence below `next_sequence` is given out after a restart.

        A lower value than the stored one changes nothing.
        """
        # In SQL, not read and written back: two callers must not undo each other.
        raised = sa.case(
            (STREAMS.c.next_sequence < next_sequence, next_sequence),
            else_=STREAMS.c.next_sequence,
        )
        self._change(stream_id, sa.update(STREAMS).values(next_sequence=raised))

    def settle(self, stream_id: str, next_sequence: int) -> None:
        """Give back what was reserved and not used: the server stops in good order."""
        self._change(stream_id, sa.update(STREAMS).values(next_sequence=next_sequence))

    def delete(self, stream_id: str) -> None:
        """Forget a stream but for its sequence; one that is not there is forgotten already."""
        mine = STREAMS.c.stream_id == stream_id
        with self.database.transaction() as connection:
            found = sa.select(STREAMS.c.next_sequence).where(mine)
            next_sequence = connection.execute(found).scalar_one_or_none()
            if next_sequence is not None:
                connection.execute(sa.delete(STREAMS).where(mine))
                retire_sequence(connection, stream_id, next_sequence)

    def retire(self, stream_id: str, next_sequence: int) -> None:
        """Remember where the sequence of a stream ended that was never stored."""
        with self.database.transaction() as connection:
            retire_sequence(connection, stream_id, next_sequence)

    def begins_at(self, stream_id: str) -> int:
        """Lowest sequence that no stream of that id, now gone, has given to a window."""
        mine = RETIRED.c.stream_id == stream_id
        with self.database.transaction() as connection:
            found = connection.execute(sa.select(RETIRED.c.next_sequence).where(mine))
            return found.scalar_one_or_none() or 0

    def _change(self, stream_id: str, statement: sa.Update) -> None:
        with self.database.transaction() as connection:
            found = connection.execute(statement.where(STREAMS.c.stream_id == stream_id))
            if found.rowcount != 1:
                raise StoreError(f"the store has no stream {stream_id}")


def _columns(config: StreamConfig) -> dict[str, object]:
    return {
        "stream_id": config.stream_id,
        "url": config.url.reveal(),
        "mode": config.mode.value,
        "transport": config.transport.value,
        "open_threshold": config.open_threshold,
        "alerting": _TUNING.dump_json(config.alerts).decode(),
        "evidence_mode": None if config.evidence_mode is None else config.evidence_mode.value,
        "masks": _MASKS.dump_json(config.masks).decode(),
        "sampling": sampling_text(config.sampling),
        "sampling_when_full": (
            None if config.sampling_when_full is None else sampling_text(config.sampling_when_full)
        ),
        "priority": config.priority,
    }


def retire_sequence(connection: Connection, stream_id: str, next_sequence: int) -> None:
    """Remember that no window of a stream, now or once it is gone, gets a lower sequence."""
    mine = RETIRED.c.stream_id == stream_id
    before = connection.execute(sa.select(RETIRED.c.next_sequence).where(mine))
    # Alerts are known by stream and sequence: an id that comes back must not repeat one.
    next_sequence = max(next_sequence, before.scalar_one_or_none() or 0)
    connection.execute(sa.delete(RETIRED).where(mine))
    row = {"stream_id": stream_id, "next_sequence": next_sequence}
    connection.execute(sa.insert(RETIRED).values(row))


def _stored(row: sa.Row[tuple[object, ...]]) -> StoredStream:
    config = StreamConfig(
        stream_id=row.stream_id,
        url=SourceUrl(row.url),
        mode=Mode(row.mode),
        transport=Transport(row.transport),
        open_threshold=row.open_threshold,
        alerts=_TUNING.validate_json(row.alerting),
        evidence_mode=None if row.evidence_mode is None else EvidenceMode(row.evidence_mode),
        masks=_MASKS.validate_json(row.masks),
        sampling=read_sampling(row.sampling),
        sampling_when_full=(
            None if row.sampling_when_full is None else read_sampling(row.sampling_when_full)
        ),
        priority=row.priority,
    )
    return StoredStream(config, row.next_sequence, row.created_seconds)
