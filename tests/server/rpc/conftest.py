from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from gvvad.v1 import stream_pb2_grpc

from server.rpc.client import Client
from tests.support.any_message import SECRET
from tests.support.backend import MemoryBackend
from tests.support.caller import Caller
from tests.support.served import Run, Served, loop_in_thread, serving
from tests.support.serving import ServerProcess
from tests.support.tiny_bundle import make_tiny_bundle


@pytest.fixture(scope="session")
def run() -> Iterator[Run[Any]]:
    with loop_in_thread() as run:
        yield run


@pytest.fixture
def backend() -> MemoryBackend:
    return MemoryBackend()


@pytest.fixture
def served(run: Run[Any], backend: MemoryBackend) -> Iterator[Served]:
    with serving(run, backend) as served:
        yield served


@pytest.fixture
def client(served: Served) -> Client:
    return served.client()


# A whole server in a process of its own, with a store and a decode worker


@pytest.fixture(scope="package")
def whole_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    bundle = make_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny").directory
    with ServerProcess(
        bundle=bundle,
        ingest__workers=1,
        access__camera_networks="127.0.0.0/8,::1/128",
        access__file_roots="/nonexistent/clips",
    ) as server:
        yield server
        code, _ = server.terminate()
        assert code == 0
    log = "".join(server.log)
    assert "Traceback" not in log, log
    assert " ERROR " not in log, log
    assert SECRET not in log


@pytest.fixture(scope="package")
def caller(whole_server: ServerProcess) -> Iterator[Caller]:
    with grpc.insecure_channel(whole_server.address) as channel:
        caller = Caller(whole_server, channel)
        yield caller
        caller.close()


@pytest.fixture
def streams(caller: Caller) -> Iterator[stream_pb2_grpc.StreamServiceStub]:
    """Stubs for a test of its own, after which the standing streams are back."""
    yield caller.streams
    caller.assert_well_and_tidy_up()
