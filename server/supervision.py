"""The values that the supervisor works by."""

from __future__ import annotations

from dataclasses import dataclass, field

from server.alerts import AlertPolicy
from server.batcher import BatchSettings
from server.history import HistoryLimits
from server.ingest.access import AccessPolicy
from server.push import PushLimits
from server.streams import StreamConfig


@dataclass(frozen=True, slots=True)
class SupervisorSettings:
    """Values of the supervisor.

    Attributes:
        batch: how windows are joined.
        close_ratio: default close threshold as a share of the open threshold.
        min_duration_seconds: that an event must last to become an alert.
        max_streams: at most so many at a time.
        access: which sources may be opened.
        push: what clients that push video may do.
        history: what is kept of the scores.
    """

    batch: BatchSettings
    close_ratio: float
    min_duration_seconds: float
    max_streams: int
    access: AccessPolicy
    push: PushLimits
    history: HistoryLimits = field(default_factory=HistoryLimits)

    def alert_policy(self, config: StreamConfig, bundle_threshold: float) -> AlertPolicy:
        """How a stream's scores become alerts; the bundle's threshold stands in for its own."""
        opens = config.open_threshold
        if opens is None:
            opens = bundle_threshold
        return AlertPolicy(opens, self.close_ratio * opens, self.min_duration_seconds)
