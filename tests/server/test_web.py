"""The side port, asked over real HTTP in its own loop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable

import httpx
import pytest

from server.setting_groups import HttpSettings
from server.telemetry import Telemetry
from server.web.port import HttpPort, HttpPortError


def asked(
    ask: Callable[[httpx.AsyncClient], Awaitable[None]],
    telemetry: Telemetry | None = None,
    readiness: Callable[[], str | None] = lambda: None,
) -> None:
    async def run() -> None:
        port = HttpPort(HttpSettings(port=0), telemetry or Telemetry(), readiness)
        await port.start()
        base = f"http://127.0.0.1:{port.port}"
        async with httpx.AsyncClient(base_url=base, timeout=10, trust_env=False) as client:
            await ask(client)
        await asyncio.wait_for(port.stop(), timeout=5)
        with pytest.raises(httpx.ConnectError):
            async with httpx.AsyncClient(trust_env=False) as client:
                await client.get(base)

    asyncio.run(run())


def test_metrics_are_what_prometheus_reads() -> None:
    telemetry = Telemetry()
    telemetry.stream_up("door", True)

    async def ask(client: httpx.AsyncClient) -> None:
        answer = await client.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=")
        assert 'gvvad_stream_up{stream="door"} 1.0' in answer.text
        accept = {"accept": "application/openmetrics-text; version=1.0.0"}
        answer = await client.get("/metrics", headers=accept)
        assert answer.headers["content-type"].startswith("application/openmetrics-text")
        assert answer.text.endswith("# EOF\n")

    asked(ask, telemetry)


def test_a_server_is_alive_before_it_is_ready() -> None:
    reasons: list[str | None] = ["warming up the engine"]

    async def ask(client: httpx.AsyncClient) -> None:
        assert (await client.get("/healthz")).status_code == 200
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.text) == (503, "warming up the engine\n")
        reasons.append(None)
        assert (await client.get("/readyz")).status_code == 200

    asked(ask, readiness=lambda: reasons[-1])


def test_other_paths_and_methods_are_refused() -> None:
    async def ask(client: httpx.AsyncClient) -> None:
        assert (await client.get("/")).status_code == 404
        assert (await client.post("/metrics")).status_code == 405

    asked(ask)


def test_signals_stay_with_the_server() -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    async def ask(client: httpx.AsyncClient) -> None:
        now = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        # asyncio's own runner handles SIGINT while it runs; SIGTERM is nobody's.
        assert now[1] == handlers[1]

    asked(ask)
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_a_taken_port_is_one_sentence_with_a_remedy() -> None:
    async def run() -> None:
        first = HttpPort(HttpSettings(port=0), Telemetry(), lambda: None)
        await first.start()
        second = HttpPort(HttpSettings(port=first.port), Telemetry(), lambda: None)
        with pytest.raises(HttpPortError, match="choose another with --set http"):
            await second.start()
        await second.stop()
        await first.stop()

    asyncio.run(run())


@pytest.mark.parametrize("host", ["no.such.host.invalid", "999.1.1.1", "::1::"])
def test_a_host_that_is_none_is_refused(host: str) -> None:
    async def run() -> None:
        with pytest.raises(HttpPortError, match="cannot listen for HTTP on"):
            await HttpPort(HttpSettings(host=host, port=0), Telemetry(), lambda: None).start()

    asyncio.run(run())


def test_an_address_of_another_machine_is_refused() -> None:
    async def run() -> None:
        port = HttpPort(HttpSettings(host="192.0.2.1", port=0), Telemetry(), lambda: None)
        with pytest.raises(HttpPortError, match=r"cannot listen for HTTP on 192\.0\.2\.1:0"):
            await port.start()

    asyncio.run(run())
