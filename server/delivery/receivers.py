"""Addresses of receivers, which never show their credentials.

Unlike a camera's, a webhook's path is often itself the secret, so that nothing of
a URL is ever shown but scheme, host and port.
"""

from __future__ import annotations

import hashlib
import re
from urllib.parse import SplitResult, unquote, urlsplit

MAX_URL_LENGTH = 2048
MAX_HOST_LENGTH = 200  # a sink's name has to fit into its column

_SHORTEST_SECRET = 4
"""Characters; to blot out shorter ones would blot out words."""

_PORTS = {"http": 80, "https": 443, "mqtt": 1883, "mqtts": 8883}
_UNSAFE = re.compile(r"[^\x21-\x7e]|\\")
_HOST = re.compile(r"[\w.-]+|[0-9a-fA-F:.]+")


class ReceiverError(ValueError):
    """A receiver that cannot be used; the message is one sentence without credentials."""


class _Url:
    """What webhooks and brokers have in common; equal where the texts are."""

    __slots__ = ("_parts", "_text")
    _schemes: tuple[str, ...]
    _example: str

    def __init__(self, text: str) -> None:
        self._text = text
        if len(text) > MAX_URL_LENGTH:
            raise ReceiverError(
                f"it has {len(text)} characters and must have at most {MAX_URL_LENGTH}"
            )
        if _UNSAFE.search(text):
            raise ReceiverError("it holds a space or a letter that must be percent-encoded")
        self._parts = parts = _split(text)
        if parts.scheme not in self._schemes:
            raise ReceiverError(f"it must be a URL like {self._example}")
        if not _HOST.fullmatch(self.host) or len(self.host) > MAX_HOST_LENGTH:
            raise ReceiverError(f"it must name a host, as {self._example} does")
        if parts.fragment:
            raise ReceiverError("it must not hold '#'; write %23 where that is meant")

    @property
    def host(self) -> str:
        """Host name or address."""
        return self._parts.hostname or ""

    @property
    def port(self) -> int:
        """TCP port, the scheme's default where none is given."""
        return self._parts.port or _PORTS[self._parts.scheme]

    @property
    def address(self) -> str:
        """`host:port`, without the port where it is the scheme's default."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self._parts.scheme] else f"{host}:{self.port}"

    def reveal(self) -> str:
        """The whole URL, for the client that connects to it alone."""
        return self._text

    def redact(self, message: str) -> str:
        """`message` without anything of this URL that may be secret."""
        parts = self._parts
        login = [parts.password or "", parts.username or ""]
        secrets = [self._text, parts.query, parts.path.strip("/"), *login]
        for secret in sorted({*secrets, *map(unquote, secrets)}, key=len, reverse=True):
            if len(secret) >= _SHORTEST_SECRET:
                message = message.replace(secret, "***")
        return message

    def __str__(self) -> str:
        hidden = "/***" if self._parts.path not in ("", "/") or self._parts.query else ""
        return f"{self._parts.scheme}://{self.address}{hidden}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Url) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


class WebhookUrl(_Url):
    """An http:// or https:// URL that takes events.

    >>> print(WebhookUrl("https://joe:secret@hooks.example.com/T00/token"))
    https://hooks.example.com/***

    Raises:
        ReceiverError: it is none.
    """

    __slots__ = ()
    _schemes = ("http", "https")
    _example = "https://HOST[:PORT]/PATH"

    @property
    def sink(self) -> str:
        """Name of the receiver, which stays when its password or query changes.

        Paths are told apart by six digits of their hash.

        >>> WebhookUrl("https://hooks.example.com/").sink
        'webhook:hooks.example.com'
        >>> WebhookUrl("https://hooks.example.com/T00/token").sink
        'webhook:hooks.example.com/7ea56c'
        """
        path = self._parts.path
        if path in ("", "/"):
            return f"webhook:{self.address}"
        return f"webhook:{self.address}/{hashlib.sha256(path.encode()).hexdigest()[:6]}"


class BrokerUrl(_Url):
    """An mqtt:// or mqtts:// URL of a broker, with a user where it asks for one.

    >>> BrokerUrl("mqtts://gvvad@broker:8884").sink
    'mqtt:broker:8884'

    Raises:
        ReceiverError: it is none, or holds a password.
    """

    __slots__ = ()
    _schemes = ("mqtt", "mqtts")
    _example = "mqtt://[USER@]HOST[:PORT]"

    def __init__(self, text: str) -> None:
        super().__init__(text)
        if self._parts.password is not None:
            raise ReceiverError("it must not hold a password; give that in mqtt.password_file")
        if self._parts.path not in ("", "/") or self._parts.query:
            raise ReceiverError(f"it must end with the host or port, as in {self._example}")

    @property
    def user(self) -> str | None:
        """Whom the broker knows us as; None where it does not ask."""
        return unquote(self._parts.username) if self._parts.username else None

    @property
    def is_encrypted(self) -> bool:
        """Whether TLS carries it."""
        return self._parts.scheme == "mqtts"

    @property
    def sink(self) -> str:
        """Name of the receiver."""
        return f"mqtt:{self.address}"


def _split(text: str) -> SplitResult:
    try:
        parts = urlsplit(text)
        usable = parts.port != 0 and not parts.netloc.endswith(":")
    except ValueError:
        usable = False
    if not usable:
        raise ReceiverError("it is not a URL; its port must be 1 to 65535 or left out")
    return parts
