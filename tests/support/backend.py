"""A backend of the gRPC services that keeps streams in memory and decodes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

from server.alerts import Alert, AlertState, alert_id
from server.calibration import Calibration, CalibrationAsk, CalibrationError
from server.capacity import Capacity, CapacitySummary, Load, Member, StreamCost
from server.delivery_records import Delivery, DeliveryFilter
from server.desk import AlertDesk
from server.evidence.keeper import EvidenceKeeper
from server.evidence.reader import EvidenceReader
from server.evidence.rules import EvidenceRules
from server.hub import Hub
from server.push import PushCalls, PushLimits, PushSession
from server.pushed import PushFormat
from server.scoring import DropReason, WindowScore
from server.store.alerts import AlertLog
from server.store.database import Database
from server.streams import (
    Reason,
    SourceError,
    StreamConfig,
    StreamState,
    StreamStatus,
)
from server.telemetry import Telemetry
from server.views import (
    CapacityError,
    Change,
    ModelInfo,
    StreamExistsError,
    StreamView,
    UnknownStreamError,
)
from server.windows import WindowSpan

MODEL = ModelInfo(
    bundle_id="ab" * 32,
    bundle_name="test",
    encoder="tiny",
    engine="onnxruntime",
    precision="fp32",
    device="cpu",
    threshold=0.6,
    window_seconds=1.28,
    fps=12.5,
    sampled_frames=4,
    height=64,
    width=96,
    feature_dim=8,
)


class MemoryBackend:
    """Streams as views; tests set their status and publish on the hubs."""

    def __init__(self, max_streams: int = 300, capacity: int = 64, max_watchers: int = 8) -> None:
        self.scores: Hub[WindowScore] = Hub(capacity, max_watchers)
        self.database = Database("sqlite://")
        self.desk = AlertDesk(AlertLog(self.database), Telemetry(), max_watchers=max_watchers)
        self.desk.start()
        self.model = MODEL
        self.push_calls = PushCalls(PushLimits())
        self.max_streams = max_streams
        self.views: dict[str, StreamView] = {}
        self.evidence: EvidenceReader = EvidenceKeeper(EvidenceRules(), Telemetry()).reader

    @property
    def capacity(self) -> CapacitySummary:
        members = [
            Member(stream_id, number=number, cost=StreamCost(0.5, Load(0.25, 0.125)))
            for number, stream_id in enumerate(self.views)
        ]
        return Capacity(Load(3.0, 0.75), members, Load(0.25)).summary()

    async def create(self, config: StreamConfig) -> StreamView:
        if config.url.scheme == "file":
            raise SourceError(Reason.ADDRESS_DENIED, f"{config.url} is not allowed here")
        if config.stream_id == "fault":
            raise KeyError("rtsp://joe:secret@cam/ caused this")
        if config.stream_id in self.views:
            raise StreamExistsError(f"stream {config.stream_id} exists")
        if len(self.views) >= self.max_streams:
            raise CapacityError(f"all {self.max_streams} streams are taken")
        status = StreamStatus(StreamState.CONNECTING)
        view = StreamView(config, status, 0, None, created_seconds=1_700_000_000.5)
        self.views[config.stream_id] = view
        return view

    def get(self, stream_id: str) -> StreamView:
        try:
            return self.views[stream_id]
        except KeyError:
            raise UnknownStreamError(f"there is no stream {stream_id}") from None

    def list(self) -> list[StreamView]:
        return list(self.views.values())

    async def update(self, stream_id: str, change: Change) -> StreamView:
        view = self.get(stream_id)
        self.views[stream_id] = replace(view, config=change(view.config))
        return self.views[stream_id]

    def pushing(
        self, stream_id: str | None, temporary_id: str, push: PushFormat
    ) -> AbstractAsyncContextManager[PushSession]:
        raise UnknownStreamError("nothing is decoded here, so nothing can be pushed")

    async def calibrate(self, stream_id: str, ask: CalibrationAsk) -> Calibration:
        self.get(stream_id)
        raise CalibrationError("nothing is scored here, so nothing can be learnt")

    def end_pushes(self, error: Exception) -> None:
        pass

    def close(self) -> None:
        self.desk.stop()
        self.database.close()

    async def delete(self, stream_id: str) -> None:
        self.get(stream_id)
        del self.views[stream_id]
        self.scores.end_stream(stream_id)
        self.desk.end_stream(stream_id)


class NoDeliveries:
    """A server that delivers to nobody."""

    sinks: Sequence[str] = ()

    async def list(
        self, wanted: DeliveryFilter, size: int, after: int | None
    ) -> tuple[list[Delivery], int | None]:
        return [], None

    async def replay(self, ids: Sequence[int], sink: str | None) -> int:
        return 0


def a_score(
    stream_id: str, sequence: int, score: float | None = 0.25, reason: DropReason | None = None
) -> WindowScore:
    span = WindowSpan(
        number=sequence % 10,
        first_frame=sequence * 32,
        end_frame=sequence * 32 + 32,
        start_capture_seconds=1_700_000_000.25 + sequence,
        end_capture_seconds=1_700_000_001.25 + sequence,
        arrival_seconds=50.0 + sequence,
    )
    return WindowScore(stream_id, sequence, span, score, reason, latency_seconds=0.125)


def an_alert(stream_id: str, state: AlertState = AlertState.OPEN, first_sequence: int = 3) -> Alert:
    return Alert(
        alert_id=alert_id(stream_id, MODEL.bundle_id, first_sequence),
        stream_id=stream_id,
        bundle_id=MODEL.bundle_id,
        state=state,
        first_sequence=first_sequence,
        last_sequence=first_sequence + 2,
        start_seconds=1_700_000_000.0 + first_sequence,
        end_seconds=1_700_000_003.5 + first_sequence,
        peak_score=0.875,
        peak_seconds=1_700_000_005.5,
    )
