"""Finds a password wherever it leaked, however it is written there and whatever part of it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from urllib.parse import quote

PIECE = 6
"""So many characters in a row give a password away; a word of ours rarely shares as many."""

_SURE_BASE64 = 8  # that many letters of base64 are six bytes


def leaks(places: Iterable[tuple[str, str | bytes]], secrets: Mapping[str, str]) -> list[str]:
    """Which secret shows where: `NAME in PLACE: ...text around it...`.

    Args:
        places: where a text was found, and the text.
        secrets: by a name that may be shown; of six characters at least.
    """
    return [
        f"{name} in {place}: {around}"
        for place, text in places
        for name, secret in secrets.items()
        for around in _found(_as_text(text), secret)
    ]


def _as_text(text: str | bytes) -> str:
    # Raw messages hold any bytes; a password stands among them as it is.
    return (text.decode("utf-8", "replace") if isinstance(text, bytes) else text).lower()


def _found(text: str, secret: str) -> Iterator[str]:
    for piece in spellings(secret):
        at = text.find(piece)
        if at >= 0:
            yield f"...{text[max(0, at - 60) : at + 60]!r}..."
            return


@cache
def spellings(secret: str) -> frozenset[str]:
    """Every way in which any six characters of the secret may be written, in lower case."""
    if len(secret) < PIECE:
        raise ValueError(f"a secret of {len(secret)} characters is found by chance; take {PIECE}")
    forms: set[str] = set()
    for start in range(len(secret) - PIECE + 1):
        forms |= _spelt(secret[start : start + PIECE])
    return frozenset(form.lower() for form in forms | _in_base64(secret))


def _spelt(piece: str) -> set[str]:
    encoded = quote(piece, safe="")
    raw = piece.encode()
    return {
        *(piece, quote(piece), encoded, quote(encoded, safe="")),
        *("".join(f"%{byte:02x}" for byte in raw), raw.hex()),
        *(json.dumps(piece)[1:-1], repr(piece)[1:-1], repr(raw)[2:-1]),
    }


def _in_base64(secret: str) -> set[str]:
    """Parts of the base64 of anything that holds the secret, such as `user:secret`."""
    parts: set[str] = set()
    for before in range(3):
        whole = base64.b64encode(b"\0" * before + secret.encode()).decode().rstrip("=")
        sure = whole[-(-before * 8 // 6) : -1]  # its ends depend on what stands beside the secret
        parts |= {sure[n : n + _SURE_BASE64] for n in range(len(sure) - _SURE_BASE64 + 1)}
    return parts | {part.replace("+", "-").replace("/", "_") for part in parts}
