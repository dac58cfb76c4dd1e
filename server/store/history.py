"""The past of the scores at rest: runs of windows, a few bytes each.

Chunks are known by when the server took their windows, and not by the cameras' clocks,
which may be years off: retention and "the last day" hold for those too.
"""

from __future__ import annotations

import logging
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from server.logs import about
from server.series import ScoreSeries
from server.store.database import Database
from server.store.tables import CALIBRATIONS, SCORE_HISTORY, STREAMS

_logger = logging.getLogger(__name__)

FULL_SCORE = 65535
"""A score is kept as a share of it."""

LONGEST_PAUSE_SECONDS = 60.0
"""Within a chunk; after a longer one, and where the clock went back, another chunk begins."""

_WINDOW = np.dtype([("score", "<u2"), ("pause", "<u2"), ("length", "<u2"), ("marks", "u1")])
_AFTER_GAP, _DROPPED, _STILL = 1, 2, 4

_HEADER = struct.Struct("<Bdd")
"""Version, capture time at which the first window begins, and the length of a tick in seconds."""
_VERSION = 1
_SHORTEST_TICK_SECONDS = 0.001


def pack(series: ScoreSeries) -> bytes:
    """One or more windows, their pauses from 0 s to `LONGEST_PAUSE_SECONDS`."""
    longest = max(float((series.end_seconds - series.start_seconds).max()), LONGEST_PAUSE_SECONDS)
    tick = max(_SHORTEST_TICK_SECONDS, longest / 65000)
    origin = float(series.start_seconds[0])
    # Edges are rounded and not lengths, whose errors would add up.
    starts = np.rint((series.start_seconds - origin) / tick)
    ends = np.maximum(starts, np.rint((series.end_seconds - origin) / tick))
    windows = np.zeros(len(series), _WINDOW)
    dropped = np.isnan(series.scores)
    windows["score"] = np.rint(np.where(dropped, 0, series.scores) * FULL_SCORE)
    windows["pause"][1:] = np.maximum(starts[1:] - ends[:-1], 0)
    windows["length"] = ends - starts
    marks = series.after_gap * _AFTER_GAP + dropped * _DROPPED + series.unmoved * _STILL
    windows["marks"] = marks
    # By column: pauses and lengths hardly ever change.
    columns = b"".join(windows[name].tobytes() for name in _WINDOW.names or ())
    return _HEADER.pack(_VERSION, origin, tick) + zlib.compress(columns)


def unpack(packed: bytes) -> ScoreSeries:
    """The windows that were packed, their times to a tick.

    Raises:
        ValueError: these are no windows, or another version's.
    """
    try:
        version, origin, tick = _HEADER.unpack_from(packed)
        columns = zlib.decompress(packed[_HEADER.size :])
    except (struct.error, zlib.error) as error:
        raise ValueError(f"not a packed run of scores ({error})") from None
    count, rest = divmod(len(columns), _WINDOW.itemsize)
    if version != _VERSION or rest:
        raise ValueError(f"a packed run of scores of version {version}, {len(columns)} bytes")
    windows, offset = {}, 0
    for name in _WINDOW.names or ():
        kind = _WINDOW[name]
        windows[name] = np.frombuffer(columns, kind, count, offset)
        offset += count * kind.itemsize
    pauses, lengths = windows["pause"].astype(np.float64), windows["length"].astype(np.float64)
    ends = np.cumsum(pauses + lengths)
    return ScoreSeries(
        start_seconds=origin + (ends - lengths) * tick,
        end_seconds=origin + ends * tick,
        scores=np.where(windows["marks"] & _DROPPED, np.nan, windows["score"] / FULL_SCORE),
        after_gap=(windows["marks"] & _AFTER_GAP) > 0,
        still=(windows["marks"] & _STILL) > 0,
    )


@dataclass(frozen=True, slots=True)
class PackedChunk:
    """Windows of one stream that follow each other, as they are kept.

    Attributes:
        chunk_id: of the row that it replaces; None adds one.
        stream_id: the stream.
        bundle_id: the detector that scored it.
        first_taken_seconds: UTC at which the server took the first window.
        last_taken_seconds: the same of the last one.
        windows: from `pack`.
    """

    chunk_id: int | None
    stream_id: str
    bundle_id: str
    first_taken_seconds: float
    last_taken_seconds: float
    windows: bytes


class HistoryStore:
    """The past of every stored stream's scores. Every method raises `StoreError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def write(self, chunks: Sequence[PackedChunk]) -> list[int]:
        """Add chunks, or replace those that have grown; all of them or none.

        Returns:
            The id of each.
        """
        with self._database.transaction() as connection:
            return _written(connection, chunks)

    def read(self, stream_id: str, bundle_id: str, since_seconds: float) -> ScoreSeries:
        """What was taken since a UTC time, in order; whole chunks.

        One that cannot be read is logged and left out.
        """
        chunks = SCORE_HISTORY.c
        wanted = (
            sa.select(chunks.chunk_id, chunks.windows)
            .where(chunks.stream_id == stream_id, chunks.bundle_id == bundle_id)
            .where(chunks.end_seconds >= since_seconds)
            .order_by(chunks.chunk_id)
        )
        with self._database.transaction() as connection:
            rows = connection.execute(wanted).all()
        parts = []
        for row in rows:
            try:
                parts.append(unpack(bytes(row.windows)))
            except ValueError as error:  # another version's, or changed by hand
                _logger.error(
                    "chunk %d of its past is left out: %s", row[0], error, extra=about(stream_id)
                )
        return ScoreSeries.joined(parts)

    def trim(self, before_seconds: float, max_bytes: int) -> int:
        """Delete what is older, and of each stream the oldest beyond so many bytes.

        Returns:
            Chunks that went.
        """
        chunks = SCORE_HISTORY.c
        # Summed up in the database, newest first.
        held = sa.func.sum(sa.func.length(chunks.windows)).over(
            partition_by=chunks.stream_id, order_by=chunks.chunk_id.desc()
        )
        sums = sa.select(chunks.chunk_id, held.label("held")).subquery()
        beyond = sa.select(sums.c.chunk_id).where(sums.c.held > max_bytes)
        gone = sa.delete(SCORE_HISTORY).where(
            (chunks.end_seconds < before_seconds) | chunks.chunk_id.in_(beyond)
        )
        with self._database.transaction() as connection:
            return int(connection.execute(gone).rowcount)

    def forget(self, stream_id: str) -> None:
        """Delete a stream's past, and its calibration."""
        with self._database.transaction() as connection:
            for table in (SCORE_HISTORY, CALIBRATIONS):
                connection.execute(sa.delete(table).where(table.c.stream_id == stream_id))

    def forget_strays(self) -> None:
        """Delete what belongs to streams that are gone: the server died as it forgot them."""
        standing = sa.select(STREAMS.c.stream_id)
        with self._database.transaction() as connection:
            for table in (SCORE_HISTORY, CALIBRATIONS):
                connection.execute(sa.delete(table).where(table.c.stream_id.not_in(standing)))


def _written(connection: Connection, chunks: Sequence[PackedChunk]) -> list[int]:
    """In three statements however many there are: all streams' chunks grow at once."""
    mine = SCORE_HISTORY.c.chunk_id
    asked = [chunk.chunk_id for chunk in chunks if chunk.chunk_id is not None]
    # Trimming may have deleted one meanwhile.
    there = set(connection.scalars(sa.select(mine).where(mine.in_(asked)))) if asked else set()
    grown = [{"grown": chunk.chunk_id} | _row(chunk) for chunk in chunks if chunk.chunk_id in there]
    new = [_row(chunk) for chunk in chunks if chunk.chunk_id not in there]
    if grown:
        # Beside the bound key, an execution of many sets what its rows name.
        connection.execute(sa.update(SCORE_HISTORY).where(mine == sa.bindparam("grown")), grown)
    added: Iterator[int] = iter(())
    if new:
        insert = sa.insert(SCORE_HISTORY).returning(mine, sort_by_parameter_order=True)
        added = iter(connection.scalars(insert, new).all())
    return [
        chunk.chunk_id if chunk.chunk_id is not None and chunk.chunk_id in there else next(added)
        for chunk in chunks
    ]


def _row(chunk: PackedChunk) -> dict[str, object]:
    return {
        "stream_id": chunk.stream_id,
        "bundle_id": chunk.bundle_id,
        "start_seconds": chunk.first_taken_seconds,
        "end_seconds": chunk.last_taken_seconds,
        "windows": chunk.windows,
    }
