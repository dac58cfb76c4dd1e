"""The values that live ingest works by."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from server.evidence.rules import EvidenceRules
from server.ingest.access import AccessPolicy
from server.logs import LogFormat

HEARTBEAT_SECONDS = 0.5
"""A worker that is well says so as often."""

MAX_PIXELS = 7680 * 4320
"""The largest picture that tests have tried, 8K."""


MOST_WORKERS = 64


def decode_processes(cores: float) -> int:
    """Decode processes for so many cores: one each, for several decoders in one process
    wait for one another; two at least, so that a decoder that crashes spares half of the streams.
    """
    return min(MOST_WORKERS, max(2, round(cores)))


def decoders_at_once(cores: float, workers: int) -> int:
    """Threads of each process that decode at a time: its part of the cores, rounded up.

    One more would let a process whose cameras have larger pictures borrow from another, and
    costs every full machine a thirtieth of its cores in changes of thread.
    """
    return max(1, math.ceil(cores / workers))


@dataclass(frozen=True, slots=True)
class IngestSettings:
    """Values of the pool, its workers and their streams.

    Attributes:
        workers: decode processes, 1 to 64.
        decoding_at_once: threads of each that decode at a time, at least 1.
        open_timeout_seconds: a camera that has not answered by then has timed out.
        read_timeout_seconds: a connected source without a frame for so long is stale.
        backoff_first_seconds: the longest wait before the first retry.
        backoff_max_seconds: the longest wait before any retry.
        stable_seconds: frames for so long set the waits back to the first.
        hang_seconds: a worker without a heartbeat for so long is killed.
        max_pixels: of a pushed frame; a larger one is refused before it is decoded.
        worker_memory_mb: a worker that holds more, resident or swapped out, in 10^6 bytes,
            is replaced.
        access: which sources may be opened.
        evidence: what is kept of the pictures around an alert; nothing by default.
        log_format: how workers write to standard error.
    """

    workers: int = 2
    decoding_at_once: int = 1
    open_timeout_seconds: float = 5.0
    read_timeout_seconds: float = 5.0
    backoff_first_seconds: float = 1.0
    backoff_max_seconds: float = 30.0
    stable_seconds: float = 60.0
    hang_seconds: float = 2.5
    max_pixels: int = MAX_PIXELS
    worker_memory_mb: int = 2048
    access: AccessPolicy = field(default_factory=AccessPolicy)
    evidence: EvidenceRules = field(default_factory=EvidenceRules)
    log_format: LogFormat = "plain"

    def __post_init__(self) -> None:
        if not 1 <= self.workers <= 64:
            raise ValueError(f"workers ({self.workers}) must be 1 to 64 decode processes")
        if self.decoding_at_once < 1:
            raise ValueError(f"decoding_at_once ({self.decoding_at_once}) must be at least 1")
        if not 256 <= self.max_pixels <= 2**30:
            raise ValueError(f"max_pixels ({self.max_pixels}) must be 256 to {2**30}")
        for name in ("open_timeout", "read_timeout", "backoff_first", "stable", "hang"):
            seconds = getattr(self, f"{name}_seconds")
            if not 0 < seconds <= 3600:
                raise ValueError(f"{name}_seconds ({seconds}) must be over 0 and at most 3600")
        if self.hang_seconds < 2 * HEARTBEAT_SECONDS:
            raise ValueError(
                f"hang_seconds ({self.hang_seconds}) must be at least two heartbeats, "
                f"{2 * HEARTBEAT_SECONDS:g} s"
            )
        if self.worker_memory_mb < 1:
            raise ValueError(f"worker_memory_mb ({self.worker_memory_mb}) must be at least 1")
        if not self.backoff_first_seconds <= self.backoff_max_seconds <= 3600:
            raise ValueError(
                f"backoff_max_seconds ({self.backoff_max_seconds}) must be at least "
                f"backoff_first_seconds ({self.backoff_first_seconds}) and at most 3600"
            )
