"""Tokens of pages of alerts: the place where a page begins, bound to its filters.

A place is an alert's begin and id, not a count: alerts that begin meanwhile do not
shift it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
import struct

from server.alert_records import AlertFilter
from server.alerts import Alert

_FORM = struct.Struct(">B4sd8s")
"""Version, digest of the filters, begin in UTC seconds, id."""

_VERSION = 1


class PageTokenError(ValueError):
    """A token that no page with these filters came with; the message is the sentence."""

    def __init__(self) -> None:
        super().__init__(
            "page_token must be the next_page_token of the page before, with the same filters"
        )


def page_token(last: Alert, wanted: AlertFilter) -> str:
    """Token of the page that follows an alert."""
    raw = _FORM.pack(_VERSION, _digest(wanted), last.start_seconds, bytes.fromhex(last.alert_id))
    return base64.urlsafe_b64encode(raw).decode()


def page_place(token: str, wanted: AlertFilter) -> tuple[float, str]:
    """Begin and id of the alert that a page follows.

    Raises:
        PageTokenError: it is no token, or came with other filters.
    """
    try:
        raw = base64.b64decode(token, altchars=b"-_", validate=True)
        version, digest, start_seconds, alert_id = _FORM.unpack(raw)
    except (binascii.Error, ValueError, struct.error):
        raise PageTokenError from None
    if version != _VERSION or digest != _digest(wanted) or math.isnan(start_seconds):
        raise PageTokenError
    return start_seconds, alert_id.hex()


def _digest(wanted: AlertFilter) -> bytes:
    return hashlib.sha256(repr(wanted).encode()).digest()[:4]
