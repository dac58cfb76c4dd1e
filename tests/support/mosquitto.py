"""Debian's mosquitto as a private process, and a client that hears everything on it."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from tests.support.cameras import free_port
from tests.support.programs_of_debian import find_program

WAIT_SECONDS = 20


class Mosquitto:
    """A broker on a free port that can be stopped and started again.

    Args:
        directory: for its settings, its users and what it retains.
        login: the only user and password; None lets everybody in.
        certificate: file with certificate and key: it speaks TLS.
    """

    def __init__(
        self,
        directory: Path,
        login: tuple[str, str] | None = None,
        certificate: Path | None = None,
    ) -> None:
        program = find_program("mosquitto")
        assert program is not None
        self.port = free_port()
        self.certificate = certificate
        self.login = login
        lines = [f"listener {self.port} localhost", "persistence true"]
        lines += [f"persistence_location {directory}/", "user root"]
        if login is not None:
            users = directory / "users"
            made = ["mosquitto_passwd", "-b", "-c", str(users), *login]
            subprocess.run(made, check=True, capture_output=True, timeout=30)
            lines += [f"password_file {users}"]
        lines += [f"allow_anonymous {'true' if login is None else 'false'}"]
        if certificate is not None:
            lines += [f"certfile {certificate}", f"keyfile {certificate}"]
        settings = directory / "mosquitto.conf"
        settings.write_text("\n".join(lines) + "\n")
        self._command = [program, "-c", str(settings)]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        user = f"{self.login[0]}@" if self.login else ""
        return f"mqtt{'s' if self.certificate else ''}://{user}localhost:{self.port}"

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + WAIT_SECONDS
        while not _listens(self.port):
            assert self._process.poll() is None, "mosquitto ended"
            assert time.monotonic() < deadline, "mosquitto does not listen"
            time.sleep(0.02)

    def stop(self) -> None:
        """SIGTERM: it keeps what is retained."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(10)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("localhost", port), timeout=1).close()
    except OSError:
        return False
    return True


@dataclass
class Listener:
    """What was published: the newest message of every topic, and all in their order."""

    retained: dict[str, str] = field(default_factory=dict)
    messages: list[tuple[str, str]] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def take(self, message: MQTTMessage) -> None:
        payload = message.payload.decode()
        with self.changed:
            self.messages.append((message.topic, payload))
            self.retained[message.topic] = payload
            if not payload:
                del self.retained[message.topic]
            self.changed.notify_all()

    def of(self, topic: str) -> list[str]:
        """All messages of a topic so far."""
        with self.changed:
            return [payload for found, payload in self.messages if found == topic]

    def wait_for(self, reached: Callable[[Listener], bool], seconds: float = WAIT_SECONDS) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: reached(self), seconds), self.messages[-20:]

    def wait_for_newest(self, topic: str, payload: str) -> None:
        self.wait_for(lambda found: found.retained.get(topic) == payload)


@contextmanager
def listening(broker: Mosquitto) -> Iterator[Listener]:
    """A client that hears every topic of a broker, and comes back when that does."""
    listener, subscribed = Listener(), threading.Event()
    client = Client(CallbackAPIVersion.VERSION2)
    if broker.login is not None:
        client.username_pw_set(*broker.login)
    if broker.certificate is not None:
        client.tls_set_context(ssl.create_default_context(cafile=str(broker.certificate)))
    client.reconnect_delay_set(1, 1)
    client.on_connect = lambda client, *_: client.subscribe("#", 1)
    client.on_subscribe = lambda *_: subscribed.set()
    client.on_message = lambda _, __, message: listener.take(message)
    client.connect_async("localhost", broker.port)
    client.loop_start()
    try:
        assert subscribed.wait(WAIT_SECONDS), "the listener could not subscribe"
        yield listener
    finally:
        client.disconnect()
        client.loop_stop()
