"""Requests to domain values, checked.

What is wrong raises `InvalidError` with a sentence that names the field, its
value and what was expected, and never shows credentials.
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gvvad.v1 import score_pb2, stream_pb2

from server.pushed import PushedFrame, PushFormat
from server.rpc import tuning_messages
from server.rpc.mapping import (
    CODEC_OF,
    MODE_OF,
    TRANSPORT_OF,
    stream_id,
    stream_name,
)
from server.rpc.wire import InvalidError
from server.streams import (
    MAX_URL_LENGTH,
    STREAM_ID,
    Mode,
    SourceUrl,
    StreamConfig,
    Transport,
    shown,
)
from server.tuning import AlertTuning

MUTABLE = (
    "url",
    "mode",
    "transport",
    "open_threshold",
    "alert_policy",
    "snooze_until_time",
    "quiet_hours",
    "evidence_mode",
    "masks",
    "sampling",
    "sampling_when_full",
    "priority",
)
POLICY_FIELDS = {
    f"alert_policy.{name}": field
    for name, field in {
        "close_threshold": "close_threshold",
        "min_duration": "min_duration_seconds",
        "merge_gap": "merge_gap_seconds",
        "max_duration": "max_duration_seconds",
        "cooldown": "cooldown_seconds",
    }.items()
}
"""Paths into a stream's alert policy, and the fields of `AlertTuning` that they stand for."""

DEFAULT_PAGE = 50
LARGEST_PAGE = 200

# What a Timestamp may hold, in seconds since 1970.
_YEAR_1, _YEAR_10000 = -62_135_596_800, 253_402_300_800

# As the API shows credentials: before the host, or as the value of a query field.
_REDACTED = re.compile(r"://\*\*\*@|=\*\*\*(?=[&;/?#]|$)")


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of the streams to list.

    Attributes:
        size: most streams, 1 to `LARGEST_PAGE`.
        after: id that the page begins after; empty for the first page.
    """

    size: int
    after: str


def new_config(request: stream_pb2.CreateStreamRequest) -> StreamConfig:
    """The stream to create, with an id of the server's where none is given.

    Raises:
        InvalidError: no URL, or a field that cannot be used.
    """
    chosen = _new_id(request.stream_id, "stream_id")
    if not request.stream.url:
        raise InvalidError("stream.url is required; give it as rtsp://HOST[:PORT]/PATH")
    url = _source_url(request.stream.url)
    if _is_redacted(url):
        raise _redacted_error(url)
    return _checked_config(StreamConfig(chosen, url), url, request.stream, MUTABLE)


def updated_config(stored: StreamConfig, request: stream_pb2.UpdateStreamRequest) -> StreamConfig:
    """`stored` with the fields changed that the request's mask names.

    Raises:
        InvalidError: a path that cannot change, or a field that cannot be used.
    """
    message = request.stream
    paths = _changed_paths(request)
    url = stored.url
    if "url" in paths and (message.url or "*" not in request.update_mask.paths):
        url = _changed_url(stored.url, message.url)
    return _checked_config(stored, url, message, paths)


def page(request: stream_pb2.ListStreamsRequest) -> Page:
    """The page to list.

    Raises:
        InvalidError: a negative size, or a token that no page came with.
    """
    size = page_size(request.page_size)
    return Page(size, _after(request.page_token) if request.page_token else "")


def page_size(asked: int) -> int:
    """Most items of a page, where a client asks for so many.

    Raises:
        InvalidError: it is negative.
    """
    if asked < 0:
        raise InvalidError(
            f"page_size ({asked}) must be 0 to {LARGEST_PAGE}; 0 means {DEFAULT_PAGE}"
        )
    # AIP-158: too large a size is cut down, not refused.
    return min(asked or DEFAULT_PAGE, LARGEST_PAGE)


def page_token(last_id: str) -> str:
    """Token of the page that follows a stream."""
    # A position by id, not by count: streams that come and go do not shift it.
    return base64.urlsafe_b64encode(stream_name(last_id).encode()).decode()


@dataclass(frozen=True, slots=True)
class PushStart:
    """What the first message of ScoreVideo asks for.

    Attributes:
        stream_id: the stream to push to; None makes a temporary one.
        temporary_id: id of the temporary one.
        push: what will be sent.
    """

    stream_id: str | None
    temporary_id: str
    push: PushFormat


def push_start(request: score_pb2.ScoreVideoRequest) -> PushStart:
    """The first message of ScoreVideo.

    Raises:
        InvalidError: it is no start, or a field cannot be used.
    """
    if request.WhichOneof("content") != "start":
        raise InvalidError("the first message must be a start; frames come after it")
    start = request.start
    named = stream_id(start.stream, "start.stream") if start.stream else None
    if named is not None and start.temporary_stream_id:
        raise InvalidError(
            f"start.temporary_stream_id ({shown(start.temporary_stream_id)!r}) must be empty where "
            "start.stream names a stream"
        )
    return PushStart(
        named, _new_id(start.temporary_stream_id, "start.temporary_stream_id"), _push_format(start)
    )


def pushed_frame(request: score_pb2.ScoreVideoRequest, arrival_seconds: float) -> PushedFrame:
    """Every later message of ScoreVideo, with the monotonic time at which it came.

    Raises:
        InvalidError: it is no frame, or a field cannot be used.
    """
    if request.WhichOneof("content") != "frame":
        raise InvalidError("every message after the first must be a frame")
    frame = request.frame
    if not frame.data:
        raise InvalidError("frame.data is required; send one access unit, JPEG file or picture")
    if not frame.HasField("time"):
        raise InvalidError("frame.time is required; give when the frame was taken, in UTC")
    in_range = _YEAR_1 <= frame.time.seconds < _YEAR_10000 and 0 <= frame.time.nanos < 10**9
    if not in_range:
        raise InvalidError(
            f"frame.time ({frame.time.seconds} s, {frame.time.nanos} ns) must lie between the "
            "years 1 and 9999, with 0 to 999999999 ns"
        )
    return PushedFrame(frame.data, frame.time.ToMicroseconds(), arrival_seconds)


def _push_format(start: score_pb2.VideoStart) -> PushFormat:
    if start.codec not in CODEC_OF:
        names = ", ".join(score_pb2.VideoCodec.keys()[1:])
        raise InvalidError(f"start.codec ({start.codec}) must be one of {names}")
    if start.delivery not in score_pb2.Delivery.values():
        raise InvalidError(
            f"start.delivery ({start.delivery}) must be DELIVERY_LOSSLESS (1) or DELIVERY_LIVE (2)"
        )
    lossless = start.delivery != score_pb2.DELIVERY_LIVE
    try:
        return PushFormat(CODEC_OF[start.codec], start.width, start.height, lossless)
    except ValueError as error:
        raise InvalidError(f"start: {error}") from None


def _new_id(wanted: str, field: str) -> str:
    # 48 random bits: a clash is ALREADY_EXISTS, and nobody lives to see one.
    chosen = wanted or secrets.token_hex(6)
    if not STREAM_ID.fullmatch(chosen):
        raise InvalidError(f"{field} ({shown(chosen)!r}) must be 1 to 63 of a-z, 0-9 and '-'")
    return chosen


def _after(token: str) -> str:
    try:
        name = base64.b64decode(token, altchars=b"-_", validate=True).decode()
        return stream_id(name, "page_token")
    except (binascii.Error, ValueError):
        raise InvalidError(
            f"page_token ({shown(token)[:80]!r}) must be the next_page_token of the page before"
        ) from None


def _changed_paths(request: stream_pb2.UpdateStreamRequest) -> Sequence[str]:
    paths = list(request.update_mask.paths)
    for path in paths:
        if path not in (*MUTABLE, *POLICY_FIELDS, "*"):
            raise InvalidError(
                f"update_mask path {shown(path)!r} cannot be changed; "
                f"name any of {', '.join(MUTABLE)}"
            )
    if "*" in paths:
        return MUTABLE
    # AIP-134: an absent mask stands for the fields that are there.
    present = {field.name for field, _ in request.stream.ListFields()}
    return paths or [path for path in MUTABLE if path in present]


def _checked_config(
    config: StreamConfig, url: SourceUrl, message: stream_pb2.Stream, paths: Sequence[str]
) -> StreamConfig:
    mode, transport, threshold = config.mode, config.transport, config.open_threshold
    if "mode" in paths:
        mode = _mode(message.mode)
    if "transport" in paths:
        transport = _transport(message.transport)
    if "open_threshold" in paths:
        threshold = message.open_threshold if message.HasField("open_threshold") else None
    load = _load(message, paths)
    try:
        # All at once: URL and mode must suit each other as they will be, not in between.
        changed = replace(config, url=url, mode=mode, transport=transport, open_threshold=threshold)
        return replace(
            changed,
            alerts=_tuning(config.alerts, message, paths),
            evidence_mode=(
                tuning_messages.evidence_mode(message)
                if "evidence_mode" in paths
                else config.evidence_mode
            ),
            masks=tuning_messages.masks(message) if "masks" in paths else config.masks,
            **load,
        )
    except ValueError as error:
        raise InvalidError(f"stream: {error}") from None


def _load(message: stream_pb2.Stream, paths: Sequence[str]) -> dict[str, Any]:
    """What a stream asks of the engine, as far as it changes."""
    read: dict[str, Callable[[], object]] = {
        "sampling": lambda: tuning_messages.sampling(message.sampling, "stream.sampling"),
        "sampling_when_full": lambda: tuning_messages.sampling_when_full(message),
        "priority": lambda: tuning_messages.priority(message),
    }
    return {name: value() for name, value in read.items() if name in paths}


def _tuning(stored: AlertTuning, message: stream_pb2.Stream, paths: Sequence[str]) -> AlertTuning:
    named = _alert_fields(paths)
    if not named:
        return stored
    sent = tuning_messages.alert_tuning(message)
    return replace(stored, **{name: getattr(sent, name) for name in named})


def _alert_fields(paths: Sequence[str]) -> list[str]:
    """Fields of a stream's alert tuning that paths of a mask stand for."""
    fields = {
        "alert_policy": list(POLICY_FIELDS.values()),
        **{path: [field] for path, field in POLICY_FIELDS.items()},
        "snooze_until_time": ["snooze_until_seconds"],
        "quiet_hours": ["quiet_hours"],
    }
    return [field for path in paths for field in fields.get(path, [])]


def _source_url(text: str) -> SourceUrl:
    if len(text) > MAX_URL_LENGTH:
        raise InvalidError(
            f"stream.url has {len(text)} characters and must have at most {MAX_URL_LENGTH}"
        )
    try:
        return SourceUrl(text)
    except ValueError as error:
        raise InvalidError(f"stream.url: {error}") from None


def _changed_url(stored: SourceUrl, text: str) -> SourceUrl:
    url = _source_url(text)
    if not _is_redacted(url):
        return url
    # A client that reads a stream, edits a field and writes it all back sends this.
    if text == str(stored):
        return stored
    raise _redacted_error(url)


def _is_redacted(url: SourceUrl) -> bool:
    return _REDACTED.search(url.reveal()) is not None


def _redacted_error(url: SourceUrl) -> InvalidError:
    return InvalidError(
        f"stream.url ({url}) has *** in place of its credentials; give the real ones"
    )


def _mode(value: stream_pb2.Mode.ValueType) -> Mode:
    if value == stream_pb2.MODE_UNSPECIFIED:
        return Mode.PULL
    # proto3 enums are open: any number arrives.
    if value not in MODE_OF:
        raise InvalidError(f"stream.mode ({value}) must be MODE_PULL (1) or MODE_LISTEN (2)")
    return MODE_OF[value]


def _transport(value: stream_pb2.Transport.ValueType) -> Transport:
    if value == stream_pb2.TRANSPORT_UNSPECIFIED:
        return Transport.TCP
    if value not in TRANSPORT_OF:
        raise InvalidError(
            f"stream.transport ({value}) must be TRANSPORT_TCP (1) or TRANSPORT_UDP (2)"
        )
    return TRANSPORT_OF[value]
