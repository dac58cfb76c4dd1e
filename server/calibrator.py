"""Keeps the streams' calibrations true: learns them, remembers them, tells when they age.

A calibration belongs to a bundle. Where another one is served, a threshold that was
calibrated is not used: the bundle's own holds, which the proposal says, and the stored
one comes back with its bundle. Nothing is ever calibrated again by itself.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from server.alerts import AlertPolicy
from server.calibrate import Question, calibrate
from server.calibration import Calibration, CalibrationAsk, CalibrationError
from server.drift import proposal, stability_index
from server.history import ScoreHistory
from server.logs import about
from server.opening import EventCounter
from server.series import ScoreSeries
from server.store.calibrations import CalibrationStore
from server.store.database import Database, StoreError
from server.streams import StreamConfig
from server.supervision import SupervisorSettings
from server.telemetry import Telemetry
from server.views import ModelInfo

logger = logging.getLogger(__name__)

_DAY_SECONDS = 86_400.0


class Calibrator:
    """All that is known of the streams' scores beyond the newest. Safe from any thread.

    Args:
        database: holds the past and the calibrations.
        model: what is served.
        settings: how streams make alerts, and what is kept.
        telemetry: where lost history is counted.
        streams: the stored streams as they are now.

    Attributes:
        history: the past; tell it of every score of a stored stream.
        tell_drift: set it to what takes a stream's id and its drift.
    """

    def __init__(
        self,
        database: Database,
        model: ModelInfo,
        settings: SupervisorSettings,
        telemetry: Telemetry,
        streams: Callable[[], Sequence[StreamConfig]],
    ) -> None:
        self.history = ScoreHistory(
            database, model.bundle_id, settings.history, self.check, telemetry.history_dropped
        )
        self.tell_drift: Callable[[str, float], None] = lambda _stream_id, _drift: None
        self._store = CalibrationStore(database)
        self._model = model
        self._settings = settings
        self._streams = streams
        self._found: dict[str, Calibration] = {}
        self._lock = threading.Lock()

    def start(self) -> None:
        """Take up what is stored, and keep history from now on.

        Raises:
            StoreError: the store cannot be used.
        """
        self.history.start()
        found = self._store.load()
        with self._lock:
            self._found = found
        for stream_id, one in found.items():
            self._judge(stream_id, one, None, None)

    def in_service(self, config: StreamConfig) -> StreamConfig:
        """A stored stream as it runs: without a threshold that another bundle's scores gave."""
        found = self._found.get(config.stream_id)
        if found is None or found.bundle_id == self._model.bundle_id:
            return config
        if config.open_threshold != found.open_threshold:
            return config  # a person chose it since
        return replace(config, open_threshold=None)

    def learn(self, config: StreamConfig, ask: CalibrationAsk) -> Calibration:
        """Answer a client; takes up to seconds and changes nothing.

        Raises:
            CalibrationError: the footage is too short, or another bundle's.
            StoreError: the past cannot be read.
        """
        question = Question(
            self._model.bundle_id,
            self._policy_at(config),
            ask.false_alarms_per_day,
            time.time(),
            lowest_threshold=config.alerts.close_threshold or 0.0,
        )
        return calibrate(self._footage(config.stream_id, ask), question)

    def keep(self, stream_id: str, found: Calibration) -> None:
        """Remember a calibration that a stream goes by from now on.

        Raises:
            StoreError: it could not be stored.
        """
        kept = replace(found, curve=())
        self._store.save(stream_id, kept)
        with self._lock:
            self._found[stream_id] = kept

    def shown(self, config: StreamConfig) -> Calibration | None:
        """A stream's newest calibration, as things stand."""
        found = self._found.get(config.stream_id)
        return None if found is None else replace(found, applied=self._applies(config, found))

    def forget(self, stream_id: str) -> None:
        """A stream is gone; call it once no more scores of it come."""
        with self._lock:
            self._found.pop(stream_id, None)
        try:
            self.history.forget(stream_id)
        except StoreError as error:  # the next start deletes what is left
            logger.warning("past not deleted for now: %s", error, extra=about(stream_id))

    def check(self) -> None:
        """Hold the last day's scores against each calibration."""
        for config in self._streams():
            found = self._found.get(config.stream_id)
            if found is None or found.bundle_id != self._model.bundle_id:
                continue
            try:
                day = self.history.read(config.stream_id, _DAY_SECONDS)
            except StoreError:
                return  # the history has said so
            drift = stability_index(found.reference, day.histogram().tolist())
            if drift is not None:
                self.tell_drift(config.stream_id, drift)
            opened = self._opened(config, found, day) if self._applies(config, found) else None
            self._judge(config.stream_id, found, drift, opened)

    def _footage(self, stream_id: str, ask: CalibrationAsk) -> ScoreSeries:
        if ask.recorded is None:
            return self.history.read(stream_id, ask.past_seconds)
        if ask.recorded.bundle_id != self._model.bundle_id:
            raise CalibrationError(
                f"recorded.bundle_id ({ask.recorded.bundle_id[:12]}) must be the bundle that is "
                f"served ({self._model.bundle_id[:12]}); score the footage with that one"
            )
        return ask.recorded.series

    def _policy_at(self, config: StreamConfig) -> Callable[[float], AlertPolicy]:
        def policy_at(threshold: float) -> AlertPolicy:
            at = replace(config, open_threshold=threshold)
            return self._settings.alert_policy(at, self._model.threshold)

        return policy_at

    def _applies(self, config: StreamConfig, found: Calibration) -> bool:
        return (
            found.bundle_id == self._model.bundle_id
            and config.open_threshold == found.open_threshold
        )

    def _opened(
        self, config: StreamConfig, found: Calibration, day: ScoreSeries
    ) -> tuple[int, float]:
        opened = EventCounter(day, self._policy_at(config)).at(found.open_threshold)
        return opened.events, float(day.watched_seconds().sum()) / _DAY_SECONDS

    def _judge(
        self,
        stream_id: str,
        found: Calibration,
        drift: float | None,
        opened: tuple[int, float] | None,
    ) -> None:
        proposed = proposal(found, self._model.bundle_id, drift, opened)
        with self._lock:
            if self._found.get(stream_id) is not found:
                return  # calibrated anew or deleted meanwhile
            self._found[stream_id] = replace(found, drift=drift, proposal=proposed)
        if proposed and not found.proposal:
            logger.warning("%s", proposed, extra=about(stream_id))
