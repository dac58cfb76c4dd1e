"""The values that the supervisor works by."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace

from server.admission import CapacityRules
from server.alerts import AlertDefaults, AlertPolicy, PolicyError
from server.batcher import BatchSettings
from server.history import HistoryLimits
from server.ingest.access import AccessPolicy
from server.logs import about
from server.push import PushLimits
from server.streams import StreamConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SupervisorSettings:
    """Values of the supervisor.

    Attributes:
        batch: how windows are joined.
        alerts: how scores become alerts where a stream is not tuned.
        max_streams: at most so many at a time.
        access: which sources may be opened.
        push: what clients that push video may do.
        history: what is kept of the scores.
        capacity: what the streams may take; no bound by default.
    """

    batch: BatchSettings
    alerts: AlertDefaults
    max_streams: int
    access: AccessPolicy
    push: PushLimits
    history: HistoryLimits = field(default_factory=HistoryLimits)
    capacity: CapacityRules = field(default_factory=CapacityRules)

    def alert_policy(self, config: StreamConfig, bundle_threshold: float) -> AlertPolicy:
        """How a stream's scores become alerts; the bundle's threshold stands in for its own.

        Raises:
            PolicyError: the stream's close threshold lies above the open one.
        """
        opens = config.open_threshold
        if opens is None:
            opens = bundle_threshold
        return self.alerts.policy(opens, config.alerts)

    def usable_policy(self, config: StreamConfig, bundle_threshold: float) -> AlertPolicy:
        """The same for a stream that was stored under another bundle or other settings.

        A close threshold that lies above today's open threshold is told to the log and
        gives way to the server's default: such a stream must not keep a server from starting.
        """
        try:
            return self.alert_policy(config, bundle_threshold)
        except PolicyError as error:
            logger.warning("%s; the default stands in", error, extra=about(config.stream_id))
        tuning = replace(config.alerts, close_threshold=None)
        return self.alert_policy(replace(config, alerts=tuning), bundle_threshold)
