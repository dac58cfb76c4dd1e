"""Source URLs and stream configurations."""

from __future__ import annotations

import doctest
import pickle
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server import streams
from server.streams import Mode, SourceUrl, StreamConfig

RTSP = "rtsp://joe:s3cret@10.0.0.5:8554/cam"


def test_the_examples_hold() -> None:
    assert doctest.testmod(streams).failed == 0


def test_parts_of_a_url() -> None:
    url = SourceUrl(RTSP)
    assert (url.scheme, url.host, url.port, url.path) == ("rtsp", "10.0.0.5", 8554, "/cam")
    assert SourceUrl("rtsp://h/cam").port == 554
    assert SourceUrl("rtsps://h/cam").port == 322
    assert SourceUrl("rtsp://[fe80::1]:99/cam").host == "fe80::1"
    assert url.reveal() == RTSP
    assert url.has_login


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("not a url", "percent-encode"),
        ("cam1", "must start with one of rtsp://, rtsps://, file://"),
        ("exec:rm", "must start with"),
        ("http://h/cam", "must start with"),
        ("rtsp:///cam", "has no host"),
        ("rtsp://joe:s3cret@/cam", "has no host"),
        ("rtsp://joe:s3cret@h:port/cam", "is not a URL"),
        ("rtsp://joe:s3cret@h:99999/cam", "is not a URL"),
        ("rtsp://joe:s3cret@h:0/cam", "port must be 1 to 65535"),
        ("rtsp://joe:s3cret@h\r\nX:/cam", "control character"),
        ("rtsp://joe:s3cret@127.0.0.1\\@h/cam", "backslash"),
        ("rtsp://joe:s3cret@h,x/cam", "has no host"),
        ("file://host/clip.mp4", "file:///absolute/path"),
        ("file:clip.mp4", "file:///absolute/path"),
        ("rtsp://h/?pwd=s3cret\\", "backslash"),
        ("rtsp://h/" + "a" * 3000, "characters"),
        ("rtsp://joe:s3cret", "is not a URL"),
        ("rtsp://joe:s3cret/cam", "is not a URL"),
        ("rtsp:/joe:s3cret@h/cam", "has no host"),
        ("rtsp:///joe:s3cret/cam", "has no host"),
        ("joe:s3cret@h/cam", "must start with"),
        ("rtsp://joe:12/s3cret@h/cam", "holds '@' after its host"),
        ("rtsp://joe:a@s3cret/b@h/cam", "holds '@' after its host"),
        ("rtsp://joe:12?s3cret@h/cam", "holds '@' after its host"),
    ],
)
def test_what_is_no_source_url_is_refused_without_its_secret(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as refused:
        SourceUrl(text)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (RTSP, "rtsp://***@10.0.0.5:8554/cam"),
        ("rtsp://joe@h/cam", "rtsp://***@h/cam"),
        ("rtsp://joe:s3cret@x@h/cam", "rtsp://***@h/cam"),
        ("rtsp://h/cam?channel=1", "rtsp://h/cam?channel=1"),
        ("rtsp://h/user=joe&password=s3cret&n=1.sdp", "rtsp://h/user=***&password=***&n=1.sdp"),
        ("rtsp://h/cam?token=s3cret", "rtsp://h/cam?token=***"),
        ("rtsp://h/cam?token=a/s3cret?s3cret@s3cret&n=1", "rtsp://h/cam?token=***&n=1"),
        ("rtsp://h/cam?passphrase=s3cret;n=1", "rtsp://h/cam?passphrase=***;n=1"),
        ("file:///clips/a.mp4", "file:///clips/a.mp4"),
    ],
)
def test_a_url_is_shown_without_its_credentials(text: str, shown: str) -> None:
    url = SourceUrl(text)
    assert str(url) == shown
    assert repr(url) == f"SourceUrl({shown!r})"
    assert "s3cret" not in repr(StreamConfig("a", url))


passwords = st.text(
    st.characters(min_codepoint=33, max_codepoint=255, exclude_characters="*\x7f"),
    min_size=3,
    max_size=20,
)


@given(passwords)
def test_no_spelling_of_the_password_survives_redaction(password: str) -> None:
    encoded = quote(password, safe="")
    url = SourceUrl(f"rtsp://joe:{encoded}@h/cam")
    foreign = f"401 for {url.reveal()}: tried <{password}> and <{encoded}>"
    redacted = url.redact(foreign)
    assert f"<{password}>" not in redacted
    assert f"<{encoded}>" not in redacted
    assert url.reveal() not in redacted


def test_redaction_leaves_words_alone_that_only_hold_the_user_name() -> None:
    url = SourceUrl("rtsp://cam:s3cret@h/x")
    assert url.redact("the camera of cam said s3cret") == "the camera of *** said ***"


def test_a_url_survives_the_way_to_a_worker() -> None:
    url = pickle.loads(pickle.dumps(SourceUrl(RTSP)))
    assert url == SourceUrl(RTSP)
    assert hash(url) == hash(SourceUrl(RTSP))
    assert url != RTSP
    assert url.reveal() == RTSP


@pytest.mark.parametrize("stream_id", ["", "Front", "a_b", "a" * 64, "a/b", "é"])
def test_a_bad_stream_id_is_refused(stream_id: str) -> None:
    with pytest.raises(ValueError, match="a-z, 0-9"):
        StreamConfig(stream_id, SourceUrl(RTSP))


@pytest.mark.parametrize("threshold", [0.0, -0.1, 1.1, float("nan")])
def test_a_threshold_outside_the_scores_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="open_threshold"):
        StreamConfig("a", SourceUrl(RTSP), open_threshold=threshold)


def test_listening_takes_rtsp_and_no_password() -> None:
    StreamConfig("a", SourceUrl("rtsp://127.0.0.1:8554/cam"), Mode.LISTEN)
    with pytest.raises(ValueError, match="LISTEN mode takes an rtsp"):
        StreamConfig("a", SourceUrl("file:///clips/a.mp4"), Mode.LISTEN)
    with pytest.raises(ValueError, match="leave it out"):
        StreamConfig("a", SourceUrl(RTSP), Mode.LISTEN)
