"""What a stream is: its configuration, its states and the reasons behind them.

Credentials live in `SourceUrl`, whose text form is always redacted; the full
URL leaves it only through `reveal`, which the ingest worker alone calls.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import Enum
from urllib.parse import SplitResult, quote, unquote, urlsplit, urlunsplit

from server.sampling import (
    DEFAULT_PRIORITY,
    EVERY_WINDOW,
    Sampling,
    check_priority,
    check_sampling_when_full,
)
from server.tuning import AlertTuning, EvidenceMode, Mask, check_masks

STREAM_ID = re.compile(r"[a-z0-9-]{1,63}")
SCHEMES = ("rtsp", "rtsps", "file", "push")
PUSHED = "push://"
"""Source URL of a stream whose video clients send."""

MAX_URL_LENGTH = 2048
MAX_LOGIN_BYTES = 127
"""Of `user:password` as it stands in the URL; FFmpeg cuts a longer one off without a word."""

# What urlsplit and FFmpeg could read differently, or what could end a request line.
_UNSAFE = re.compile(r"[\x00-\x20\x7f\\]")
_ENCODED_CONTROL = re.compile("%(?:[01][0-9a-f]|7f)", re.IGNORECASE)
_HOST_AND_PORT = re.compile(r"([\w.-]+|\[[0-9a-fA-F:.]+(%\w+)?\])(:\d+)?")
# Its value runs on to the next field, whatever it holds: some write '/' or '@' as they are.
_SECRET_FIELD = re.compile(
    r"(?P<field>(?:user(?:name)?|pass\w{0,16}|pwd|psw|pw|token|secret|auth|key))"
    r"=(?P<secret>.+?)(?=[&;][\w.-]+=|$)",
    re.IGNORECASE | re.DOTALL,
)
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_LOGIN_WITHOUT_HOST = re.compile(
    r"\A([^:]*:(?://+[^/?#:]*:)?)(?!//|\d{1,5}(?:[/?#]|$)).+", re.DOTALL
)
_ENCODED = re.compile("%[0-9A-F]{2}")


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
    PICTURE_TOO_LARGE = "picture_too_large"


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

    Credentials are the user and password before the host, and the values of
    such query fields as `password=` or `token=` that some cameras want instead.

    >>> print(SourceUrl("rtsp://joe:secret@10.0.0.5/cam"))
    rtsp://***@10.0.0.5/cam
    >>> print(SourceUrl("rtsp://10.0.0.5/cam?channel=1&pwd=secret"))
    rtsp://10.0.0.5/cam?channel=1&pwd=***

    Raises:
        ValueError: not a URL with one of the schemes of `SCHEMES`, a host for
            RTSP, an absolute path for files and nothing else for pushes; or one
            that FFmpeg would read differently.
    """

    __slots__ = ("_parts", "_text")

    def __init__(self, text: str) -> None:
        self._parts = parts = _split(text)
        self._text = parts.scheme + text[len(parts.scheme) :]  # FFmpeg knows no RTSP://
        if parts.scheme not in SCHEMES:
            allowed = ", ".join(f"{scheme}://" for scheme in SCHEMES)
            raise ValueError(f"source URL must start with one of {allowed} (got {shown(text)!r})")
        if parts.scheme == "push":
            if self._text != PUSHED:
                raise ValueError(f"the source of a stream that clients push is just {PUSHED}")
            return
        if parts.scheme == "file":
            if parts.netloc or not parts.path.startswith("/"):
                raise ValueError("a file source is file:///absolute/path, without a host")
            if parts.query or parts.fragment:
                raise ValueError("a file source holds '?' or '#'; percent-encode them (%3F, %23)")
            return
        login, _, address = parts.netloc.rpartition("@")
        if len(login.encode()) > MAX_LOGIN_BYTES:
            raise ValueError(
                f"the login in source URL {str(self)!r} has {len(login.encode())} bytes; at most "
                f"{MAX_LOGIN_BYTES} go, and what is percent-encoded counts three times"
            )
        if not _HOST_AND_PORT.fullmatch(address):
            raise ValueError(
                f"source URL {shown(text)!r} has no host; expected rtsp://HOST[:PORT]/PATH"
            )
        if "@" in _SECRET_FIELD.sub("", urlunsplit(parts._replace(scheme="", netloc=""))):
            # Left as it is, half of a password with a '/' in it would be the path.
            raise ValueError(
                f"source URL {shown(text)!r} holds '@' after its host; percent-encode it as %40, "
                "and '/', '?' and '#' in a password as %2F, %3F and %23"
            )

    @property
    def scheme(self) -> str:
        """One of `SCHEMES`."""
        return self._parts.scheme

    @property
    def host(self) -> str:
        """Host name or address; empty for files."""
        return self._parts.hostname or ""

    @property
    def port(self) -> int:
        """TCP port, the scheme's default where none is given."""
        return self._parts.port or (322 if self.scheme == "rtsps" else 554)

    @property
    def path(self) -> str:
        """Path as it stands in the URL, percent-encoded; may hold credentials of odd cameras."""
        return self._parts.path

    @property
    def has_login(self) -> bool:
        """Whether a user or password stands before the host."""
        return "@" in self._parts.netloc

    def reveal(self) -> str:
        """The URL with its credentials, for FFmpeg and the store alone."""
        return self._text

    def redact(self, message: str) -> str:
        """`message` without this URL's credentials, percent-encoded or not.

        A user name counts only as a whole word, so that "cam" leaves "camera" alone.

        >>> SourceUrl("rtsp://joe:p%40ss@h/cam").redact("login joe with p@ss (p%40ss) failed")
        'login *** with *** (***) failed'
        """
        message = message.replace(self._text, str(self))
        fields = [match.group("secret") for match in _SECRET_FIELD.finditer(self._text)]
        for secret in _spellings([self._parts.password, *fields]):
            message = message.replace(secret, "***")
        for user in _spellings([self._parts.username]):
            message = re.sub(rf"(?<!\w){re.escape(user)}(?!\w)", "***", message)
        return message

    def __str__(self) -> str:
        parts = self._parts
        if parts.scheme == "push":
            return PUSHED  # urlunsplit would leave its slashes out
        if self.has_login:
            parts = parts._replace(netloc="***@" + parts.netloc.rpartition("@")[2])
        return _SECRET_FIELD.sub(r"\g<field>=***", urlunsplit(parts))

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
        alerts: how scores become alerts beyond that.
        evidence_mode: what is kept of the pictures; None takes the server's default.
        masks: regions that the detector never sees.
        sampling: which windows are scored; all of a lossless stream are.
        sampling_when_full: which ones instead where the server has no room for those; None
            has it refuse the stream then.
        priority: among streams where there is too much to score, 0 to 9, higher first.
    """

    stream_id: str
    url: SourceUrl
    mode: Mode = Mode.PULL
    transport: Transport = Transport.TCP
    open_threshold: float | None = None
    alerts: AlertTuning = field(default_factory=AlertTuning)
    evidence_mode: EvidenceMode | None = None
    masks: tuple[Mask, ...] = ()
    sampling: Sampling = EVERY_WINDOW
    sampling_when_full: Sampling | None = None
    priority: int = DEFAULT_PRIORITY

    @property
    def is_pushed(self) -> bool:
        """Whether clients send the video, and nothing is to be opened for it."""
        return self.url.scheme == "push"

    def tuned_as(self, other: StreamConfig) -> StreamConfig:
        """The same source and pictures, with the other's alerts, sampling and priority."""
        return replace(
            self,
            alerts=other.alerts,
            sampling=other.sampling,
            sampling_when_full=other.sampling_when_full,
            priority=other.priority,
        )

    def __post_init__(self) -> None:
        if not STREAM_ID.fullmatch(self.stream_id):
            raise ValueError(
                f"stream id {shown(self.stream_id)!r} must be 1 to 63 of a-z, 0-9 and '-'"
            )
        if self.open_threshold is not None and not 0 < self.open_threshold <= 1:
            raise ValueError(f"open_threshold ({self.open_threshold}) must be over 0 and at most 1")
        check_masks(self.masks)
        check_sampling_when_full(self.sampling_when_full)
        check_priority(self.priority)
        if self.mode is Mode.LISTEN and self.url.scheme != "rtsp":
            raise ValueError(f"LISTEN mode takes an rtsp:// URL, not {self.url.scheme}://")
        if self.mode is Mode.LISTEN and self.url.has_login:
            raise ValueError(
                "LISTEN mode cannot ask a camera for a password; leave it out of the URL "
                "and listen on an address that only the camera reaches"
            )


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


def shown(text: str) -> str:
    """Any text that may hold a URL, without what may be a credential in it.

    It need be no URL: what was given in place of an id, or one whose password
    cannot be told from its host. Rather too much is left out than too little.

    >>> shown("rtsp://joe:pass/word@10.0.0.5/cam")
    'rtsp://***@10.0.0.5/cam'
    >>> shown("rtsp://joe:password"), shown("front door")
    ('rtsp://joe:***', 'front door')
    """
    text = _SECRET_FIELD.sub(r"\g<field>=***", text)
    scheme = _SCHEME.match(text)
    _, at, address = text.rpartition("@")
    if at:
        return f"{scheme[0] if scheme else ''}***@{address}"
    return _LOGIN_WITHOUT_HOST.sub(r"\1***", text)


def _split(text: str) -> SplitResult:
    if len(text) > MAX_URL_LENGTH:
        raise ValueError(f"source URL has {len(text)} characters; at most {MAX_URL_LENGTH} go")
    if _UNSAFE.search(text) or _ENCODED_CONTROL.search(text) or not text.isprintable():
        raise ValueError(
            f"source URL {shown(text)!r} holds a space, control character or backslash; "
            "percent-encode a space or backslash, leave out the rest"
        )
    try:
        parts = urlsplit(text)
    except ValueError:
        raise ValueError(
            f"source URL {shown(text)!r} is not a URL; expected rtsp://HOST[:PORT]/PATH"
        ) from None
    if not _has_usable_port(parts):
        raise ValueError(
            f"source URL {shown(text)!r} is not a URL: its port must be 1 to 65535 or left out "
            "with its colon; '/', '?' and '#' in a password must be percent-encoded"
        )
    return parts


def _has_usable_port(parts: SplitResult) -> bool:
    if parts.netloc.endswith(":"):
        return False  # FFmpeg would take it for port 0
    try:
        return parts.port != 0
    except ValueError:
        return False


def _spellings(secrets: Iterable[str | None]) -> list[str]:
    """Every form that the secrets may take in a message, the longest first."""
    forms: set[str] = set()
    for secret in filter(None, secrets):
        plain = unquote(secret)
        upper = {secret, quote(plain), quote(plain, safe="")}
        forms |= upper | {plain} | {_ENCODED.sub(lambda m: m[0].lower(), form) for form in upper}
    return sorted(forms, key=len, reverse=True)
