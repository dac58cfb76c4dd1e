"""A client without manners, for a real server: any bytes to any method."""

from __future__ import annotations

from dataclasses import dataclass

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from gvvad.v1 import stream_pb2, stream_pb2_grpc

from server.rpc.mapping import SENTENCE_KEY
from server.streams import PUSHED, Mode, SourceUrl, StreamConfig
from tests.support.any_message import SECRET
from tests.support.cameras import free_port
from tests.support.serving import ServerProcess

WATCH_SECONDS = 0.05
CALL_SECONDS = 10.0


@dataclass(frozen=True)
class Answer:
    """What a call got: a code, and the server's own sentence or None."""

    code: str
    sentence: str | None
    details: str


class Caller:
    """Sends anything, and keeps three streams standing meanwhile.

    These are `door`, `yard` that listens and `hall` that clients push to.
    """

    def __init__(self, server: ServerProcess, channel: grpc.Channel) -> None:
        self.channel = channel
        self.streams = stream_pb2_grpc.StreamServiceStub(channel)
        self._health = health_pb2_grpc.HealthStub(channel)
        self._client = server.client()
        self._standing = [
            StreamConfig("door", SourceUrl(f"rtsp://joe:{SECRET}@127.0.0.1:{free_port()}/a")),
            StreamConfig("hall", SourceUrl(PUSHED)),
            StreamConfig("yard", SourceUrl(f"rtsp://127.0.0.1:{free_port()}/b"), Mode.LISTEN),
        ]
        self._shown = [view.config for view in map(self._client.create, self._standing)]

    def send(self, method: MethodDescriptor, *requests: Message | bytes) -> Answer:
        """Call a method with a message or with any bytes; with several where it takes a stream."""
        raw, *more = [
            one if isinstance(one, bytes) else one.SerializeToString() for one in requests
        ]
        path = f"/{method.containing_service.full_name}/{method.name}"
        read = GetMessageClass(method.output_type).FromString
        try:
            if method.client_streaming:
                push = self.channel.stream_stream(path, response_deserializer=read)
                for _ in push(iter([raw, *more]), timeout=CALL_SECONDS):
                    pass
            elif method.server_streaming:
                watch = self.channel.unary_stream(path, response_deserializer=read)
                next(watch(raw, timeout=WATCH_SECONDS))
            else:
                call = self.channel.unary_unary(path, response_deserializer=read)
                call(raw, timeout=CALL_SECONDS)
        except grpc.RpcError as error:
            return _answer(error)
        return Answer("OK", None, "")

    def assert_well_and_tidy_up(self) -> None:
        """The server is healthy and lists its streams; those that should stand do."""
        health = self._health.Check(health_pb2.HealthCheckRequest(), timeout=CALL_SECONDS)
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        self._client.model()
        views = self._client.list()
        if [view.config for view in views] != self._shown:
            for view in views:
                self._client.delete(view.config.stream_id)
            for config in self._standing:
                self._client.create(config)

    def close(self) -> None:
        self._client.close()


def changed(mask: list[str], **fields: object) -> stream_pb2.UpdateStreamRequest:
    """An update of `door`, or of the `name` among the fields."""
    stream = stream_pb2.Stream(**{"name": "streams/door"} | fields)
    return stream_pb2.UpdateStreamRequest(stream=stream, update_mask=FieldMask(paths=mask))


def refused(call: grpc.UnaryUnaryMultiCallable, request: Message) -> Answer:
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=CALL_SECONDS)
    return _answer(caught.value)


def _answer(error: grpc.RpcError) -> Answer:
    trailers = {datum.key for datum in error.trailing_metadata() or ()}
    details = error.details() or ""
    return Answer(error.code().name, details if SENTENCE_KEY in trailers else None, details)
