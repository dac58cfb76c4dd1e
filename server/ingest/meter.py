"""Counts of one stream, taken by another thread once a second."""

from __future__ import annotations

import threading
import time

from server.ingest.events import FrameStats

_FRAMES_A_LOOK = 8
"""Between two looks at the thread's processor time: each is a system call."""


class Meter:
    """What a stream's thread did: per session, and since the last `take`."""

    def __init__(self, stream_id: str) -> None:
        self._stream_id = stream_id
        self._lock = threading.Lock()
        self._frames = self._windows = 0
        self._decode_seconds = self._preprocess_seconds = 0.0
        self._last_frame_seconds = 0.0
        self._cpu_seconds = self._cpu_taken_seconds = 0.0
        self.begin_session()

    def begin_session(self) -> None:
        """A source is about to be opened."""
        self.session_frames = 0
        self._first_arrival_seconds: float | None = None
        self._last_arrival_seconds: float | None = None
        self._undecoded_seconds: float | None = None

    @property
    def session_seconds(self) -> float:
        """How long this session's frames have flowed."""
        if self._first_arrival_seconds is None or self._last_arrival_seconds is None:
            return 0.0
        return self._last_arrival_seconds - self._first_arrival_seconds

    def count_packet(self, arrival_seconds: float, decode_seconds: float) -> float:
        """A packet that arrived then was decoded.

        Returns:
            Seconds for which packets have come by now without a frame; a pause of the
            source is no part of them.
        """
        since = self._undecoded_seconds
        if since is None:
            since = self._undecoded_seconds = arrival_seconds
        self.count_decoding(decode_seconds)
        return arrival_seconds - since

    def count_decoding(self, seconds: float) -> None:
        """Time was spent in the decoder."""
        with self._lock:
            self._decode_seconds += seconds

    def count_preprocessing(self, seconds: float) -> None:
        """A picture was rendered."""
        with self._lock:
            self._preprocess_seconds += seconds

    def count_frame(self, arrival_seconds: float) -> None:
        """A frame was decoded that had arrived at this monotonic time; on the stream's thread."""
        if self._first_arrival_seconds is None:
            self._first_arrival_seconds = arrival_seconds
        self._last_arrival_seconds = arrival_seconds
        self._undecoded_seconds = None
        self.session_frames += 1
        with self._lock:
            self._frames += 1
            self._last_frame_seconds = time.time()
            if self._frames % _FRAMES_A_LOOK == 1:
                self._cpu_seconds = time.thread_time()

    def count_window(self) -> None:
        """A window was closed."""
        with self._lock:
            self._windows += 1

    def take(self) -> FrameStats | None:
        """Counts since the last call; None where no frame came."""
        with self._lock:
            if not self._frames:
                return None
            stats = FrameStats(
                stream_id=self._stream_id,
                frames=self._frames,
                windows=self._windows,
                last_frame_seconds=self._last_frame_seconds,
                decode_seconds=self._decode_seconds,
                preprocess_seconds=self._preprocess_seconds,
                cpu_seconds=self._cpu_seconds - self._cpu_taken_seconds,
            )
            self._frames = self._windows = 0
            self._decode_seconds = self._preprocess_seconds = 0.0
            self._cpu_taken_seconds = self._cpu_seconds
            return stats
