"""What may be opened, and the sentence for what may not."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from server.ingest.access import AccessPolicy
from server.streams import Mode, Reason, SourceError, SourceUrl, StreamConfig

ANY = AccessPolicy()


def _pull(url: str) -> StreamConfig:
    return StreamConfig("a", SourceUrl(url))


def _denied(policy: AccessPolicy, config: StreamConfig) -> str:
    with pytest.raises(SourceError) as denied:
        policy.check(config)
    assert denied.value.reason is Reason.ADDRESS_DENIED
    return denied.value.sentence


@pytest.mark.parametrize("host", ["10.0.0.5", "127.0.0.1", "8.8.8.8", "[::1]", "camera.lan"])
def test_cameras_are_pulled_from_anywhere_by_default(host: str) -> None:
    ANY.check(_pull(f"rtsp://{host}/cam"))


@pytest.mark.parametrize(
    "host",
    ["169.254.169.254", "[fe80::1]", "224.0.0.1", "0.0.0.0", "[::]", "[::ffff:169.254.169.254]"],
)
def test_addresses_that_no_camera_has_are_denied(host: str) -> None:
    assert "do not allow to connect to" in _denied(ANY, _pull(f"rtsp://{host}/cam"))


def test_only_named_networks_are_pulled_from_where_there_are_any() -> None:
    policy = AccessPolicy(camera_networks=(ipaddress.IPv4Network("10.1.0.0/16"),))
    policy.check(_pull("rtsp://10.1.2.3/cam"))
    assert "10.2.0.1" in _denied(policy, _pull("rtsp://10.2.0.1/cam"))
    assert "::1" in _denied(policy, _pull("rtsp://[::1]/cam"))


def test_one_bad_address_of_a_name_denies_it() -> None:
    addresses = [ipaddress.ip_address(text) for text in ("10.0.0.1", "169.254.1.1")]
    with pytest.raises(SourceError, match=r"169\.254\.1\.1"):
        ANY.check_addresses(_pull("rtsp://camera.lan/cam"), addresses)


def test_cameras_push_to_loopback_unless_more_is_allowed() -> None:
    config = StreamConfig("a", SourceUrl("rtsp://0.0.0.0:8554/cam"), Mode.LISTEN)
    assert "do not allow to listen on 0.0.0.0" in _denied(ANY, config)
    AccessPolicy(listen_networks=(ipaddress.IPv4Network("0.0.0.0/32"),)).check(config)


def test_files_are_denied_by_default(tmp_path: Path) -> None:
    assert "not below a directory" in _denied(ANY, _pull((tmp_path / "a.mp4").as_uri()))


def test_files_lie_below_an_allowed_directory_after_links_and_dots(tmp_path: Path) -> None:
    root, outside = tmp_path / "clips", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (root / "door").symlink_to(outside)
    policy = AccessPolicy(file_roots=(root,))
    assert policy.allowed_file(SourceUrl(f"file://{root}/a%20b.mp4")) == root / "a b.mp4"
    for path in (root / "door" / "a.mp4", root / ".." / "outside" / "a.mp4", outside / "a.mp4"):
        _denied(policy, _pull(f"file://{path}"))
    _denied(policy, _pull(f"file://{root}/%2e%2e/outside/a.mp4"))
