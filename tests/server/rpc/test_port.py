"""The gRPC port itself: model, health, reflection, limits, start and stop."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import replace

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from gvvad.v1 import stream_pb2, stream_pb2_grpc

from server.rpc.client import Client, ClientError
from server.rpc.server import SERVICES, PortError, RpcServer
from server.setting_groups import GrpcSettings
from tests.support.backend import MODEL, MemoryBackend, NoDeliveries
from tests.support.served import Run, Served


@pytest.fixture
def channel(served: Served):
    with grpc.insecure_channel(served.address) as channel:
        yield channel


def test_the_model_comes_back_whole(client: Client) -> None:
    assert client.model() == MODEL


def test_a_model_of_native_frames_has_no_rate(client: Client, served: Served) -> None:
    served.backend.model = replace(MODEL, fps=None, window_seconds=None)
    assert client.model() == served.backend.model


@pytest.mark.parametrize("service", ["", *SERVICES])
def test_every_service_is_healthy(channel, service: str) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_reflection_names_every_service(channel) -> None:
    services = ProtoReflectionDescriptorDatabase(channel).get_services()
    assert set(SERVICES) <= set(services)
    assert "grpc.health.v1.Health" in services


def test_an_oversized_request_is_refused_before_it_is_read(channel) -> None:
    stub = stream_pb2_grpc.StreamServiceStub(channel)
    request = stream_pb2.GetStreamRequest(name="x" * 100_000)
    with pytest.raises(grpc.RpcError) as caught:
        stub.GetStream(request, timeout=10)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_stopping_ends_watches_and_health_with_unavailable(
    run: Run, backend: MemoryBackend
) -> None:
    rpc = RpcServer(backend, NoDeliveries(), GrpcSettings(port=0), 2**20)
    run(rpc.start())
    address = f"127.0.0.1:{rpc.port}"
    with Client(address) as client, grpc.insecure_channel(address) as channel:
        watch = client.watch_scores()
        seen = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(seen).status == health_pb2.HealthCheckResponse.SERVING
        run(rpc.stop(grace_seconds=0.5))
        assert next(seen).status == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(ClientError, match="the server is stopping") as caught:
            next(watch)
        assert caught.value.code == "UNAVAILABLE"
        with pytest.raises(ClientError, match="start one with: gvvad serve"):
            client.list()


def test_a_server_that_never_started_can_be_stopped(run: Run, backend: MemoryBackend) -> None:
    run(RpcServer(backend, NoDeliveries(), GrpcSettings(port=0), 2**20).stop())


def test_a_taken_port_is_refused_and_not_shared(run: Run, served: Served) -> None:
    second = RpcServer(MemoryBackend(), NoDeliveries(), GrpcSettings(port=served.rpc.port), 2**20)
    with pytest.raises(PortError, match=f"cannot listen for gRPC on {served.address}"):
        run(second.start())
    run(second.stop())


def test_a_connection_that_breaks_is_no_server_either() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"

        def hang_up() -> None:
            with contextlib.suppress(OSError):
                while True:
                    listener.accept()[0].close()

        hanging_up = threading.Thread(target=hang_up)
        hanging_up.start()
        with Client(address) as client, pytest.raises(ClientError, match=f"answers at {address}"):
            next(client.watch_scores())
        listener.shutdown(socket.SHUT_RDWR)
        hanging_up.join(timeout=10)


def test_nobody_at_the_address_is_a_sentence_with_a_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with Client(f"127.0.0.1:{port}") as client, pytest.raises(ClientError) as caught:
        client.list()
    assert caught.value.sentence == (
        f"no server answers at 127.0.0.1:{port}; start one with: gvvad serve"
    )
