"""One webhook: events by HTTP POST, signed, to an address that is trusted with nothing.

Redirects are not followed, proxies of the environment are not used, certificates are
verified, and no more of an answer is read than its head and a little of its body.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from importlib.metadata import version

import httpx2

from server.delivery.events import CONTENT_TYPE, event_bytes
from server.delivery.receivers import ReceiverError, WebhookUrl
from server.delivery.retries import Failure, Retry
from server.delivery.signing import Signer
from server.delivery_records import DueDelivery
from server.wording import one_line

ATTEMPTS_AT_A_TIME = 4
_DRAIN_BYTES, _DRAIN_SECONDS = 64 * 1024, 1.0
"""What is read of an answer's body at most, which decides nothing."""

_TRY_LATER = {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_EARLY,
    HTTPStatus.TOO_MANY_REQUESTS,
}
_MAY_ASK = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}

# At INFO they write a line a request with the whole URL, which may be a credential.
for _name in ("httpx2", "httpcore2"):
    logging.getLogger(_name).setLevel(logging.WARNING)


class WebhookSink:
    """Delivers to one URL.

    Args:
        url: of the receiver.
        signer: signs what is sent.
        source: the server, as events call it.
        timeout_seconds: of one attempt, from the name's lookup to the answer.
        trust: certificates that are believed; None takes the system's.

    Raises:
        ReceiverError: no HTTP client takes the URL.
    """

    attempts_at_a_time = ATTEMPTS_AT_A_TIME

    def __init__(
        self,
        url: WebhookUrl,
        signer: Signer,
        source: str,
        timeout_seconds: float,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        try:
            httpx2.URL(url.reveal())
        except httpx2.InvalidURL:
            raise ReceiverError(
                f"webhook.urls: {url} cannot be used; expected https://HOST[:PORT]/PATH"
            ) from None
        self.name = url.sink
        self._url = url
        self._signer = signer
        self._source = source
        self._timeout_seconds = timeout_seconds
        self._client = httpx2.AsyncClient(
            verify=trust if trust is not None else True,
            timeout=timeout_seconds,
            follow_redirects=False,
            trust_env=False,
            limits=httpx2.Limits(max_connections=ATTEMPTS_AT_A_TIME),
            headers={"user-agent": f"gvvad/{version('gvvad')}", "content-type": CONTENT_TYPE},
        )

    async def start(self, ready: Callable[[], None], lost: Callable[[str], None]) -> None:
        """Nothing to do: every attempt finds out by itself."""

    async def deliver(self, due: DueDelivery) -> Failure | None:
        """Try once; None where the receiver took it."""
        body = event_bytes(due.change, self._source)
        headers = self._signer.headers(due.delivery.event_id, time.time(), body)
        request = self._client.build_request(
            "POST", self._url.reveal(), content=body, headers=headers
        )
        try:
            # The client's own timeouts are of single reads: a drip would last for ever.
            async with asyncio.timeout(self._timeout_seconds):
                answer = await self._client.send(request, stream=True)
        except (TimeoutError, httpx2.TimeoutException):
            return Failure(f"no answer within {self._timeout_seconds:g} s")
        except httpx2.RemoteProtocolError:
            return Failure("its answer was not HTTP, or broke off")
        except httpx2.TransportError as error:
            # Some have no words but their name.
            return Failure(one_line(self._url.redact(str(error) or type(error).__name__)))
        await _drain(answer)
        return _verdict(answer)

    async def stop(self) -> None:
        """Let go of the connections."""
        await self._client.aclose()


async def _drain(answer: httpx2.Response) -> None:
    """Read what little an honest receiver says, so that the connection can be used again."""
    read = 0
    with contextlib.suppress(TimeoutError, httpx2.TransportError):
        async with asyncio.timeout(_DRAIN_SECONDS):
            # Raw: a few bytes that unpack to gigabytes stay a few bytes.
            async for piece in answer.aiter_raw():
                read += len(piece)
                if read >= _DRAIN_BYTES:
                    break
    await answer.aclose()


def _verdict(answer: httpx2.Response) -> Failure | None:
    status = answer.status_code
    if 200 <= status < 300:
        return None
    shown = f"answered {status}{_phrase(status)}"
    if status == HTTPStatus.GONE:
        return Failure(f"{shown}: it wants no more events", Retry.NEVER)
    if 300 <= status < 400:
        return Failure(f"{shown}: redirects are not followed", Retry.SLOWLY)
    if 400 <= status < 500 and status not in _TRY_LATER:
        return Failure(shown, Retry.SLOWLY)
    asked = _asked_seconds(answer.headers.get("retry-after")) if status in _MAY_ASK else None
    return Failure(shown, Retry.SOON, asked)


def _phrase(status: int) -> str:
    # Not the receiver's own, which may be anything.
    try:
        return f" {HTTPStatus(status).phrase}"
    except ValueError:
        return ""


def _asked_seconds(text: str | None) -> float | None:
    """What `Retry-After` asks for, in seconds or as a date; None where it makes no sense."""
    if text is None:
        return None
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.now(UTC)).total_seconds())
