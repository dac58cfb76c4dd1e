"""Signatures of webhooks, by the scheme of standardwebhooks.com.

A receiver checks one with a few lines of its own, or any library of that scheme:

    expected = hmac.digest(secret, f"{id}.{timestamp}.".encode() + body, "sha256")
    given = headers["webhook-signature"].split()  # one for each secret of the sender
    genuine = any(hmac.compare_digest(b"v1," + b64encode(expected), one.encode()) for one in given)

where `id` and `timestamp` are the headers `webhook-id` and `webhook-timestamp`, body is
the bytes as they came, and a timestamp more than five minutes off is refused.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Sequence
from pathlib import Path

from server.delivery.receivers import ReceiverError

SHORTEST_SECRET = 24
"""Bytes that a secret must have, by that scheme's specification."""

_PREFIX = b"whsec_"


class Signer:
    """Signs with every secret it has, so that they can be replaced without a gap.

    Args:
        secrets: at least one; every one signs.
    """

    def __init__(self, secrets: Sequence[bytes]) -> None:
        self._secrets = tuple(secrets)

    def headers(self, event_id: str, at_seconds: float, body: bytes) -> dict[str, str]:
        """What to send with a body at this UTC time."""
        timestamp = str(int(at_seconds))
        content = f"{event_id}.{timestamp}.".encode() + body
        digests = [hmac.digest(secret, content, "sha256") for secret in self._secrets]
        signatures = [f"v1,{base64.b64encode(digest).decode()}" for digest in digests]
        head = {"webhook-id": event_id, "webhook-timestamp": timestamp}
        return head | {"webhook-signature": " ".join(signatures)} if signatures else head


def read_secrets(path: Path) -> list[bytes]:
    """The secrets of a file, one a line: `whsec_` and base64, or any other bytes as they are.

    Raises:
        ReceiverError: the file cannot be read, or holds no secret or one that is none.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise ReceiverError(
            f"webhook.secret_file {path} cannot be read ({error.strerror}); "
            "name a file with one secret a line"
        ) from None
    secrets = [_secret(line.strip(), path) for line in lines if line.strip()]
    if not secrets:
        raise ReceiverError(f"webhook.secret_file {path} holds no secret; write one a line into it")
    return secrets


def _secret(line: bytes, path: Path) -> bytes:
    secret = line
    if line.startswith(_PREFIX):
        try:
            secret = base64.b64decode(line.removeprefix(_PREFIX), validate=True)
        except binascii.Error:
            raise ReceiverError(
                f"webhook.secret_file {path} holds a secret whose part after whsec_ is not "
                "base64; make one with: echo whsec_$(openssl rand -base64 32)"
            ) from None
    if len(secret) < SHORTEST_SECRET:
        raise ReceiverError(
            f"webhook.secret_file {path} holds a secret of {len(secret)} bytes and must have at "
            f"least {SHORTEST_SECRET}; make one with: echo whsec_$(openssl rand -base64 32)"
        )
    return secret
