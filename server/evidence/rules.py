"""The values that evidence is kept by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from server.streams import StreamConfig
from server.tuning import EvidenceMode

MB = 1_000_000


@dataclass(frozen=True, slots=True)
class EvidenceRules:
    """What is kept, where, and for how long.

    Attributes:
        directory: where the files go; None keeps nothing on any stream.
        mode: of streams that say nothing themselves.
        pre_roll_seconds: of a clip before the alert.
        post_roll_seconds: of a clip after it.
        max_clip_mb: a clip ends when it has grown so large, in 10^6 bytes.
        max_days: older evidence is deleted.
        max_mb: the oldest is deleted where all of it takes more, in 10^6 bytes.
        min_free_mb: nothing new is kept while the disk has less room, in 10^6 bytes.
    """

    directory: Path | None = None
    mode: EvidenceMode = EvidenceMode.KEEP
    pre_roll_seconds: float = 5.0
    post_roll_seconds: float = 5.0
    max_clip_mb: int = 256
    max_days: float = 30.0
    max_mb: int = 10_000
    min_free_mb: int = 500

    def mode_of(self, config: StreamConfig) -> EvidenceMode:
        """What is kept of a stream's pictures."""
        if self.directory is None:
            return EvidenceMode.NONE
        return self.mode if config.evidence_mode is None else config.evidence_mode
