"""The gRPC port: services, health and reflection, with a start and a stop."""

from __future__ import annotations

import logging

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
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

from server.rpc.alert_service import AlertService
from server.rpc.boundary import Boundary
from server.rpc.delivery_service import DeliveryLog, DeliveryService
from server.rpc.service import Backend, ModelService, ScoreService, StreamService
from server.setting_groups import GrpcSettings
from server.views import StoppingError

logger = logging.getLogger(__name__)

SERVICES = tuple(
    file.DESCRIPTOR.services_by_name[name].full_name
    for file, name in (
        (stream_pb2, "StreamService"),
        (score_pb2, "ScoreService"),
        (alert_pb2, "AlertService"),
        (delivery_pb2, "DeliveryService"),
        (model_pb2, "ModelService"),
    )
)

_OPTIONS = (
    # The largest answer is a page of 200 streams.
    ("grpc.max_send_message_length", 4 * 1024 * 1024),
    # A watcher that vanished without a word is noticed within forty seconds.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),  # a minute by default, and it has the last word
    # Clients ping every ten seconds at most; gRPC's own default bans them for it.
    ("grpc.http2.min_ping_interval_without_data_ms", 9_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Without this two servers share a port, and each gets half of the calls.
    ("grpc.so_reuseport", 0),
)


class PortError(OSError):
    """A port cannot be listened on; the message says which and what to do."""


class RpcServer:
    """The gRPC port of one backend. Start it once, in the loop that will run it.

    Args:
        backend: what the services serve.
        deliveries: what DeliveryService serves.
        settings: address and limits.
        largest_message: bytes of a message, which only one with a frame of video comes near.
    """

    def __init__(
        self,
        backend: Backend,
        deliveries: DeliveryLog,
        settings: GrpcSettings,
        largest_message: int,
    ) -> None:
        self._backend = backend
        self._deliveries = deliveries
        self._options = (*_OPTIONS, ("grpc.max_receive_message_length", largest_message))
        self._settings = settings
        self._boundary = Boundary()
        self._health = health.aio.HealthServicer()
        self._port = 0
        self._server: grpc.aio.Server | None = None

    @property
    def port(self) -> int:
        """The port that is listened on, also where 0 was asked for; 0 before the start."""
        return self._port

    def bind(self) -> None:
        """Take the port; who calls already waits for the start.

        Raises:
            PortError: the address is taken or not one of this machine's.
        """
        self._server = server = grpc.aio.server(
            interceptors=[self._boundary], options=self._options
        )
        backend = self._backend
        stream_pb2_grpc.add_StreamServiceServicer_to_server(StreamService(backend), server)
        score_pb2_grpc.add_ScoreServiceServicer_to_server(ScoreService(backend), server)
        alert_pb2_grpc.add_AlertServiceServicer_to_server(AlertService(backend), server)
        deliveries = DeliveryService(self._deliveries)
        delivery_pb2_grpc.add_DeliveryServiceServicer_to_server(deliveries, server)
        model_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(backend), server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection(
            (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server
        )
        self._port = self._listen(server)

    async def start(self) -> None:
        """Serve; take the port first where that was not done.

        Raises:
            PortError: as `bind`.
        """
        if self._server is None:
            self.bind()
        assert self._server is not None
        # Bound before health says SERVING, served after: no probe sees a half-open port.
        for service in (*SERVICES, health.OVERALL_HEALTH):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        await self._server.start()
        logger.info("gRPC on %s", self._address(self._port))

    async def stop(self, grace_seconds: float = 1.0) -> None:
        """Refuse new calls, end watches and pushes, let the others finish within the grace."""
        self._boundary.stopping = True
        # First of all, so that load balancers look elsewhere while calls still finish.
        await self._health.enter_graceful_shutdown()
        self._backend.scores.close()
        self._backend.desk.changed.close()
        self._backend.end_pushes(StoppingError())
        if self._server is not None:
            await self._server.stop(grace_seconds)

    def _listen(self, server: grpc.aio.Server) -> int:
        address = self._address(self._settings.port)
        try:
            return server.add_insecure_port(address)
        except RuntimeError:
            raise PortError(
                f"cannot listen for gRPC on {address}: it is in use or not an address of this "
                "machine; choose another with --set grpc.port=PORT or --set grpc.host=HOST"
            ) from None

    def _address(self, port: int) -> str:
        host = self._settings.host
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
