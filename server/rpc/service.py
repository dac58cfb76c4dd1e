"""The API's services over a backend: check, call, answer.

Methods raise domain errors; `boundary` turns them into status codes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import grpc
from google.protobuf.empty_pb2 import Empty
from gvvad.v1 import (
    alert_pb2,
    alert_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
    score_pb2,
    score_pb2_grpc,
    stream_pb2,
    stream_pb2_grpc,
)

from server.alerts import Alert
from server.hub import Hub, OfStream
from server.rpc import mapping, requests
from server.rpc.boundary import StoppingError
from server.scoring import WindowScore
from server.streams import StreamConfig
from server.views import Change, ModelInfo, StreamView, UnknownStreamError

T = TypeVar("T", bound=OfStream)
Request = TypeVar("Request")
Response = TypeVar("Response")


class Backend(Protocol):
    """What the services need of the server.

    `create`, `get`, `update` and `delete` raise the errors of `server.views`,
    and `create` and `update` also `server.streams.SourceError` for an address
    that the settings do not allow. `update` applies its change to what the stream is
    then, so that of two at once neither undoes the other's fields, and raises what the
    change raises. `delete` ends the stream's watches on both hubs.
    """

    scores: Hub[WindowScore]
    alerts: Hub[Alert]
    model: ModelInfo

    async def create(self, config: StreamConfig) -> StreamView: ...

    def get(self, stream_id: str) -> StreamView: ...

    def list(self) -> list[StreamView]: ...

    async def update(self, stream_id: str, change: Change) -> StreamView: ...

    async def delete(self, stream_id: str) -> None: ...


class StreamService(stream_pb2_grpc.StreamServiceServicer):
    """Resource methods of streams."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def CreateStream(  # noqa: N802  the API's name
        self,
        request: stream_pb2.CreateStreamRequest,
        context: grpc.aio.ServicerContext[stream_pb2.CreateStreamRequest, stream_pb2.Stream],
    ) -> stream_pb2.Stream:
        view = await self._backend.create(requests.new_config(request))
        return mapping.stream_message(view)

    async def GetStream(  # noqa: N802
        self,
        request: stream_pb2.GetStreamRequest,
        context: grpc.aio.ServicerContext[stream_pb2.GetStreamRequest, stream_pb2.Stream],
    ) -> stream_pb2.Stream:
        return mapping.stream_message(self._backend.get(mapping.stream_id(request.name, "name")))

    async def ListStreams(  # noqa: N802
        self,
        request: stream_pb2.ListStreamsRequest,
        context: grpc.aio.ServicerContext[
            stream_pb2.ListStreamsRequest, stream_pb2.ListStreamsResponse
        ],
    ) -> stream_pb2.ListStreamsResponse:
        page = requests.page(request)
        views = sorted(self._backend.list(), key=lambda view: view.config.stream_id)
        rest = [view for view in views if view.config.stream_id > page.after]
        shown = rest[: page.size]
        more = len(rest) > len(shown)
        return stream_pb2.ListStreamsResponse(
            streams=[mapping.stream_message(view) for view in shown],
            next_page_token=requests.page_token(shown[-1].config.stream_id) if more else "",
        )

    async def UpdateStream(  # noqa: N802
        self,
        request: stream_pb2.UpdateStreamRequest,
        context: grpc.aio.ServicerContext[stream_pb2.UpdateStreamRequest, stream_pb2.Stream],
    ) -> stream_pb2.Stream:
        view = await self._backend.update(
            mapping.stream_id(request.stream.name, "stream.name"),
            lambda stored: requests.updated_config(stored, request),
        )
        return mapping.stream_message(view)

    async def DeleteStream(  # noqa: N802
        self,
        request: stream_pb2.DeleteStreamRequest,
        context: grpc.aio.ServicerContext[stream_pb2.DeleteStreamRequest, Empty],
    ) -> Empty:
        await self._backend.delete(mapping.stream_id(request.name, "name"))
        return Empty()


class ScoreService(score_pb2_grpc.ScoreServiceServicer):
    """Watches of scores."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def WatchScores(  # type: ignore[override]  # noqa: N802  see _watch
        self,
        request: score_pb2.WatchScoresRequest,
        context: grpc.aio.ServicerContext[
            score_pb2.WatchScoresRequest, score_pb2.WatchScoresResponse
        ],
    ) -> None:
        async def send(missed: int, score: WindowScore) -> None:
            message = mapping.score_message(score, self._backend.model.bundle_id)
            await context.write(score_pb2.WatchScoresResponse(score=message, missed=missed))

        await _watch(self._backend, self._backend.scores, request.stream, context, send)


class AlertService(alert_pb2_grpc.AlertServiceServicer):
    """Watches of alerts."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def WatchAlerts(  # type: ignore[override]  # noqa: N802  see _watch
        self,
        request: alert_pb2.WatchAlertsRequest,
        context: grpc.aio.ServicerContext[
            alert_pb2.WatchAlertsRequest, alert_pb2.WatchAlertsResponse
        ],
    ) -> None:
        async def send(missed: int, alert: Alert) -> None:
            message = mapping.alert_message(alert)
            await context.write(alert_pb2.WatchAlertsResponse(alert=message, missed=missed))

        await _watch(self._backend, self._backend.alerts, request.stream, context, send)


class ModelService(model_pb2_grpc.ModelServiceServicer):
    """What the server scores with."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def GetModel(  # noqa: N802
        self,
        request: model_pb2.GetModelRequest,
        context: grpc.aio.ServicerContext[model_pb2.GetModelRequest, model_pb2.Model],
    ) -> model_pb2.Model:
        return mapping.model_message(self._backend.model)


async def _watch(
    backend: Backend,
    hub: Hub[T],
    name: str,
    context: grpc.aio.ServicerContext[Request, Response],
    send: Callable[[int, T], Awaitable[None]],
) -> None:
    # Writing from a coroutine, where the stubs' types ask for a generator: a cancelled
    # call then leaves the hub at once, not when the generator is collected.
    watched = mapping.stream_id(name, "stream") if name else None
    async with hub.subscribe(watched) as subscription:
        if watched is not None:
            # Only now: a stream that is deleted from here on ends the subscription.
            backend.get(watched)
        await context.send_initial_metadata(())
        async for missed, item in subscription:
            await send(missed, item)
    if hub.closed:
        raise StoppingError
    raise UnknownStreamError(f"stream {watched} was deleted")
