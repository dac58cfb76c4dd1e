from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from server.rpc.client import Client
from tests.support.backend import MemoryBackend
from tests.support.served import Run, Served, loop_in_thread, serving


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
