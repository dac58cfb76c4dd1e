"""Times as messages, and what a request that makes no sense raises."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp


class InvalidError(ValueError):
    """A request that makes no sense; the message is the sentence for the client."""


def timestamp(utc_seconds: float) -> Timestamp:
    """UTC seconds since 1970 as a message; microseconds, all that a float of today holds."""
    message = Timestamp()
    message.FromMicroseconds(round(utc_seconds * 1e6))
    return message


def seconds(message: Timestamp) -> float:
    """UTC seconds since 1970."""
    return message.ToMicroseconds() / 1e6


def duration(length_seconds: float) -> Duration:
    """A length of time as a message, exact to a microsecond."""
    message = Duration()
    message.FromMicroseconds(round(length_seconds * 1e6))
    return message
