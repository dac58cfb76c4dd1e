"""A client of the server: domain values in, domain values out.

Every call has a deadline except the watches, which go on until they are
cancelled. Safe to use from several threads.
"""

from __future__ import annotations

import builtins
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

import grpc
from google.protobuf.field_mask_pb2 import FieldMask
from gvvad.v1 import (
    alert_pb2,
    alert_pb2_grpc,
    delivery_pb2,
    delivery_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
    score_pb2,
    score_pb2_grpc,
    stream_pb2,
    stream_pb2_grpc,
)

from server.alert_records import AlertFilter, AlertRecord
from server.calibration import Calibration, CalibrationAsk
from server.capacity import CapacitySummary
from server.delivery_records import Delivery, DeliveryFilter
from server.evidence.files import EvidenceKind
from server.pushed import PushCounts, PushedFrame, PushFormat
from server.rpc import alert_messages, delivery_messages, mapping, tuning_messages
from server.rpc.alert_messages import CURSOR_KEY, WatchedAlert
from server.rpc.calibration import calibration_request
from server.rpc.capacity import capacity_summary
from server.rpc.evidence_service import KIND
from server.rpc.mapping import SENTENCE_KEY
from server.rpc.tuning_messages import write_load, write_tuning
from server.sampling import Sampling
from server.scoring import WindowScore
from server.streams import Mode, SourceUrl, StreamConfig, Transport
from server.tuning import AlertTuning, EvidenceMode, Mask, QuietHours
from server.views import ModelInfo, StreamView

_OPTIONS = (
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
    # A watch of a quiet stream notices within forty seconds that its server is gone.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # The server is on this network; a proxy for the web would break loopback.
    ("grpc.enable_http_proxy", 0),
)

CALIBRATION_SECONDS = 120.0
"""Deadline of a calibration: weeks of scores take the server some seconds."""

Request = TypeVar("Request")
Response = TypeVar("Response")
Item = TypeVar("Item")


class ClientError(RuntimeError):
    """The server refused a call or did not answer.

    Attributes:
        sentence: what happened and what to do.
        code: name of the gRPC status code, such as "NOT_FOUND".
    """

    def __init__(self, sentence: str, code: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.code = code


@dataclass(frozen=True, slots=True)
class StreamChange:
    """What an update changes; None keeps what is there.

    Attributes:
        url: the new source.
        mode: who connects to whom.
        transport: of RTP.
        open_threshold: over 0 and at most 1.
        bundle_threshold: go back to the bundle's threshold.
        policy: its close threshold and lengths; its quiet hours and snooze count for nothing.
        default_policy: what `policy` leaves out goes back to the server's default.
        quiet_hours: in place of those that are there; empty takes them away.
        snooze_until_seconds: UTC.
        end_snooze: deliver alerts again.
        evidence_mode: what is kept of the pictures.
        masks: regions that the detector never sees, in place of all there were.
        sampling: which windows are scored.
        sampling_when_full: which ones where the server is full.
        refuse_when_full: none then; the stream is refused.
        priority: 0 to 9, higher first.
    """

    url: SourceUrl | None = None
    mode: Mode | None = None
    transport: Transport | None = None
    open_threshold: float | None = None
    bundle_threshold: bool = False
    policy: AlertTuning = field(default_factory=AlertTuning)
    default_policy: bool = False
    quiet_hours: tuple[QuietHours, ...] | None = None
    snooze_until_seconds: float | None = None
    end_snooze: bool = False
    evidence_mode: EvidenceMode | None = None
    masks: tuple[Mask, ...] | None = None
    sampling: Sampling | None = None
    sampling_when_full: Sampling | None = None
    refuse_when_full: bool = False
    priority: int | None = None


@dataclass(frozen=True, slots=True)
class PushAnswer:
    """One answer to a client that pushes video.

    Attributes:
        score: of a window; None in the last answer, which has the final counts.
        counts: what became of the frames so far.
    """

    score: WindowScore | None
    counts: PushCounts


class _Call(Protocol):
    """A running server-streaming call; a message is of the type that `read` takes."""

    def __next__(self) -> Any: ...

    def cancel(self) -> bool: ...


class Watch(Generic[Item]):
    """A running watch or push: an iterator of `(missed, item)`, ended by `cancel` from any thread.

    Iteration raises `ClientError` when the server ends the watch.

    Attributes:
        cursor: of a watch of alerts, the place where it begins; empty for the others, and
            where the server refused the watch.
    """

    def __init__(
        self,
        call: _Call,
        read: Callable[[Any], tuple[int, Item]],
        address: str,
        cursor: str = "",
    ) -> None:
        self._call = call
        self._read = read
        self._address = address
        self._cancelled = False
        self.cursor = cursor

    def __iter__(self) -> Iterator[tuple[int, Item]]:
        return self

    def __next__(self) -> tuple[int, Item]:
        try:
            return self._read(next(self._call))
        except grpc.RpcError as error:
            if self._cancelled:
                raise StopIteration from None
            raise _client_error(error, self._address) from None

    def cancel(self) -> None:
        """End the watch; iteration stops without an error."""
        self._cancelled = True
        self._call.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cancel()


class Client:
    """One server's API.

    Args:
        address: `host:port`.
        deadline_seconds: of every call that is no watch.
    """

    def __init__(self, address: str, deadline_seconds: float = 10.0) -> None:
        self._address = address
        self._deadline_seconds = deadline_seconds
        self._channel = grpc.insecure_channel(address, options=_OPTIONS)
        self._streams = stream_pb2_grpc.StreamServiceStub(self._channel)
        self._scores = score_pb2_grpc.ScoreServiceStub(self._channel)
        self._alerts = alert_pb2_grpc.AlertServiceStub(self._channel)
        self._deliveries = delivery_pb2_grpc.DeliveryServiceStub(self._channel)
        self._models = model_pb2_grpc.ModelServiceStub(self._channel)

    def create(self, config: StreamConfig) -> StreamView:
        """Register a stream. Raises: ClientError."""
        request = stream_pb2.CreateStreamRequest(
            stream_id=config.stream_id, stream=mapping.config_message(config, reveal=True)
        )
        return mapping.stream_view(self._ask(self._streams.CreateStream, request))

    def get(self, stream_id: str) -> StreamView:
        """One stream. Raises: ClientError."""
        request = stream_pb2.GetStreamRequest(name=mapping.stream_name(stream_id))
        return mapping.stream_view(self._ask(self._streams.GetStream, request))

    def list(self) -> list[StreamView]:
        """All streams, ordered by id. Raises: ClientError."""
        views: list[StreamView] = []
        request = stream_pb2.ListStreamsRequest(page_size=200)
        while True:
            page = self._ask(self._streams.ListStreams, request)
            views += [mapping.stream_view(message) for message in page.streams]
            if not page.next_page_token:
                return views
            request.page_token = page.next_page_token

    def update(self, stream_id: str, change: StreamChange) -> StreamView:
        """Change a stream. Raises: ClientError."""
        message = stream_pb2.Stream(
            name=mapping.stream_name(stream_id),
            url=change.url.reveal() if change.url is not None else "",
            mode=mapping.MODE[change.mode],
            transport=mapping.TRANSPORT[change.transport],
            open_threshold=change.open_threshold,
        )
        write_tuning(message, AlertTuning(), change.evidence_mode, change.masks or ())
        write_load(message, change.sampling, change.sampling_when_full, change.priority)
        # A mask always: without one the server could not tell "unset" from "keep".
        paths = [one.name for one, _ in message.ListFields() if one.name != "name"]
        if change.bundle_threshold and change.open_threshold is None:
            paths.append("open_threshold")
        paths += tuning_messages.write_change(
            message,
            replace(
                change.policy,
                quiet_hours=change.quiet_hours or (),
                snooze_until_seconds=change.snooze_until_seconds,
            ),
        )
        reset = {
            "alert_policy": change.default_policy,
            "quiet_hours": change.quiet_hours == (),
            "snooze_until_time": change.end_snooze,
            "masks": change.masks == (),
            "sampling_when_full": change.refuse_when_full,
        }
        paths += [path for path, given in reset.items() if given]
        request = stream_pb2.UpdateStreamRequest(stream=message, update_mask=FieldMask(paths=paths))
        return mapping.stream_view(self._ask(self._streams.UpdateStream, request))

    def delete(self, stream_id: str) -> None:
        """Stop and forget a stream. Raises: ClientError."""
        request = stream_pb2.DeleteStreamRequest(name=mapping.stream_name(stream_id))
        self._ask(self._streams.DeleteStream, request)

    def calibrate(self, stream_id: str, ask: CalibrationAsk) -> Calibration:
        """Learn a stream's threshold from footage. Raises: ClientError."""
        request = calibration_request(stream_id, ask)
        answer = self._ask(self._streams.CalibrateStream, request, CALIBRATION_SECONDS)
        return tuning_messages.calibration(answer)

    def model(self) -> ModelInfo:
        """What the server scores with. Raises: ClientError."""
        return mapping.model_info(self._ask(self._models.GetModel, model_pb2.GetModelRequest()))

    def capacity(self) -> CapacitySummary:
        """What the streams take and what there is. Raises: ClientError."""
        request = model_pb2.GetCapacityRequest()
        return capacity_summary(self._ask(self._models.GetCapacity, request))

    def watch_scores(self, stream_id: str | None = None) -> Watch[WindowScore]:
        """Scores of one stream or of all, from now on.

        Returns once the server watches, so that nothing after it is missed; an
        error of the call is raised by the first step of the iteration.
        """
        name = mapping.stream_name(stream_id) if stream_id is not None else ""
        call = self._scores.WatchScores(score_pb2.WatchScoresRequest(stream=name))
        call.initial_metadata()  # waits until the server has subscribed us
        return Watch(call, _read_score, self._address)

    def watch_alerts(
        self,
        stream_id: str | None = None,
        cursor: str | None = None,
        *,
        include_suppressed: bool = False,
    ) -> Watch[WatchedAlert]:
        """Changes of alerts of one stream or of all; as `watch_scores`.

        Args:
            stream_id: the stream; None means all.
            cursor: of the last change that was dealt with; None begins with the next one.
            include_suppressed: also alerts that are delivered to nobody else.
        """
        request = alert_pb2.WatchAlertsRequest(
            stream=mapping.stream_name(stream_id) if stream_id is not None else "",
            cursor=cursor or "",
            include_suppressed=include_suppressed,
        )
        call = self._alerts.WatchAlerts(request)
        begins = dict(call.initial_metadata()).get(CURSOR_KEY, "")
        return Watch(call, _read_alert, self._address, str(begins))

    def list_alerts(
        self, wanted: AlertFilter | None = None, most: int | None = None
    ) -> Sequence[AlertRecord]:
        """Alerts, the newest first, without the scores of their windows. Raises: ClientError.

        Args:
            wanted: which; None means all that were delivered.
            most: of them; None means all.
        """
        records: list[AlertRecord] = []
        request = alert_messages.filter_message(wanted or AlertFilter())
        while True:
            request.page_size = 200 if most is None else min(200, most - len(records))
            page = self._ask(self._alerts.ListAlerts, request)
            records += map(alert_messages.alert_record, page.alerts)
            if not page.next_page_token or len(records) == most:
                return records
            request.page_token = page.next_page_token

    def get_alert(self, alert_id: str) -> AlertRecord:
        """One alert, with the scores of its windows. Raises: ClientError."""
        request = alert_pb2.GetAlertRequest(alert_id=alert_id)
        return alert_messages.alert_record(self._ask(self._alerts.GetAlert, request))

    def acknowledge(self, alert_id: str, note: str = "") -> AlertRecord:
        """Say that somebody has seen an alert. Raises: ClientError."""
        request = alert_pb2.AcknowledgeAlertRequest(alert_id=alert_id, note=note)
        return alert_messages.alert_record(self._ask(self._alerts.AcknowledgeAlert, request))

    def read_evidence(self, alert_id: str, kind: EvidenceKind) -> Iterator[bytes]:
        """A file of an alert's evidence in pieces, as long as it takes.

        Raises:
            ClientError: by the first step of the iteration, or where the server is lost.
        """
        request = alert_pb2.ReadEvidenceRequest(alert_id=alert_id, kind=KIND[kind])
        try:
            for message in self._alerts.ReadEvidence(request):
                yield message.data
        except grpc.RpcError as error:
            raise _client_error(error, self._address) from None

    def push(
        self,
        frames: Iterable[PushedFrame],
        push: PushFormat,
        stream_id: str | None = None,
        *,
        temporary_id: str = "",
    ) -> Watch[PushAnswer]:
        """Send video and get its scores; returns once the server takes frames.

        Args:
            frames: of `push`'s format; read in a thread of gRPC's, no faster than the
                server takes them.
            push: what they are.
            stream_id: the push:// stream that they belong to; None makes a temporary one.
            temporary_id: id of that one; empty lets the server choose.

        Raises:
            ClientError: by the first step of the iteration.
        """
        start = mapping.push_start(stream_id, temporary_id, push)
        messages = itertools.chain([start], map(mapping.pushed_frame, frames))
        call = self._scores.ScoreVideo(messages)
        call.initial_metadata()
        return Watch(call, _read_push, self._address)

    def deliveries(self, wanted: DeliveryFilter, most: int) -> builtins.list[Delivery]:
        """So many deliveries, the newest first. Raises: ClientError."""
        found: builtins.list[Delivery] = []
        token = ""
        while len(found) < most:
            request = delivery_messages.list_request(wanted, min(most - len(found), 200), token)
            page = self._ask(self._deliveries.ListDeliveries, request)
            found += [delivery_messages.delivery(message) for message in page.deliveries]
            token = page.next_page_token
            if not token:
                break
        return found

    def replay(self, ids: Sequence[int], sink: str | None) -> int:
        """Try deliveries again that were given up; how many that are. Raises: ClientError.

        Args:
            ids: those to try; empty means all.
            sink: only to this receiver; None means all.
        """
        request = delivery_pb2.ReplayDeliveriesRequest(delivery_ids=map(str, ids), sink=sink or "")
        return self._ask(self._deliveries.ReplayDeliveries, request).replayed

    def close(self) -> None:
        """End everything that runs on this client."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _ask(
        self,
        method: grpc.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        at_least_seconds: float = 0.0,
    ) -> Response:
        try:
            return method(request, timeout=max(self._deadline_seconds, at_least_seconds))
        except grpc.RpcError as error:
            raise _client_error(error, self._address) from None


def _read_score(message: score_pb2.WatchScoresResponse) -> tuple[int, WindowScore]:
    return message.missed, mapping.window_score(message.score)


def _read_push(message: score_pb2.ScoreVideoResponse) -> tuple[int, PushAnswer]:
    score = mapping.window_score(message.score) if message.HasField("score") else None
    return message.missed, PushAnswer(score, mapping.push_counts(message))


def _read_alert(message: alert_pb2.WatchAlertsResponse) -> tuple[int, WatchedAlert]:
    return message.missed, alert_messages.watched_alert(message)


def _client_error(error: grpc.RpcError, address: str) -> ClientError:
    # Every error of a call is also a `grpc.Call`, which the types do not say.
    code: grpc.StatusCode = error.code()
    sentence: str = error.details() or f"the server at {address} gave no reason"
    trailers = error.trailing_metadata() or ()
    # What did not come from the server is gRPC's own wording, no help to an operator.
    if SENTENCE_KEY not in {datum.key for datum in trailers}:
        if code is grpc.StatusCode.UNAVAILABLE:
            sentence = f"no server answers at {address}; start one with: gvvad serve"
        elif code is grpc.StatusCode.DEADLINE_EXCEEDED:
            sentence = f"the server at {address} did not answer in time; see its log"
        elif code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            sentence = f"{sentence}; send smaller frames or raise push.max_message_mb there"
    return ClientError(sentence, code.name)
