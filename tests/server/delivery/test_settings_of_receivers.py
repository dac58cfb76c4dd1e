"""What the settings may name as a receiver, and what a refusal says."""

from __future__ import annotations

import base64
import contextlib
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.delivery.receivers import BrokerUrl, ReceiverError, WebhookUrl
from server.delivery.retries import Failure, Retry, wait_seconds
from server.delivery.signing import Signer, read_secrets
from server.settings import SettingsError, load_settings

LONG = b"x" * 24


def test_receivers_come_from_a_list_with_commas() -> None:
    flags = {"webhook.urls": "https://a.example.com/x, http://b:8080/", "mqtt.url": "mqtt://joe@c"}
    settings = load_settings(None, flags, {})
    assert [url.sink for url in settings.webhook.urls] == [
        "webhook:a.example.com/b3d1db",
        "webhook:b:8080",
    ]
    assert settings.mqtt.url is not None
    assert (settings.mqtt.url.sink, settings.mqtt.url.port) == ("mqtt:c", 1883)
    assert "joe" not in repr(settings)
    assert "/x" not in repr(settings)


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("webhook.urls", "ftp://joe:s3cret@a/x", "must be a URL like https://"),
        ("webhook.urls", "https://joe:s3cret@a/x,https://a/x?key=s3cret", "names webhook:a"),
        ("webhook.urls", "https:///s3cret", "must name a host"),
        ("webhook.urls", "https://a:0/s3cret", "its port must be"),
        ("webhook.urls", "https://a/s3cret x", "must be percent-encoded"),
        ("webhook.urls", "https://a/x#s3cret", "must not hold '#'"),
        ("webhook.source", "two words", "String should match"),
        ("mqtt.url", "mqtt://joe:s3cret@a", "mqtt.password_file"),
        ("mqtt.url", "http://joe:s3cret@a", "must be a URL like mqtt://"),
        ("mqtt.url", "mqtt://a/s3cret", "must end with the host"),
        ("mqtt.topic_prefix", "site/#", "String should match"),
        ("mqtt.device_class", "smoke", "'motion', 'problem' or 'safety'"),
    ],
)
def test_a_receiver_that_cannot_be_is_one_sentence(key: str, value: str, why: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(None, {key: value}, {})
    sentence = str(caught.value)
    assert sentence.startswith(f"setting {key}: ")
    assert why in sentence
    assert "s3cret" not in sentence


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "cannot be read"),
        (b"\n\n", "holds no secret"),
        (b"too short", "of 9 bytes"),
        (b"whsec_***", "is not base64"),
        (b"whsec_c2hvcnQ=\n", "of 5 bytes"),
    ],
)
def test_a_file_without_a_usable_secret_is_refused(
    tmp_path: Path, content: bytes | None, why: str
) -> None:
    path = tmp_path / "secrets"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ReceiverError, match=why) as caught:
        read_secrets(path)
    assert "short" not in str(caught.value)


def test_a_published_example_is_signed_as_published() -> None:
    # Of the specification's test: secret, id, time and payload, with their signature.
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = Signer([secret]).headers(
        "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@given(st.text(max_size=30), st.sampled_from([WebhookUrl, BrokerUrl]))
def test_any_text_is_a_receiver_or_refused(text: str, kind) -> None:
    for given_text in (text, f"https://{text}", f"mqtt://a{text}"):
        with contextlib.suppress(ReceiverError):
            assert len(kind(given_text).sink) <= 255


def test_a_url_shows_scheme_and_host_alone() -> None:
    url = WebhookUrl("https://joe:pass%20word@hooks.example.com:8443/T0KEN/x?sig=s3cret")
    assert str(url) == "https://hooks.example.com:8443/***"
    assert repr(url) == "WebhookUrl('https://hooks.example.com:8443/***')"
    told = url.redact(f"cannot post to {url.reveal()}: pass word, pass%20word, sig=s3cret, T0KEN/x")
    assert told == "cannot post to ***: ***, ***, ***, ***"
    rotated = WebhookUrl("https://ann:new@hooks.example.com:8443/T0KEN/x?sig=other")
    assert rotated.sink == url.sink, "a new password is no new receiver"


# Retries


@given(st.integers(1, 10_000), st.floats(0, 1e9), st.integers())
def test_waits_grow_to_five_minutes_and_heed_what_is_asked(
    attempts: int, asked_seconds: float, seed: int
) -> None:
    rng = random.Random(seed)
    wait = wait_seconds(Failure("x", Retry.SOON), attempts, rng)
    assert wait is not None
    assert 0 <= wait <= min(300.0, 2.0 ** (min(attempts, 20) - 1))
    asked = wait_seconds(Failure("x", Retry.SOON, asked_seconds), attempts, rng)
    assert asked is not None
    assert min(asked_seconds, 3600) <= asked <= 3600
    refused = wait_seconds(Failure("x", Retry.SLOWLY), attempts, rng)
    assert (refused is None) == (attempts >= 10)
    assert refused is None or 60 <= refused <= 300
    assert wait_seconds(Failure("x", Retry.NEVER), attempts, rng) is None
