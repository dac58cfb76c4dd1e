"""The search for leaked passwords finds them: a search that cannot fail proves nothing."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest

from tests.support.leaks import leaks

SECRET = "Yx3/pQ@w:J#k8?V%n&Z5 u"


def found(text: str | bytes) -> list[str]:
    return leaks([("log", text)], {"odd": SECRET})


def lower_encoded(text: str) -> str:
    return "".join(quote(c, safe="").lower() if quote(c, safe="") != c else c for c in text)


@pytest.mark.parametrize(
    "text",
    [
        f"rtsp://joe:{SECRET}@h/cam",
        SECRET.upper(),
        quote(SECRET),
        quote(SECRET, safe=""),
        lower_encoded(SECRET),
        quote(quote(SECRET, safe=""), safe=""),
        "".join(f"%{byte:02X}" for byte in SECRET.encode()),
        SECRET.encode().hex(),
        json.dumps({"url": SECRET}),
        repr([SECRET]),
        b"\x0a\x20\xff\x12" + SECRET.encode() + b"\x00\x98",
        "http://" + SECRET.partition("@")[0],  # what a parser takes for the login
        SECRET.partition("@")[2] + "/cam",  # ... and for the host
        SECRET[:6] + "...",
        "..." + SECRET[-6:],
        quote(SECRET, safe="")[3:-5],
    ],
)
def test_every_form_of_a_secret_is_found(text: str | bytes) -> None:
    assert len(found(text)) == 1


@pytest.mark.parametrize("user", ["", "j", "jo", "joe", "viewer"])
def test_a_secret_in_base64_is_found_whatever_stands_around_it(user: str) -> None:
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        assert found(encode(f"{user}:{SECRET}@h".encode()))


def test_what_holds_no_secret_is_clean() -> None:
    assert found("rtsp://***@127.0.0.1:554/cam refuses the user name or password") == []
    assert found(SECRET[:5]) == []


def test_a_secret_too_short_to_search_for_is_refused() -> None:
    with pytest.raises(ValueError, match="by chance"):
        leaks([("log", "")], {"short": "abc"})
