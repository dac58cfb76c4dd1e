"""The edge of the API: errors become status codes, each with one sentence.

An error that nobody foresaw becomes INTERNAL without details; the log has them.
A call that is no watch goes on to its end, whoever hangs up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from server.alerts import PolicyError
from server.calibration import CalibrationError
from server.hub import HubFullError
from server.rpc.mapping import SENTENCE_KEY
from server.rpc.wire import InvalidError
from server.store.database import StoreError
from server.streams import Reason, SourceError
from server.views import (
    CapacityError,
    EvidencePendingError,
    ExpiredCursorError,
    IdleError,
    InvalidVideoError,
    LimitError,
    LostError,
    NoEvidenceError,
    NotPushableError,
    StoppingError,
    StreamExistsError,
    UnknownAlertError,
    UnknownStreamError,
)

logger = logging.getLogger(__name__)

LARGEST_REQUEST = 64 * 1024
"""Bytes of a message that is no frame of video; the largest is one stream."""

LARGEST_CALIBRATION = 4 * 1024 * 1024
"""Bytes of a request with recorded scores: two weeks of a camera."""

LONGEST_SENTENCE = 600
"""Characters. A sentence travels in a header, percent-encoded to 12 bytes a character at
worst, and a client that gets over 8 KiB of headers reports that and not the sentence."""

Context = grpc.aio.ServicerContext[Any, Any]
Behaviour = Callable[[Any, Context], Awaitable[Any]]


class Boundary(grpc.aio.ServerInterceptor):
    """Guards every method of this API; health and reflection look after themselves."""

    def __init__(self) -> None:
        self.stopping = False

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wrap the method that is called."""
        method = handler_call_details.method
        handler: Any = await continuation(handler_call_details)
        if handler is None or not method.startswith("/gvvad."):
            return handler  # type: ignore[no-any-return]
        # Bytes come in and are read within the guard: gRPC itself says UNKNOWN of a broken message.
        read = handler.request_deserializer
        if handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(
                self._guarded(
                    method,
                    lambda messages, context: handler.stream_stream(
                        (_message(one, read) async for one in messages), context
                    ),
                ),
                None,
                handler.response_serializer,
            )
        make, behaviour = (
            (grpc.unary_stream_rpc_method_handler, handler.unary_stream)
            if handler.response_streaming
            else (grpc.unary_unary_rpc_method_handler, handler.unary_unary)
        )

        calibrates = method.endswith("/CalibrateStream")
        largest = LARGEST_CALIBRATION if calibrates else LARGEST_REQUEST

        async def answer(request: bytes, context: Context) -> Any:
            if len(request) > largest:
                raise LimitError(f"the request has {len(request)} bytes; at most {largest} go")
            return await behaviour(_message(request, read), context)

        guarded = self._guarded(method, answer, finish=not handler.response_streaming)
        return make(guarded, None, handler.response_serializer)

    def _guarded(self, method: str, behaviour: Behaviour, *, finish: bool = False) -> Behaviour:
        async def outcome(request: Any, context: Context) -> Any:
            try:
                if self.stopping:
                    raise StoppingError
                return await behaviour(request, context)
            except Exception as error:  # the process's one boundary for calls
                return _refusal(method, error)

        async def guarded(request: Any, context: Context) -> Any:
            work = outcome(request, context)
            # A client that hangs up cancels its call; a stream half made would stay half made.
            found = await (asyncio.shield(work) if finish else work)
            if isinstance(found, _Refusal):
                await context.abort(found.code, found.sentence, ((SENTENCE_KEY, "1"),))
            return found

        return guarded


@dataclass(frozen=True, slots=True)
class _Refusal:
    code: grpc.StatusCode
    sentence: str


def status_code(error: Exception) -> grpc.StatusCode:
    """The code that a client gets for an error."""
    if isinstance(error, SourceError):
        denied = error.reason is Reason.ADDRESS_DENIED
        return grpc.StatusCode.PERMISSION_DENIED if denied else grpc.StatusCode.FAILED_PRECONDITION
    for kind, code in _CODES.items():
        if isinstance(error, kind):
            return code
    return grpc.StatusCode.INTERNAL


def _refusal(method: str, error: Exception) -> _Refusal:
    code = status_code(error)
    if code is grpc.StatusCode.INTERNAL:
        # Its text may hold anything, credentials included: for the log alone.
        logger.exception("%s failed", method)
        return _Refusal(code, "internal error; the server's log says more")
    return _Refusal(code, _fitted(str(error)))


def _message(request: bytes, deserialize: Callable[[bytes], Any]) -> Any:
    try:
        return deserialize(request)
    except DecodeError as error:
        raise InvalidError(
            f"the request cannot be read ({error}); make it with the stubs of gvvad.v1"
        ) from None


def _fitted(sentence: str) -> str:
    if len(sentence) <= LONGEST_SENTENCE:
        return sentence
    # What is long is the value in the middle; the field before and the remedy after it stay.
    half = LONGEST_SENTENCE // 2
    return f"{sentence[: half - 2]}...{sentence[2 - half :]}"


_CODES = {
    # A message could not be sent: its client has just hung up, so that nobody gets this code.
    grpc.aio.InternalError: grpc.StatusCode.CANCELLED,
    InvalidError: grpc.StatusCode.INVALID_ARGUMENT,
    InvalidVideoError: grpc.StatusCode.INVALID_ARGUMENT,
    PolicyError: grpc.StatusCode.INVALID_ARGUMENT,
    UnknownStreamError: grpc.StatusCode.NOT_FOUND,
    UnknownAlertError: grpc.StatusCode.NOT_FOUND,
    NoEvidenceError: grpc.StatusCode.NOT_FOUND,
    EvidencePendingError: grpc.StatusCode.FAILED_PRECONDITION,
    ExpiredCursorError: grpc.StatusCode.OUT_OF_RANGE,
    NotPushableError: grpc.StatusCode.FAILED_PRECONDITION,
    CalibrationError: grpc.StatusCode.FAILED_PRECONDITION,
    LimitError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    IdleError: grpc.StatusCode.DEADLINE_EXCEEDED,
    LostError: grpc.StatusCode.UNAVAILABLE,
    StreamExistsError: grpc.StatusCode.ALREADY_EXISTS,
    CapacityError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    HubFullError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    StoppingError: grpc.StatusCode.UNAVAILABLE,
    StoreError: grpc.StatusCode.UNAVAILABLE,
}
