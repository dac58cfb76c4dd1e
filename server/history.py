"""The past of every stored stream's scores: taken as they come, written by its own thread.

Taking a score never waits for the store. What is not written yet is bounded: where the
store fails, the newest scores are kept for a while, then dropped and counted, and
scoring goes on. A kill loses what came after the last flush.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from server.alerts import ScoredSpan
from server.series import ScoreSeries
from server.store.database import Database, StoreError
from server.store.history import LONGEST_PAUSE_SECONDS, HistoryStore, PackedChunk, pack

logger = logging.getLogger(__name__)

CHUNK_WINDOWS = 2048
"""A chunk is written anew with every flush until it has so many."""

FLUSH_WINDOWS = 4096
"""So many waiting windows of all streams call for a flush at once: footage at full speed."""

MAX_WAITING_WINDOWS = 65_536
"""Windows of all streams that wait for the store; later ones are dropped."""

TRIM_SECONDS = 3600.0
_DAY_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class HistoryLimits:
    """What is kept of the past, and how often it is looked after.

    Attributes:
        days: scores are kept for so long.
        max_bytes: of one stream, as they are stored.
        flush_seconds: scores are written at least so often.
        check_seconds: scores are held against their calibration so often.
    """

    days: float = 14.0
    max_bytes: int = 8 * 1024 * 1024
    flush_seconds: float = 60.0
    check_seconds: float = 300.0


@dataclass(slots=True, eq=False)
class _Chunk:
    """The newest chunk of one stream, as the store has it or will have it."""

    stream_id: str
    spans: list[ScoredSpan] = field(default_factory=list)
    taken_seconds: list[float] = field(default_factory=list)
    chunk_id: int | None = None

    def takes(self, span: ScoredSpan) -> bool:
        if not self.spans:
            return True
        pause_seconds = span.start_seconds - self.spans[-1].end_seconds
        return len(self.spans) < CHUNK_WINDOWS and 0 <= pause_seconds <= LONGEST_PAUSE_SECONDS

    def packed(self, bundle_id: str) -> PackedChunk:
        return PackedChunk(
            self.chunk_id,
            self.stream_id,
            bundle_id,
            self.taken_seconds[0],
            self.taken_seconds[-1],
            pack(ScoreSeries.of(self.spans)),
        )


class ScoreHistory:
    """Takes scores of one bundle from any thread, and reads them back.

    Args:
        database: where they go.
        bundle_id: the detector that makes them.
        limits: what is kept.
        check: called every `limits.check_seconds` on this history's thread.
        count_dropped: called for each window that the store could not take.
    """

    def __init__(
        self,
        database: Database,
        bundle_id: str,
        limits: HistoryLimits,
        check: Callable[[], None] = lambda: None,
        count_dropped: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = HistoryStore(database)
        self._bundle_id = bundle_id
        self._limits = limits
        self._check = check
        self._count_dropped = count_dropped
        self._dropped = 0  # since the store failed
        self._waiting: list[tuple[str, ScoredSpan, float]] = []
        self._chunks: dict[str, _Chunk] = {}
        self._unwritten: dict[_Chunk, None] = {}  # in order
        self._lock = threading.Lock()  # of `_waiting`; held for moments only
        self._writing = threading.Lock()  # of `_chunks` and the store's rows
        self._wake = threading.Event()
        self._stopping = False
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="score history", daemon=True)

    def start(self) -> None:
        """Delete what has outlived its stream or its time, and begin to write.

        Raises:
            StoreError: the store cannot be used.
        """
        self._store.forget_strays()
        self._trim()
        self._thread.start()

    def stop(self) -> None:
        """Write what is left."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def add(self, stream_id: str, span: ScoredSpan) -> None:
        """Take one window; never waits for the store."""
        with self._lock:
            if len(self._waiting) >= MAX_WAITING_WINDOWS:
                self._dropped += 1
                self._count_dropped()
                return
            self._waiting.append((stream_id, span, time.time()))
            full = len(self._waiting) % FLUSH_WINDOWS == 0
        if full:
            self._wake.set()

    def read(self, stream_id: str, past_seconds: float | None) -> ScoreSeries:
        """Scores of this bundle up to now; all that is kept where no past is given.

        Raises:
            StoreError: the store failed.
        """
        self.flush()
        since_seconds = 0.0 if past_seconds is None else time.time() - past_seconds
        return self._store.read(stream_id, self._bundle_id, since_seconds)

    def forget(self, stream_id: str) -> None:
        """Delete a stream's past; call it once no more scores of it come.

        Raises:
            StoreError: the store failed; the next start deletes what is left.
        """
        with self._writing:
            with self._lock:
                self._waiting = [entry for entry in self._waiting if entry[0] != stream_id]
            self._chunks.pop(stream_id, None)
            self._unwritten = {c: None for c in self._unwritten if c.stream_id != stream_id}
            self._store.forget(stream_id)

    def flush(self) -> None:
        """Write what waits; what the store does not take waits for the next time."""
        with self._writing:
            try:
                self._write()
            except StoreError as error:
                if not self._failing:
                    logger.warning("scores are not kept for now: %s", error)
                self._failing = True
            else:
                if self._failing:
                    logger.info("scores are kept again; %d windows were lost", self._dropped)
                    self._dropped = 0
                self._failing = False

    def _run(self) -> None:
        check_seconds = trim_seconds = time.monotonic()
        while not self._stopping:
            self._wake.wait(min(self._limits.flush_seconds, self._limits.check_seconds))
            self._wake.clear()
            self.flush()
            now_seconds = time.monotonic()
            if now_seconds >= check_seconds + self._limits.check_seconds:
                check_seconds = now_seconds
                self._check()
            if now_seconds >= trim_seconds + TRIM_SECONDS:
                trim_seconds = now_seconds
                self._try_to_trim()
        self.flush()

    def _write(self) -> None:
        # First what failed before: until that is written, no more is taken over.
        self._write_chunks()
        while True:
            with self._lock:
                taken, self._waiting = (
                    self._waiting[:FLUSH_WINDOWS],
                    self._waiting[FLUSH_WINDOWS:],
                )
            if not taken:
                return
            for entry in taken:
                self._place(*entry)
            self._write_chunks()

    def _place(self, stream_id: str, span: ScoredSpan, now_seconds: float) -> None:
        chunk = self._chunks.get(stream_id)
        if chunk is None or not chunk.takes(span):
            chunk = self._chunks[stream_id] = _Chunk(stream_id)
        chunk.spans.append(span)
        chunk.taken_seconds.append(now_seconds)
        self._unwritten[chunk] = None

    def _write_chunks(self) -> None:
        if not self._unwritten:
            return
        packed = [chunk.packed(self._bundle_id) for chunk in self._unwritten]
        for chunk, chunk_id in zip(self._unwritten, self._store.write(packed), strict=True):
            chunk.chunk_id = chunk_id
        self._unwritten.clear()

    def _trim(self) -> None:
        oldest_seconds = time.time() - self._limits.days * _DAY_SECONDS
        self._store.trim(oldest_seconds, self._limits.max_bytes)

    def _try_to_trim(self) -> None:
        try:
            self._trim()
        except StoreError as error:
            logger.warning("old scores are not deleted for now: %s", error)
