"""Settings from flags, environment and file, and how they are refused."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from server.alerts import AlertDefaults
from server.bundle import DEFAULT_BUNDLE
from server.settings import Settings, SettingsError, load_settings, setting_keys


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "gvvad.toml"


def test_without_anything_the_defaults_hold() -> None:
    settings = load_settings(None, environ={})
    assert settings == Settings()
    assert settings.bundle == DEFAULT_BUNDLE
    assert (settings.grpc.host, settings.grpc.port) == ("127.0.0.1", 50051)


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(file: Path) -> None:
    file.write_text('[grpc]\nhost = "file"\nport = 1\nmax_watchers = 1\n')
    environ = {"GVVAD_GRPC__PORT": "2", "GVVAD_GRPC__MAX_WATCHERS": "2"}
    grpc = load_settings(file, {"grpc.max_watchers": "3"}, environ).grpc
    assert (grpc.watch_backlog, grpc.host, grpc.port, grpc.max_watchers) == (256, "file", 2, 3)


def test_every_source_speaks_of_lists_in_its_own_way(file: Path) -> None:
    file.write_text(
        '[access]\nfile_roots = ["/a", "/b"]\ncamera_networks = ["10.0.0.0/8"]\n'
        'listen_networks = ["::1/128"]\n'
    )
    from_file = load_settings(file, environ={}).access
    flags = {"access.file_roots": "/a, /b", "access.camera_networks": "10.0.0.0/8"}
    environ = {"GVVAD_ACCESS__LISTEN_NETWORKS": "::1/128"}
    assert load_settings(None, flags, environ).access == from_file
    assert from_file.file_roots == (Path("/a"), Path("/b"))
    assert from_file.camera_networks == (ipaddress.ip_network("10.0.0.0/8"),)


def test_every_key_can_be_named_in_the_environment() -> None:
    defaults = Settings()
    for key in setting_keys():
        value = defaults
        for part in key.split("."):
            value = getattr(value, part)
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        if value is not None:
            name = "GVVAD_" + key.upper().replace(".", "__")
            assert load_settings(None, environ={name: text}) == defaults, name


@pytest.mark.parametrize("name", ["GVVAD_DATA", "GVVAD_SERVER", "HOME", "gvvad"])
def test_variables_that_are_no_settings_are_left_alone(name: str) -> None:
    assert load_settings(None, environ={name: "x"}) == Settings()


@pytest.mark.parametrize(
    ("content", "flags", "environ", "sentence"),
    [
        ("prot = 1", {}, {}, "unknown setting prot in "),
        ("[grpc]\nprot = 1", {}, {}, "such as grpc.port"),
        ("grpc = 1", {}, {}, "unknown setting grpc in "),
        ("", {"grpc.prot": "1"}, {}, "unknown setting grpc.prot in --set grpc.prot"),
        ("", {}, {"GVVAD_GRPC_PORT": "1"}, "unknown setting grpc_port in GVVAD_GRPC_PORT"),
        ("[grpc]\nport = 65536", {}, {}, "setting grpc.port: 65536 from "),
        ("", {}, {"GVVAD_GRPC__PORT": "x"}, "setting grpc.port: 'x' from GVVAD_GRPC__PORT"),
        ("", {"engine.device": "abacus"}, {}, "'cpu' or 'cuda'"),
        ("", {"engine.name": "abacus"}, {}, "'onnxruntime', 'tensorrt' or 'tensorrt_rtx'"),
        ("", {"engine.name": "tensort"}, {}, "'tensorrt_rtx'; did you mean tensorrt?"),
        ("", {"engine.build": "perhaps"}, {}, "setting engine.build: 'perhaps'"),
        ("[engine]\nthreads = true", {}, {}, "setting engine.threads: True"),
        ("", {"access.camera_networks": "cam"}, {}, "setting access.camera_networks: 'cam'"),
        ("", {"alerts.close_ratio": "1.5"}, {}, "setting alerts.close_ratio: '1.5'"),
        ("", {"alerts.merge_gap_seconds": "-1"}, {}, "setting alerts.merge_gap_seconds: '-1'"),
        ("", {"alerts.max_duration_seconds": "0"}, {}, "setting alerts.max_duration_seconds"),
        ("", {"alerts.cooldown_seconds": "inf"}, {}, "setting alerts.cooldown_seconds"),
        ("", {"ingest.open_timeout_seconds": "inf"}, {}, "setting ingest.open_timeout_seconds"),
        ("", {"grpc.host": ""}, {}, "setting grpc.host: ''"),
        ("port = ", {}, {}, "is not TOML"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence(
    file: Path, content: str, flags: dict[str, str], environ: dict[str, str], sentence: str
) -> None:
    file.write_text(content)
    with pytest.raises(SettingsError) as caught:
        load_settings(file, flags, environ)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.toml cannot be read"):
        load_settings(tmp_path / "nowhere.toml", environ={})


def test_a_file_that_is_not_text_is_refused(file: Path) -> None:
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="is not TOML"):
        load_settings(file, environ={})


def test_the_store_url_is_never_shown(file: Path) -> None:
    settings = load_settings(None, {"store.url": "postgresql://joe:s3cret@db/x"}, {})
    assert "s3cret" not in repr(settings)
    file.write_text('[store]\nurl = ["postgresql://joe:s3cret@db/x"]')
    with pytest.raises(SettingsError) as caught:
        load_settings(file, environ={})
    assert "s3cret" not in str(caught.value)


def test_settings_cannot_be_changed_later() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().grpc.port = 1  # type: ignore[misc]


@pytest.mark.parametrize(("text", "value"), [("false", False), ("true", True), ("0", False)])
def test_what_is_on_or_off_is_so_in_every_source(file: Path, text: str, value: bool) -> None:
    file.write_text(f"[engine]\nbuild = {text}")
    assert load_settings(file, environ={}).engine.build == value
    assert load_settings(None, {"engine.build": text}, {}).engine.build == value


def test_defaults_of_alerts_are_those_of_the_state_machine() -> None:
    assert Settings().alerts.to_values() == AlertDefaults()
    tuned = load_settings(None, {"alerts.merge_gap_seconds": "9"}, {}).alerts.to_values()
    assert tuned == AlertDefaults(merge_gap_seconds=9)


def test_milliseconds_become_seconds_at_the_batcher() -> None:
    batch = load_settings(None, {"batch.max_wait_ms": "20", "batch.max_batch": "4"}, {}).batch
    assert (batch.largest, batch.to_values(2).max_batch, batch.to_values(2).max_wait_seconds) == (
        4,
        2,
        0.02,
    )
