"""The API's services over a backend: check, call, answer.

Methods raise domain errors; `boundary` turns them into status codes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

import grpc
from google.protobuf.empty_pb2 import Empty
from gvvad.v1 import (
    model_pb2,
    model_pb2_grpc,
    score_pb2,
    score_pb2_grpc,
    stream_pb2,
    stream_pb2_grpc,
)

from server.calibration import Calibration, CalibrationAsk
from server.capacity import CapacitySummary
from server.desk import AlertDesk
from server.evidence.reader import EvidenceReader
from server.hub import Hub, OfStream
from server.push import PushCalls, PushSession
from server.pushed import PushFormat
from server.rpc import mapping, requests
from server.rpc.calibration import calibration_ask
from server.rpc.capacity import capacity_message
from server.rpc.tuning_messages import calibration_message
from server.scoring import WindowScore
from server.streams import StreamConfig
from server.views import (
    Change,
    IdleError,
    ModelInfo,
    StoppingError,
    StreamView,
    UnknownStreamError,
)

T = TypeVar("T", bound=OfStream)
Request = TypeVar("Request")
Response = TypeVar("Response")
Result = TypeVar("Result")


class Backend(Protocol):
    """What the services need of the server.

    `create`, `get`, `update` and `delete` raise the errors of `server.views`,
    and `create` and `update` also `server.streams.SourceError` for an address
    that the settings do not allow; so does `pushing`, the session of a client that
    pushes video. `update` applies its change to what the stream is
    then, so that of two at once neither undoes the other's fields, and raises what the
    change raises. `delete` ends the stream's watches, of scores and of alerts. `calibrate`
    raises `server.calibration.CalibrationError` where footage cannot answer.
    """

    scores: Hub[WindowScore]
    desk: AlertDesk
    model: ModelInfo
    push_calls: PushCalls

    @property
    def capacity(self) -> CapacitySummary: ...

    @property
    def evidence(self) -> EvidenceReader: ...

    async def create(self, config: StreamConfig) -> StreamView: ...

    def get(self, stream_id: str) -> StreamView: ...

    def list(self) -> list[StreamView]: ...

    async def update(self, stream_id: str, change: Change) -> StreamView: ...

    async def delete(self, stream_id: str) -> None: ...

    async def calibrate(self, stream_id: str, ask: CalibrationAsk) -> Calibration: ...

    def pushing(
        self, stream_id: str | None, temporary_id: str, push: PushFormat
    ) -> AbstractAsyncContextManager[PushSession]: ...

    def end_pushes(self, error: Exception) -> None: ...


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

    async def CalibrateStream(  # noqa: N802
        self,
        request: stream_pb2.CalibrateStreamRequest,
        context: grpc.aio.ServicerContext[
            stream_pb2.CalibrateStreamRequest, stream_pb2.Calibration
        ],
    ) -> stream_pb2.Calibration:
        stream_id = mapping.stream_id(request.name, "name")
        ask = await asyncio.to_thread(calibration_ask, request)
        return calibration_message(await self._backend.calibrate(stream_id, ask))


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

    async def ScoreVideo(  # type: ignore[override]  # noqa: N802  see _watch
        self,
        request_iterator: AsyncIterator[score_pb2.ScoreVideoRequest],
        context: grpc.aio.ServicerContext[
            score_pb2.ScoreVideoRequest, score_pb2.ScoreVideoResponse
        ],
    ) -> None:
        messages, calls = aiter(request_iterator), self._backend.push_calls
        # An address without its port, which differs from call to call.
        with calls.admitted(context.peer().rpartition(":")[0]):
            await self._score_video(messages, context, calls.limits.idle_seconds)

    async def _score_video(
        self,
        messages: AsyncIterator[score_pb2.ScoreVideoRequest],
        context: grpc.aio.ServicerContext[
            score_pb2.ScoreVideoRequest, score_pb2.ScoreVideoResponse
        ],
        idle_seconds: float,
    ) -> None:
        first = await _next_message(messages, idle_seconds)
        start = requests.push_start(first or score_pb2.ScoreVideoRequest())
        pushing = self._backend.pushing(start.stream_id, start.temporary_id, start.push)
        async with pushing as session:
            await context.send_initial_metadata(())
            feeding = asyncio.create_task(_feed(session, messages, idle_seconds))
            feeding.add_done_callback(lambda task: _end_if_failed(session, task))
            try:
                async for missed, score in session.scores:
                    message = mapping.score_message(score, self._backend.model.bundle_id)
                    answer = mapping.push_message(session.counts, missed, message)
                    await _in_time(context.write(answer), idle_seconds, "no score was read")
                    session.sent()
            finally:
                feeding.cancel()
            if session.failure is not None:
                raise session.failure
            await context.write(mapping.push_message(session.counts))


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

    async def GetCapacity(  # noqa: N802
        self,
        request: model_pb2.GetCapacityRequest,
        context: grpc.aio.ServicerContext[model_pb2.GetCapacityRequest, model_pb2.Capacity],
    ) -> model_pb2.Capacity:
        return capacity_message(self._backend.capacity)


async def _feed(
    session: PushSession, messages: AsyncIterator[score_pb2.ScoreVideoRequest], idle_seconds: float
) -> None:
    """Hand a client's frames over until it has sent the last one."""
    while (message := await _next_message(messages, idle_seconds)) is not None:
        await session.send(requests.pushed_frame(message, time.monotonic()))
    await session.finish()


def _end_if_failed(session: PushSession, feeding: asyncio.Task[None]) -> None:
    # The call itself waits for scores: they end, and it then raises what ended them.
    error = None if feeding.cancelled() else feeding.exception()
    if isinstance(error, Exception):
        session.fail(error)


async def _next_message(
    messages: AsyncIterator[score_pb2.ScoreVideoRequest], idle_seconds: float
) -> score_pb2.ScoreVideoRequest | None:
    """A client's next message; None once it has sent its last one."""
    return await _in_time(anext(messages, None), idle_seconds, "no frame came")


async def _in_time(work: Awaitable[Result], idle_seconds: float, what: str) -> Result:
    try:
        async with asyncio.timeout(idle_seconds):
            return await work
    except TimeoutError:
        raise IdleError(
            f"{what} for {idle_seconds:g} s; keep both sides going or end the call"
        ) from None


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
