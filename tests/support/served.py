"""A real gRPC server on port 0, over the backend in memory, in an event loop of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from server.rpc.client import Client
from server.rpc.delivery_service import DeliveryLog
from server.rpc.server import RpcServer
from server.setting_groups import GrpcSettings
from tests.support.backend import MemoryBackend, NoDeliveries

T = TypeVar("T")
Run = Callable[[Coroutine[Any, Any, T]], T]


@dataclass
class Served:
    """A running server, its backend and a way into its event loop."""

    backend: MemoryBackend
    rpc: RpcServer
    run: Run[Any]
    clients: list[Client] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.rpc.port}"

    def client(self) -> Client:
        self.clients.append(Client(self.address))
        return self.clients[-1]


@contextmanager
def loop_in_thread() -> Iterator[Run[Any]]:
    """Runs coroutines in one loop that has a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield lambda work: asyncio.run_coroutine_threadsafe(work, loop).result(timeout=20)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=5)
        loop.close()


@contextmanager
def serving(
    run: Run[Any], backend: MemoryBackend, deliveries: DeliveryLog | None = None
) -> Iterator[Served]:
    """A server of `backend` in the loop behind `run`, with clients that are closed at the end."""
    rpc = RpcServer(
        backend, deliveries or NoDeliveries(), GrpcSettings(port=0), largest_message=2**20
    )
    run(rpc.start())
    served = Served(backend, rpc, run)
    try:
        yield served
    finally:
        for client in served.clients:
            client.close()
        run(rpc.stop(grace_seconds=1.0))
        backend.close()
