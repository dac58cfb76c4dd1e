"""What a stream is: its configuration, its states and the reasons behind them.

Credentials live in `SourceUrl`, whose text form is always redacted; the full
URL leaves it only through `reveal`, which the ingest worker alone calls.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from urllib.parse import urlsplit, urlunsplit

STREAM_ID = re.compile(r"[a-z0-9-]{1,63}")
SCHEMES = ("rtsp", "rtsps", "file")


class Mode(Enum):
    """Who connects to whom."""

    PULL = "pull"  # the server connects to the camera
    LISTEN = "listen"  # the camera pushes to a port of ours


class Transport(Enum):
    """What carries RTP of a pulled stream."""

    TCP = "tcp"
    UDP = "udp"


class StreamState(Enum):
    """Where a stream is in its life."""

    CONNECTING = "connecting"
    RUNNING = "running"
    BACKING_OFF = "backing_off"
    PARKED = "parked"
    ENDED = "ended"


class Reason(Enum):
    """Why a stream is not running; stable names, also metric labels."""

    AUTH_FAILED = "auth_failed"
    TIMEOUT = "timeout"
    NOT_FOUND = "not_found"
    TLS_FAILED = "tls_failed"
    CODEC_UNSUPPORTED = "codec_unsupported"
    NO_VIDEO = "no_video"
    STALE = "stale"
    ADDRESS_DENIED = "address_denied"
    END_OF_STREAM = "end_of_stream"
    WORKER_LOST = "worker_lost"
    UNREACHABLE = "unreachable"
    INTERNAL = "internal"


class SourceError(OSError):
    """A source that cannot be read.

    Attributes:
        reason: the stable reason.
        sentence: what happened and what to do, without credentials.
    """

    def __init__(self, reason: Reason, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason
        self.sentence = sentence


class SourceUrl:
    """A source URL that never shows its credentials.

    >>> print(SourceUrl("rtsp://joe:secret@10.0.0.5/cam"))
    rtsp://***@10.0.0.5/cam

    Raises:
        ValueError: not a URL with one of the schemes of `SCHEMES`, a host for
            RTSP and an absolute path for files.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text
        parts = _split(text)
        if parts.scheme not in SCHEMES:
            allowed = ", ".join(f"{scheme}://" for scheme in SCHEMES)
            raise ValueError(f"source URL must start with one of {allowed} (got {_shown(text)!r})")
        if parts.scheme == "file":
            if parts.netloc or not parts.path.startswith("/"):
                raise ValueError("a file source is file:///absolute/path, without a host")
        elif not parts.hostname:
            raise ValueError(
                f"source URL {str(self)!r} has no host; expected rtsp://HOST[:PORT]/PATH"
            )

    @property
    def scheme(self) -> str:
        return _split(self._text).scheme

    @property
    def host(self) -> str:
        """Host name or address; empty for files."""
        return _split(self._text).hostname or ""

    @property
    def port(self) -> int:
        """TCP port, the scheme's default where none is given."""
        default = 322 if self.scheme == "rtsps" else 554
        return _split(self._text).port or default

    @property
    def path(self) -> str:
        return _split(self._text).path

    def reveal(self) -> str:
        """The URL with its credentials, for FFmpeg and the store alone."""
        return self._text

    def redact(self, message: str) -> str:
        """`message` without this URL's credentials, whatever form they took."""
        parts = _split(self._text)
        message = message.replace(self._text, str(self))
        for secret in filter(None, (parts.password, parts.username)):
            if len(secret) > 2 or secret == parts.password:
                message = message.replace(secret, "***")
        return message

    def __str__(self) -> str:
        parts = _split(self._text)
        if "@" not in parts.netloc:
            return self._text
        host = parts.netloc.rsplit("@", 1)[1]
        return urlunsplit(parts._replace(netloc=f"***@{host}"))

    def __repr__(self) -> str:
        return f"SourceUrl({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SourceUrl) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """What a client asked for.

    Attributes:
        stream_id: `[a-z0-9-]{1,63}`, immutable.
        url: where the video comes from.
        mode: PULL, or LISTEN for a camera that pushes to the URL's port.
        transport: of RTP where the stream is pulled.
        open_threshold: score in [0, 1] that opens an event; None takes the bundle's.
    """

    stream_id: str
    url: SourceUrl
    mode: Mode = Mode.PULL
    transport: Transport = Transport.TCP
    open_threshold: float | None = None

    def __post_init__(self) -> None:
        if not STREAM_ID.fullmatch(self.stream_id):
            raise ValueError(f"stream id {self.stream_id!r} must be 1 to 63 of a-z, 0-9 and '-'")
        if self.open_threshold is not None and not 0 < self.open_threshold <= 1:
            raise ValueError(f"open_threshold ({self.open_threshold}) must be over 0 and at most 1")
        if self.mode is Mode.LISTEN and self.url.scheme != "rtsp":
            raise ValueError(f"LISTEN mode takes an rtsp:// URL, not {self.url.scheme}://")


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """What a stream is doing now.

    Attributes:
        state: where it is in its life.
        reason: why it is not running; None while it runs or first connects.
        message: one sentence for people, without credentials.
        frames_decoded: since the stream was created or the server started.
        reconnects: times the source was opened again.
        last_frame_seconds: UTC of the newest frame's arrival; None before the first.
    """

    state: StreamState
    reason: Reason | None = None
    message: str = ""
    frames_decoded: int = 0
    reconnects: int = 0
    last_frame_seconds: float | None = None


def _split(text: str):  # type: ignore[no-untyped-def]
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018  raises where the port is no number
    except ValueError as error:
        raise ValueError(f"source URL {_shown(text)!r} is not a URL: {error}") from None
    return parts


def _shown(text: str) -> str:
    """Text of an unparsable URL, cut before anything that may be a credential."""
    head, at, tail = text.rpartition("@")
    return f"{head.split('://')[0]}://***@{tail}" if at else text
