"""Any message of a descriptor: empty, almost right and far off; as hypothesis strategies.

Fields of known names get values that almost make sense, since mere noise never gets
past the first check. No address leads off this machine or needs a name server.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

SECRET = "s3cret"
"""The only password in any URL here; no answer may show it."""

NOISE = (
    *("\x00", "\n", "\u2028", "\u202e", "%s", "{0}", "../..", "' or 1=1 --", "x" * 5_000),
    *("\u2603" * 3_000, "\U0001f600" * 9_000, "x" * 40_000),
)


def _mostly(
    usual: st.SearchStrategy[Any], seldom: st.SearchStrategy[Any]
) -> st.SearchStrategy[Any]:
    return st.integers(0, 7).flatmap(lambda roll: usual if roll else seldom)


def _mostly_of(usual: Sequence[str], seldom: Sequence[str]) -> st.SearchStrategy[str]:
    return _mostly(st.sampled_from(usual), st.sampled_from(seldom))


SCHEMES = _mostly_of(["rtsp"], ["rtsps", "file", "RTSP", "http", ""])
LOGINS = _mostly_of(
    ["", f"joe:{SECRET}@"], ["joe@", "***@", ":@", f"j%00e:{SECRET}@", f"a@b:{SECRET}@"]
)
HOSTS = _mostly_of(
    ["127.0.0.1", "localhost", "[::1]"],
    [
        *("", "[::1", "[::]", "a..b", "x" * 300, "2130706433", "\u2100", "0.0.0.0", "224.0.0.1"),
        *("169.254.169.254", "[::ffff:169.254.169.254]", "[fe80::1%eth0]"),
    ],
)
PORTS = _mostly_of(["", ":1", ":65535"], [":65536", ":0", ":-1", ":x", ":\u0663", ":"])
TAILS = st.sampled_from(["cam", "", f"cam?password={SECRET}", "nonexistent/clips/a.mp4"])
ODD_TAILS = [
    *("cam?token=***", "***", "%00", "%0d%0a", "%zz", "a b", "etc/passwd", "x" * 2_048),
    *("nonexistent/clips/../../etc/passwd", "\u2603" * 2_000),
]

ALMOST: dict[str, st.SearchStrategy[Any]] = {
    "temporary_stream_id": _mostly_of(["", "guest"], ["door", "Guest", "a" * 64, "guest\n"]),
    "stream_id": _mostly_of(
        ["cam", "door", "-", "a" * 63, ""], ["a" * 64, "Door", "dóor", "a\n", ".."]
    ),
    "alert_id": _mostly_of(
        ["0123456789abcdef", "f" * 16], ["", "0123456789ABCDEF", "0" * 17, "door", "0" * 15 + "\n"]
    ),
    "cursor": _mostly_of(
        ["", "YWxlcnRzLzEvMA=="], ["YWxlcnRzLzEvNw==", "YWxlcnRzLzIvMA==", "//8=", "!", "="]
    ),
    "note": _mostly_of(["", "a cat", "\u2603" * 2_000], ["x" * 2_001, "a\0b"]),
    "page_token": st.sampled_from(
        ["c3RyZWFtcy9kb29y", "c3RyZWFtcy9kb29", "c3RyZWFtcy9Eb29y", "//8=", "_-8=", "!", "="]
    ),
    "paths": _mostly_of(
        ["url", "mode", "transport", "open_threshold", "*"],
        ["name", "status.state", "create_time", "", "URL", "url,mode", "stream.url", "*.url"],
    ),
    "url": st.builds(
        "{}://{}{}{}/{}".format,
        *(SCHEMES, LOGINS, HOSTS, PORTS),
        _mostly(TAILS, st.sampled_from(ODD_TAILS) | st.text(max_size=20)),
    ),
} | dict.fromkeys(
    ["name", "stream"],
    _mostly_of(
        ["streams/door", "streams/yard", "streams/hall", "streams/ghost"],
        [
            "",
            "door",
            "streams/",
            "streams/Door",
            "streams/door\n",
            "streams/door/",
            " streams/door",
        ],
    ),
)
"""By field name; a field that is not here gets noise."""


@cache
def any_message(descriptor: Descriptor) -> st.SearchStrategy[Any]:
    """Messages of a descriptor, every field unset or anything that its type can hold."""
    fields = {field.name: _any_value(field) for field in descriptor.fields}
    make = GetMessageClass(descriptor)
    # To protobuf, None is a field that is not set.
    return st.fixed_dictionaries(fields).map(lambda given: make(**given))


def any_push(descriptor: Descriptor) -> st.SearchStrategy[list[Any]]:
    """A call's messages: mostly a start that fits its frames, and seldom anything in between."""
    make = GetMessageClass(descriptor)
    stray = any_message(descriptor)
    frame = st.builds(
        lambda data, seconds: make(frame={"data": data, "time": {"seconds": seconds}}),
        _mostly(st.just(bytes(64)), st.sampled_from([bytes(63), b"", bytes(96)])),
        st.integers(0, 3),
    )
    start = st.builds(
        lambda stream, codec, delivery: make(
            start={"stream": stream, "codec": codec, "delivery": delivery} | _SIZES.get(codec, {})
        ),
        _mostly_of(["", "streams/hall"], ["streams/door", "streams/ghost"]),
        st.sampled_from([8, 8, 8, 6, 3, 1]),
        st.integers(0, 2),
    )
    return st.tuples(_mostly(start, stray), st.lists(_mostly(frame, stray), max_size=6)).map(
        lambda parts: [parts[0], *parts[1]]
    )


# Raw codecs (GRAY8, I420) whose frames of these sizes have 64 bytes, or another number.
_SIZES = {8: {"width": 8, "height": 8}, 6: {"width": 8, "height": 8}}


def _any_value(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    value = st.lists(_any_item(field), max_size=4) if field.is_repeated else _any_item(field)
    if field.name in ALMOST or field.type == FieldDescriptor.TYPE_MESSAGE:
        return _mostly(value, st.none())
    return st.none() | value


def _any_item(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    typed = _any_of_type(field)
    has_almost = field.name in ALMOST and field.type != FieldDescriptor.TYPE_MESSAGE
    return _mostly(ALMOST[field.name], typed) if has_almost else typed


def _any_of_type(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    match field.type:
        case FieldDescriptor.TYPE_MESSAGE:
            return st.deferred(lambda: any_message(field.message_type))
        case FieldDescriptor.TYPE_STRING:
            return st.sampled_from(NOISE) | st.text(max_size=40)
        case FieldDescriptor.TYPE_BYTES:
            return st.binary(max_size=5_000)
        case FieldDescriptor.TYPE_BOOL:
            return st.booleans()
        case FieldDescriptor.TYPE_ENUM:
            known = [value.number for value in field.enum_type.values]
            return st.sampled_from([*known, *known, *known, 99, -1, 2**31 - 1, -(2**31)])
        case FieldDescriptor.TYPE_DOUBLE | FieldDescriptor.TYPE_FLOAT:
            return st.sampled_from([0.5, 1.0, 0.0, -0.0, 5e-324, 1.0000000000000002]) | st.floats()
    return _any_integer(field)


def _any_integer(field: FieldDescriptor) -> st.SearchStrategy[int]:
    unsigned = field.cpp_type in (FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64)
    short = field.cpp_type in (FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_INT32)
    bits = 32 if short else 64
    lowest, highest = (0, 2**bits - 1) if unsigned else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return st.sampled_from([lowest, 0, 1, highest]) | st.integers(lowest, highest)
