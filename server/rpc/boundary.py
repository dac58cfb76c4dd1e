"""The edge of the API: errors become status codes, each with one sentence.

An error that nobody foresaw becomes INTERNAL without details; the log has them.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from server.hub import HubFullError
from server.rpc.mapping import SENTENCE_KEY, InvalidError
from server.store import StoreError
from server.streams import Reason, SourceError
from server.views import CapacityError, StreamExistsError, UnknownStreamError

logger = logging.getLogger(__name__)

Behaviour = Callable[[Any, grpc.aio.ServicerContext[Any, Any]], Awaitable[Any]]


class StoppingError(RuntimeError):
    """The server stops and takes no more calls."""

    def __init__(self) -> None:
        super().__init__("the server is stopping; try again once it is back")


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
        make, behaviour = (
            (grpc.unary_stream_rpc_method_handler, handler.unary_stream)
            if handler.response_streaming
            else (grpc.unary_unary_rpc_method_handler, handler.unary_unary)
        )
        guarded = self._guarded(method, behaviour)
        return make(guarded, handler.request_deserializer, handler.response_serializer)

    def _guarded(self, method: str, behaviour: Behaviour) -> Behaviour:
        async def guarded(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            try:
                if self.stopping:
                    raise StoppingError
                return await behaviour(request, context)
            except Exception as error:  # the process's one boundary for calls
                code, sentence = status_code(error), str(error)
                if code is grpc.StatusCode.INTERNAL:
                    # Its text may hold anything, credentials included: for the log alone.
                    logger.exception("%s failed", method)
                    sentence = "internal error; the server's log says more"
                await context.abort(code, sentence, ((SENTENCE_KEY, "1"),))

        return guarded


def status_code(error: Exception) -> grpc.StatusCode:
    """The code that a client gets for an error."""
    if isinstance(error, SourceError):
        denied = error.reason is Reason.ADDRESS_DENIED
        return grpc.StatusCode.PERMISSION_DENIED if denied else grpc.StatusCode.FAILED_PRECONDITION
    for kind, code in _CODES.items():
        if isinstance(error, kind):
            return code
    return grpc.StatusCode.INTERNAL


_CODES = {
    InvalidError: grpc.StatusCode.INVALID_ARGUMENT,
    UnknownStreamError: grpc.StatusCode.NOT_FOUND,
    StreamExistsError: grpc.StatusCode.ALREADY_EXISTS,
    CapacityError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    HubFullError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    StoppingError: grpc.StatusCode.UNAVAILABLE,
    StoreError: grpc.StatusCode.UNAVAILABLE,
}
