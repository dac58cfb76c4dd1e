"""Every metric of the server, in one place, in the parent process.

Names follow Prometheus: seconds, `_total`, bounded labels. A stream's series
appear when it is first told to be up or down, so that a counter starts at zero
and not at its first event, and go with the stream.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from server.alerts import Alert, Suppression
from server.capacity import CapacitySummary
from server.engine.pace import Pace
from server.ingest.events import WorkerLoss
from server.views import ModelInfo

# Close together around 0.3 s, the bound that p95 is held to.
_LATENCY_BUCKETS = (0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)
# From a head step (tenths of a millisecond) to an encoder that cannot keep up.
_STAGE_BUCKETS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.02, 0.03, 0.05, 0.1, 0.3, 1.0)
_BATCH_BUCKETS = (1, 2, 3, 4, 6, 8, 12, 16, 32, 64, 128, 256)


@dataclass(frozen=True, slots=True)
class MetricDoc:
    """One metric as its users see it.

    Attributes:
        name: as it stands in queries; a histogram's without `_bucket`, `_sum` and `_count`.
        kind: counter, gauge or histogram.
        labels: of every series.
        text: what it counts.
        buckets: upper bounds of a histogram's.
    """

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str
    buckets: tuple[float, ...] = ()


class Telemetry:
    """The server's metrics on a registry of their own. Safe from any thread.

    Callers tell of a stream only between its first `stream_up` and its `forget`.
    """

    def __init__(self) -> None:
        # The time of a series' creation would double their number, and nobody asks for it.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        # Not the global one: two servers of one test process would share it.
        self.registry = CollectorRegistry()
        self.documented: list[MetricDoc] = []
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._make_stream_metrics()
        self._make_server_metrics()
        self._make_alert_metrics()
        self._make_capacity_metrics()

    def stream_up(self, stream_id: str, up: bool) -> None:
        """Whether frames of the stream arrive."""
        self._up.labels(stream_id).set(1 if up else 0)
        # Touching a label makes its series: rate() does not see a first event that creates it.
        for counter in (self._frames, self._scored, self._alerts):
            counter.labels(stream_id)
        for reason in Suppression:
            self._suppressed.labels(stream_id, reason.value)
        self._alerts_open.labels(stream_id)
        self._thinned.labels(stream_id)

    def stream_thinned(self, stream_id: str, thinned: bool) -> None:
        """Whether fewer windows are scored because the server is full."""
        self._thinned.labels(stream_id).set(1 if thinned else 0)

    def frames(self, stream_id: str, count: int, last_frame_seconds: float | None) -> None:
        """Frames decoded since the last call, and UTC of the newest one's arrival."""
        self._frames.labels(stream_id).inc(count)
        if last_frame_seconds is not None:
            self._last_frame.labels(stream_id).set(last_frame_seconds)

    def window_scored(self, stream_id: str, score: float, latency_seconds: float) -> None:
        """One window's score in [0, 1], so long after its last frame's arrival."""
        self._scored.labels(stream_id).inc()
        self._score.labels(stream_id).set(score)
        self._latency.observe(latency_seconds)

    def window_dropped(self, stream_id: str, reason: str) -> None:
        """One window without a score; `reason` is a value of `DropReason`."""
        self._dropped.labels(stream_id, reason).inc()

    def reconnected(self, stream_id: str, reason: str) -> None:
        """The source is opened again; `reason` is a value of `Reason`."""
        self._reconnects.labels(stream_id, reason).inc()

    def alert_changed(self, alert: Alert) -> None:
        """An alert opened or closed; one that is delivered to nobody counts by its reason alone."""
        if alert.suppression is None and alert.is_closed:
            self.alert_closed(alert.stream_id)
        elif alert.suppression is None:
            self.alert_opened(alert.stream_id)
        elif not alert.is_closed:
            self.alert_suppressed(alert.stream_id, alert.suppression.value)

    def alert_opened(self, stream_id: str) -> None:
        """An alert began."""
        self._alerts.labels(stream_id).inc()
        self._alerts_open.labels(stream_id).inc()

    def alert_closed(self, stream_id: str) -> None:
        """An alert ended."""
        self._alerts_open.labels(stream_id).dec()

    def alert_suppressed(self, stream_id: str, reason: str) -> None:
        """An alert began that is delivered to nobody; `reason` is a value of `Suppression`."""
        self._suppressed.labels(stream_id, reason).inc()

    def score_drift(self, stream_id: str, index: float) -> None:
        """How far a stream's scores are from those of its calibration."""
        self._drift.labels(stream_id).set(index)

    def history_dropped(self) -> None:
        """One window's score that the store could not keep for calibrations."""
        self._history_dropped.inc()

    def alerts_waiting(self, count: int) -> None:
        """Changes of alerts that the store has not taken yet."""
        self._alert_backlog.set(count)

    def delivery_sink(self, sink: str) -> None:
        """A receiver that there is: its series begin at zero."""
        for outcome in ("delivered", "failed", "dead"):
            self._deliveries.labels(sink, outcome)
        self.deliveries_waiting(sink, 0, 0.0)

    def delivery(self, sink: str, outcome: str) -> None:
        """One attempt: delivered, failed or dead (given up)."""
        self._deliveries.labels(sink, outcome).inc()

    def deliveries_waiting(self, sink: str, count: int, oldest_seconds: float) -> None:
        """Deliveries that wait for a receiver, and the age of the oldest."""
        self._delivery_backlog.labels(sink).set(count)
        self._delivery_age.labels(sink).set(oldest_seconds)

    def evidence_made(self, outcome: str) -> None:
        """An alert's evidence became ready or failed."""
        self._evidence.labels(outcome).inc()

    def evidence_deleted(self, reason: str, files: int) -> None:
        """Files went because of their age or because there were too many bytes."""
        self._evidence_deleted.labels(reason).inc(files)

    def evidence_kept(self, size_bytes: int, free_bytes: int) -> None:
        """What evidence takes of its disk, and what is left of that disk."""
        self._evidence_bytes.set(size_bytes)
        self._disk_free.set(free_bytes)

    def stage(self, stage: str, seconds: float) -> None:
        """Time of one stage: decode, preprocess, queue, encode, head or publish."""
        self._stage.labels(stage).observe(seconds)

    def batch(self, size: int) -> None:
        """Windows of one run of the encoder."""
        self._batch.observe(size)

    def batch_resized(self, before: int, after: int) -> None:
        """The engine's device was full and its largest batch was halved, or is doubled again."""
        (self._shrinks if after < before else self._growths).inc()

    def engine_pace(self, pace: Pace) -> None:
        """What a window was found to cost at the start."""
        self._window_cores.labels("alone").set(pace.alone.core_seconds)
        self._window_cores.labels("full").set(pace.full.core_seconds)

    def capacity(self, capacity: CapacitySummary) -> None:
        """What all streams take, and what there is."""
        estimate = capacity.streams_estimated
        self._capacity_cores.set(capacity.cores)
        self._capacity_streams.set(math.inf if estimate is None else estimate)
        self._capacity_used.set(capacity.used_ratio)
        self._load_cores.labels("decode").set(capacity.decode_cores)
        self._load_cores.labels("encode").set(capacity.encode_cores)
        self._load_cores.labels("rest").set(capacity.rest_cores)

    def stream_cores(self, stream_id: str, cores: float) -> None:
        """What one stream takes, its part of the engine included."""
        self._stream_cores.labels(stream_id).set(cores)

    def stream_refused(self, reason: str) -> None:
        """No room for a stream: max_streams or capacity."""
        self._refused.labels(reason).inc()

    def worker_lost(self, loss: WorkerLoss) -> None:
        """A decode worker was replaced."""
        self._worker_restarts.labels(loss.value).inc()

    def model(self, info: ModelInfo) -> None:
        """What is served."""
        # A bundle that was swapped out must not stay at 1 beside the new one.
        self._model.clear()
        self._model.labels(info.bundle_id, info.encoder, info.engine, info.precision).set(1)
        self._engine.clear()
        self._engine.labels(info.engine, info.device).set(1)

    def engine_requested(self, engine: str, device: str) -> None:
        """What the settings ask for."""
        self._engine_requested.clear()
        self._engine_requested.labels(engine, device).set(1)

    def forget(self, stream_id: str) -> None:
        """Remove every series of a stream."""
        for metric in self._of_streams:
            metric.remove_by_labels({"stream": stream_id})

    def _make_stream_metrics(self) -> None:
        stream, reasons = ["stream"], ["stream", "reason"]
        self._up = self._gauge("gvvad_stream_up", "1 while frames of the stream arrive.", stream)
        self._last_frame = self._gauge(
            "gvvad_stream_last_frame_timestamp_seconds", "UTC of the newest frame.", stream
        )
        self._score = self._gauge(
            "gvvad_stream_score", "Newest score, 0 to 1 with 1 = anomalous.", stream
        )
        self._frames = self._counter("gvvad_frames_decoded", "Frames decoded.", stream)
        self._scored = self._counter("gvvad_windows_scored", "Windows scored.", stream)
        self._dropped = self._counter(
            "gvvad_windows_dropped",
            "Live windows that were not scored; the reasons thinned and still are no losses.",
            reasons,
        )
        self._thinned = self._gauge(
            "gvvad_stream_thinned",
            "1 while fewer windows are scored because the server has no room for all.",
            stream,
        )
        self._reconnects = self._counter(
            "gvvad_stream_reconnects", "Times the source was opened again.", reasons
        )
        self._alerts = self._counter("gvvad_alerts", "Alerts opened.", stream)
        self._alerts_open = self._gauge("gvvad_alerts_open", "Alerts open now.", stream)
        self._suppressed = self._counter(
            "gvvad_alerts_suppressed", "Alerts that were delivered to nobody.", reasons
        )
        self._drift = self._gauge(
            "gvvad_stream_score_drift",
            "Population stability index of the last day's scores against the calibration's.",
            stream,
        )
        self._stream_cores = self._gauge(
            "gvvad_stream_cores",
            "Cores that the stream takes, its windows' encoding included.",
            stream,
        )
        self._of_streams = (
            self._stream_cores,
            self._up,
            self._last_frame,
            self._score,
            self._frames,
            self._scored,
            self._dropped,
            self._reconnects,
            self._alerts,
            self._alerts_open,
            self._suppressed,
            self._drift,
            self._thinned,
        )

    def _make_server_metrics(self) -> None:
        self._latency = self._histogram(
            "gvvad_window_latency_seconds",
            "From the arrival of a window's last frame to its published score.",
            [],
            _LATENCY_BUCKETS,
        )
        self._stage = self._histogram(
            "gvvad_stage_duration_seconds",
            "Time of one stage of a window's way.",
            ["stage"],
            _STAGE_BUCKETS,
        )
        self._batch = self._histogram(
            "gvvad_batch_size", "Windows of one run of the encoder.", [], _BATCH_BUCKETS
        )
        self._shrinks = self._counter(
            "gvvad_engine_batch_shrinks", "Times the GPU was full and the batch was halved.", []
        )
        self._growths = self._counter(
            "gvvad_engine_batch_growths", "Times a halved batch was doubled again, as a try.", []
        )
        self._history_dropped = self._counter(
            "gvvad_history_windows_dropped", "Scores that the store could not keep.", []
        )
        self._worker_restarts = self._counter(
            "gvvad_decode_worker_restarts", "Decode workers that were replaced.", ["reason"]
        )
        for loss in WorkerLoss:
            self._worker_restarts.labels(loss.value)
        labels = ["bundle", "encoder", "engine", "precision"]
        self._model = self._gauge("gvvad_model_info", "The bundle that is served.", labels)
        self._engine = self._gauge(
            "gvvad_engine_info", "What runs the encoder, and where.", ["engine", "device"]
        )
        self._engine_requested = self._gauge(
            "gvvad_engine_requested_info",
            "What the settings ask for; if gvvad_engine_info says another, that is a fault.",
            ["engine", "device"],
        )
        build = self._gauge("gvvad_build_info", "This project's version.", ["version"])
        build.labels(version("gvvad")).set(1)

    def _make_alert_metrics(self) -> None:
        self._alert_backlog = self._gauge(
            "gvvad_alert_backlog", "Changes of alerts that the store has not taken yet.", []
        )
        sink = ["sink"]
        self._deliveries = self._counter(
            "gvvad_deliveries", "Attempts to deliver a change of an alert.", ["sink", "outcome"]
        )
        self._delivery_backlog = self._gauge(
            "gvvad_delivery_backlog", "Deliveries that wait for their receiver.", sink
        )
        self._delivery_age = self._gauge(
            "gvvad_delivery_oldest_seconds", "Age of the oldest waiting delivery.", sink
        )
        self._evidence = self._counter(
            "gvvad_evidence", "Alerts whose evidence was made or could not be.", ["outcome"]
        )
        self._evidence_deleted = self._counter(
            "gvvad_evidence_deleted", "Evidence files deleted by retention.", ["reason"]
        )
        self._evidence_bytes = self._gauge("gvvad_evidence_bytes", "Size of all evidence.", [])
        self._disk_free = self._gauge(
            "gvvad_evidence_disk_free_bytes", "Room left on the disk that evidence is kept on.", []
        )

    def _make_capacity_metrics(self) -> None:
        self._capacity_cores = self._gauge(
            "gvvad_capacity_cores", "Cores that all streams together may take.", []
        )
        self._load_cores = self._gauge(
            "gvvad_load_cores",
            "Cores that live streams take; new ones as it is expected of them.",
            ["stage"],
        )
        self._capacity_used = self._gauge(
            "gvvad_capacity_used_ratio",
            "Part of the capacity that is taken, of cores or of the engine; over 1 is overload.",
            [],
        )
        self._capacity_streams = self._gauge(
            "gvvad_capacity_streams", "Live streams like today's that would fill the capacity.", []
        )
        self._refused = self._counter(
            "gvvad_streams_refused", "Streams that there was no room for.", ["reason"]
        )
        for reason in ("capacity", "max_streams"):
            self._refused.labels(reason)
        self._window_cores = self._gauge(
            "gvvad_engine_window_core_seconds",
            "Processor time of a window as measured at the start, alone and in a full batch.",
            ["run"],
        )

    def _gauge(self, name: str, text: str, labels: list[str]) -> Gauge:
        self.documented.append(MetricDoc(name, "gauge", tuple(labels), text))
        return Gauge(name, text, labels, registry=self.registry)

    def _counter(self, name: str, text: str, labels: list[str]) -> Counter:
        # prometheus_client adds `_total` to the names of counters.
        self.documented.append(MetricDoc(f"{name}_total", "counter", tuple(labels), text))
        return Counter(name, text, labels, registry=self.registry)

    def _histogram(
        self, name: str, text: str, labels: list[str], buckets: Sequence[float]
    ) -> Histogram:
        doc = MetricDoc(name, "histogram", tuple(labels), text, tuple(buckets))
        self.documented.append(doc)
        return Histogram(name, text, labels, buckets=buckets, registry=self.registry)
