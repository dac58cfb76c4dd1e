"""The HTTP side port: metrics for Prometheus, health for whoever restarts the server.

It runs in the server's own event loop and takes no signals.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Iterator

import uvicorn
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from server.setting_groups import HttpSettings
from server.telemetry import Telemetry

logger = logging.getLogger(__name__)

Readiness = Callable[[], str | None]
"""None when the server is ready, else the reason why it is not."""

_STOP_SECONDS = 2


class HttpPortError(OSError):
    """The port cannot be listened on; the message says which and what to do."""


class HttpPort:
    """`/metrics`, `/healthz` and `/readyz`. Start it in the loop that will run it."""

    def __init__(self, settings: HttpSettings, telemetry: Telemetry, readiness: Readiness) -> None:
        self._settings = settings
        self._app = application(telemetry, readiness)
        self._port = 0
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port that is listened on, also where 0 was asked for; 0 before the start."""
        return self._port

    async def start(self) -> None:
        """Listen and serve.

        Raises:
            HttpPortError: the address is taken or not one of this machine's.
        """
        # A socket of our own: uvicorn exits the process where it cannot bind.
        listener = self._listen()
        self._port = listener.getsockname()[1]
        self._server = server = _Server(
            uvicorn.Config(
                self._app,
                log_config=None,  # logging belongs to the server
                log_level="warning",
                access_log=False,
                lifespan="off",
                timeout_graceful_shutdown=_STOP_SECONDS,
            )
        )
        self._task = asyncio.create_task(server.serve([listener]))
        await server.is_up.wait()
        logger.info("HTTP on %s:%d", self._settings.host, self._port)

    async def stop(self) -> None:
        """Finish running requests within two seconds and close the port, if it is open."""
        if self._server is not None and self._task is not None:
            self._server.should_exit = True
            await self._task

    def _listen(self) -> socket.socket:
        host, port = self._settings.host, self._settings.port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            return socket.create_server((host, port), family=family, backlog=64)
        except OSError as error:
            raise HttpPortError(
                f"cannot listen for HTTP on {host}:{port} ({_strerror(error)}); "
                "choose another with --set http.port=PORT or --set http.host=HOST"
            ) from None


class _Server(uvicorn.Server):
    """Uvicorn as a guest: signals are the host's, and the start can be waited for."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # uvicorn would take SIGTERM here and leave the server running

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_up.set()


def _strerror(error: OSError) -> str:
    # `socket.create_server` winds the address into it, which the sentence names already.
    return str(error.strerror).split(" (while", 1)[0]


def application(telemetry: Telemetry, readiness: Readiness) -> Starlette:
    """The side port's routes."""

    # All of them are coroutines: Starlette would run plain functions in a thread pool.
    async def metrics(request: Request) -> Response:
        # Prometheus asks for OpenMetrics, people and older scrapers get the text format.
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(telemetry.registry), headers={"content-type": content_type})

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        reason = readiness()
        if reason is None:
            return PlainTextResponse("ready\n")
        return PlainTextResponse(f"{reason}\n", status_code=503)

    return Starlette(
        routes=[
            Route("/metrics", metrics),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
        ]
    )
