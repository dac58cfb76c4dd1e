"""A connection to an MQTT broker that comes back by itself.

Paho runs the protocol in a thread of its own; everything here is called from, and
calls back into, one event loop. Nothing is handed to a broker that is not connected,
and a publication counts once the broker has acknowledged it.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from server.delivery.receivers import BrokerUrl
from server.wording import one_line

QOS = 1
_KEEPALIVE_SECONDS = 15
_CONNECT_SECONDS = 5.0
_RECONNECT_SECONDS = (1, 30)
_STOP_SECONDS = 1.0
_QUEUE = 1000
"""Publications that wait for the broker; more are refused."""


@dataclass(frozen=True, slots=True)
class BrokerLogin:
    """How to connect.

    Attributes:
        url: of the broker.
        client_id: the same at every start, so that the broker knows the session.
        password: of the URL's user; None where there is none.
        trust: certificates that are believed; None takes the system's.
        will: topic and payload that the broker publishes, retained, when we vanish.
    """

    url: BrokerUrl
    client_id: str
    password: str | None
    trust: ssl.SSLContext | None
    will: tuple[str, str]


class Broker:
    """One connection. `start` it and `stop` it once, in one event loop.

    Args:
        login: how to connect.
        connected: called in the loop whenever the connection stands.
        lost: called in the loop with the reason whenever it breaks or cannot be made.
        received: called in the loop with topic and payload of a retained message.
    """

    def __init__(
        self,
        login: BrokerLogin,
        connected: Callable[[], None],
        lost: Callable[[str], None],
        received: Callable[[str, bytes], None],
    ) -> None:
        self.is_connected = False
        self.reason = "not connected yet"
        self._login = login
        self._connected = connected
        self._lost = lost
        self._received = received
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._client = self._make_client()

    def start(self) -> None:
        """Connect, now or as soon as the broker is there."""
        self._loop = asyncio.get_running_loop()
        self._client.connect_async(
            self._login.url.host, self._login.url.port, keepalive=_KEEPALIVE_SECONDS
        )
        self._client.loop_start()

    def subscribe(self, topic: str) -> None:
        """Ask for what is retained on a topic."""
        self._client.subscribe(topic, QOS)

    def publish(self, topic: str, payload: str | bytes, *, retain: bool) -> asyncio.Future[None]:
        """Hand a message over; the future ends when the broker has it, if ever.

        Raises:
            ConnectionError: there is no connection, or too much waits on it.
        """
        if self._loop is None or not self.is_connected:
            raise ConnectionError(self.reason)
        sent = self._client.publish(topic, payload, QOS, retain)
        if sent.rc not in (MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_NO_CONN):
            raise ConnectionError(f"the message was not taken ({sent.rc.name})")
        acknowledged = self._loop.create_future()
        # Its acknowledgement comes through this loop, so never before this line.
        self._waiting[sent.mid] = acknowledged
        acknowledged.add_done_callback(lambda _: self._waiting.pop(sent.mid, None))
        return acknowledged

    async def stop(self) -> None:
        """Disconnect in good order, unless that takes too long."""
        self._client.disconnect()
        # It waits for a thread that may be within a connect; nothing waits for this one.
        stopping = threading.Thread(target=self._client.loop_stop, daemon=True)
        stopping.start()
        await asyncio.to_thread(stopping.join, _STOP_SECONDS)

    def _make_client(self) -> Client:
        login = self._login
        client = Client(
            CallbackAPIVersion.VERSION2,
            login.client_id,
            clean_session=False,
            protocol=MQTTProtocolVersion.MQTTv311,
        )
        client.connect_timeout = _CONNECT_SECONDS
        client.reconnect_delay_set(*_RECONNECT_SECONDS)
        client.max_queued_messages_set(_QUEUE)
        client.username_pw_set(login.url.user, login.password)
        client.will_set(*login.will, QOS, retain=True)
        if login.url.is_encrypted:
            client.tls_set_context(login.trust or ssl.create_default_context())
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        return client

    # Called by Paho in its own thread

    def _on_connect(
        self, _: Client, __: Any, ___: ConnectFlags, code: ReasonCode, ____: Properties | None
    ) -> None:
        self._in_loop(self._take_up, None if not code.is_failure else str(code))

    def _on_connect_fail(self, _: Client, __: Any) -> None:
        # Paho calls this while it handles the error, and tells it nowhere else.
        self._in_loop(self._take_down, one_line(str(sys.exception() or "no connection")))

    def _on_disconnect(
        self, _: Client, __: Any, ___: DisconnectFlags, code: ReasonCode, ____: Properties | None
    ) -> None:
        self._in_loop(self._take_down, None)

    def _on_publish(
        self, _: Client, __: Any, mid: int, ___: ReasonCode, ____: Properties | None
    ) -> None:
        self._in_loop(self._acknowledge, mid)

    def _on_message(self, _: Client, __: Any, message: MQTTMessage) -> None:
        if message.retain:
            self._in_loop(self._received, message.topic, message.payload)

    def _in_loop(self, call: Callable[..., None], *arguments: Any) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call, *arguments)

    # Called in the loop

    def _take_up(self, refusal: str | None) -> None:
        if refusal is not None:
            self._take_down(f"the broker refuses us ({refusal})")
            return
        self.is_connected = True
        self._connected()

    def _take_down(self, reason: str | None) -> None:
        # A refusal is followed by a disconnection that has less to say.
        if self.is_connected or reason is not None:
            self.reason = reason or "the broker is gone"
            self._lost(self.reason)
        self.is_connected = False

    def _acknowledge(self, mid: int) -> None:
        waiting = self._waiting.get(mid)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)
