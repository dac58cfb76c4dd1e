"""A `gvvad serve` of a command's own: on free ports of loopback, gone when the command is."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from server.demo import tether
from server.rpc.client import Client, ClientError

START_SECONDS = 60.0
"""The server may take that long to verify its bundle and warm its engine."""

HOST = "127.0.0.1"
_POLL_SECONDS = 0.1


class StartError(RuntimeError):
    """The server did not start; the message is a sentence for the user."""


@dataclass(frozen=True, slots=True)
class Spawned:
    """A server that is ready.

    Attributes:
        pid: of its main process.
        address: HOST:PORT of its gRPC port.
        client: of it.
        http: URL of its side port.
        log: file that takes what it writes to standard error.
    """

    pid: int
    address: str
    client: Client
    http: str
    log: Path


@contextmanager
def spawned(
    log: Path,
    environ: Mapping[str, str],
    settings: Mapping[str, object],
    start_seconds: float = START_SECONDS,
) -> Iterator[Spawned]:
    """Start a server, wait until it is ready, and end it whatever happens.

    Args:
        log: file to write its log to.
        environ: its whole environment.
        settings: by dotted key; its ports are chosen here.
        start_seconds: it must be ready by then.

    Raises:
        StartError: it ended or did not answer in time.
    """
    port, http_port = free_port(), free_port()
    ports = {"grpc.host": HOST, "grpc.port": port, "http.host": HOST, "http.port": http_port}
    flags = [f"--set={key}={value}" for key, value in (dict(settings) | ports).items()]
    address = f"{HOST}:{port}"
    child = tether.spawn("server", ["serve", *flags], dict(environ), log)
    try:
        with Client(address) as client:
            _wait_until_ready(client, child, log, start_seconds)
            yield Spawned(child.pid, address, client, f"http://{HOST}:{http_port}", log)
    finally:
        tether.stop(child)


def free_port() -> int:
    """A TCP port of loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_ready(
    client: Client, child: subprocess.Popen[str], log: Path, start_seconds: float
) -> None:
    deadline = time.monotonic() + start_seconds
    while True:
        if child.poll() is not None:
            raise StartError(f"the server did not start: {tether.last_words(log)}")
        try:
            client.model()
        except ClientError as error:
            if time.monotonic() > deadline:
                raise StartError(f"the server does not answer: {error.sentence}") from None
            time.sleep(_POLL_SECONDS)
        else:
            return
