"""A client in a hurry: starts calls of every kind and breaks each off after milliseconds."""

from __future__ import annotations

import random
import time
from collections import Counter
from itertools import chain
from typing import Any

import grpc
from google.protobuf.empty_pb2 import Empty
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from gvvad.v1 import alert_pb2, model_pb2, score_pb2, stream_pb2

from server.rpc.mapping import pushed_frame
from tests.support.pushing import TINY, endless, messages_of, tiny_frames

LONGEST_CALL_SECONDS = 0.05
STREAMS = 30

Request = tuple[str, Message, type[Message]]
_WATCHES = {"WatchScores", "WatchAlerts", "Watch"}


class HastyClient:
    """Breaks its calls off in three ways: cancels, lets a tiny deadline pass, hangs up.

    Args:
        address: of the server.
        seed: of its dice.
    """

    def __init__(self, address: str, seed: int) -> None:
        self.answers: Counter[str] = Counter()
        self._address = address
        self._dice = random.Random(seed)
        self._channel = self._connect()

    def run(self, seconds: float) -> None:
        """Call without pause for so long, then hang up."""
        end_seconds = time.monotonic() + seconds
        while time.monotonic() < end_seconds:
            request = self._dice.choice(requests(self._dice))
            break_off = self._dice.choice((self._cancel, self._expire, self._hang_up))
            self.answers[break_off(request, self._dice.random() * LONGEST_CALL_SECONDS)] += 1
        self._channel.close()

    def _cancel(self, request: Request, seconds: float) -> str:
        call = self._start(request, None)
        time.sleep(seconds)
        call.cancel()
        return str(call.code().name)

    def _expire(self, request: Request, seconds: float) -> str:
        return str(self._start(request, seconds).code().name)

    def _hang_up(self, request: Request, seconds: float) -> str:
        call = self._start(request, None)
        time.sleep(seconds)
        self._channel.close()
        self._channel = self._connect()
        return str(call.code().name)

    def _connect(self) -> grpc.Channel:
        # A connection of its own, or hanging up would leave it to another channel.
        options = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))
        return grpc.insecure_channel(self._address, options=options)

    def _start(self, request: Request, timeout_seconds: float | None) -> Any:
        path, message, answer = request
        coding = {
            "request_serializer": lambda one: one.SerializeToString(),
            "response_deserializer": answer.FromString,
        }
        name = path.rpartition("/")[2]
        if name in ("ServerReflectionInfo", "ScoreVideo"):
            more = map(pushed_frame, endless(list(tiny_frames(16)), 0.001))
            messages = chain([message], more if name == "ScoreVideo" else [])
            method = self._channel.stream_stream(path, **coding)
            return method(messages, timeout=timeout_seconds)
        if name in _WATCHES:
            return self._channel.unary_stream(path, **coding)(message, timeout=timeout_seconds)
        return self._channel.unary_unary(path, **coding).future(message, timeout=timeout_seconds)


def requests(dice: random.Random) -> list[Request]:
    """One of every kind, of the streams `hasty-0` to `hasty-29`, whose camera is none."""
    stream_id = f"hasty-{dice.randrange(STREAMS)}"
    name, url = f"streams/{stream_id}", f"rtsp://127.0.0.1:1/{dice.randrange(1000)}"
    new = stream_pb2.CreateStreamRequest(stream_id=stream_id, stream=stream_pb2.Stream(url=url))
    change = stream_pb2.UpdateStreamRequest(
        stream=stream_pb2.Stream(name=name, url=url), update_mask=FieldMask(paths=["url"])
    )
    streams, reflection = "/gvvad.v1.StreamService/", "/grpc.reflection.v1alpha.ServerReflection/"
    return [
        (f"{streams}CreateStream", new, stream_pb2.Stream),
        (f"{streams}UpdateStream", change, stream_pb2.Stream),
        (f"{streams}DeleteStream", stream_pb2.DeleteStreamRequest(name=name), Empty),
        (f"{streams}GetStream", stream_pb2.GetStreamRequest(name=name), stream_pb2.Stream),
        (
            f"{streams}ListStreams",
            stream_pb2.ListStreamsRequest(page_size=dice.randrange(3)),
            stream_pb2.ListStreamsResponse,
        ),
        (
            "/gvvad.v1.ScoreService/WatchScores",
            score_pb2.WatchScoresRequest(stream=dice.choice(["", "streams/cam", name])),
            score_pb2.WatchScoresResponse,
        ),
        (
            "/gvvad.v1.AlertService/WatchAlerts",
            alert_pb2.WatchAlertsRequest(stream=dice.choice(["", "streams/cam", name])),
            alert_pb2.WatchAlertsResponse,
        ),
        (
            "/gvvad.v1.ScoreService/ScoreVideo",
            next(messages_of([], TINY)),
            score_pb2.ScoreVideoResponse,
        ),
        ("/gvvad.v1.ModelService/GetModel", model_pb2.GetModelRequest(), model_pb2.Model),
        (
            "/grpc.health.v1.Health/Check",
            health_pb2.HealthCheckRequest(),
            health_pb2.HealthCheckResponse,
        ),
        (
            "/grpc.health.v1.Health/Watch",
            health_pb2.HealthCheckRequest(),
            health_pb2.HealthCheckResponse,
        ),
        (
            f"{reflection}ServerReflectionInfo",
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionResponse,
        ),
    ]
