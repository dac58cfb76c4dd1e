"""Spoiled settings: used as they are, or refused in one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import strategies as st

from server.cli import main
from server.settings import Settings, SettingsError, load_settings, setting_keys
from tests.support.mutations import (
    UNREADABLE,
    assert_refused,
    assert_sentence,
    few_or_many,
    holds,
    spoiled_bytes,
)

SETTINGS = """\
bundle = "server/default_bundle"
max_streams = 8
[grpc]
host = "127.0.0.1"
port = 0
[batch]
max_wait_ms = 2.5
[access]
file_roots = ["/srv/clips"]
camera_networks = ["10.0.0.0/8", "::1/128"]
[alerts]
close_ratio = 0.5
[log]
level = "info"
"""
ODD_TOML = [
    "true", "0", "-1", "65536", "0.5", "nan", "inf", "-inf", "1e400", "9" * 5000, "9" * 400,
    "0x" + "f" * 6000, "1979-05-27", "07:32:00", '""', '"x"', "'''a\nb'''", '"\\u0000"',
    '"\\u2028"', '"' + "x" * 9999 + '"', "[]", "[[1]]", "[true]", "[1, 'x']", '[""]', "{}",
    "{x = 1}", "[" * 300 + "]" * 300, "[" * 9000 + "]" * 9000, "{a=" * 9000 + "1" + "}" * 9000,
]  # fmt: skip
ODD_TEXT = ["", "true", "nan", "-inf", "1e400", "9" * 5000, "0x1", "a\nb", "\0", "\udcff", "é", ","]


def assert_settings_or_refusal(
    config: Path | None, flags: Mapping[str, str], environ: Mapping[str, str], *names: object
) -> None:
    try:
        settings = load_settings(config, flags, environ)
    except SettingsError as error:
        assert_sentence(error, *names)
    else:
        assert Settings.model_validate(settings.model_dump()) == settings


@few_or_many
def test_settings_with_spoiled_bytes_are_used_or_refused(tmp_path: Path, examples: int) -> None:
    config = tmp_path / "gvvad.toml"

    def law(content: bytes) -> None:
        config.write_bytes(content)
        assert_settings_or_refusal(config, {}, {}, config)

    holds(law, spoiled_bytes(SETTINGS.encode()), examples)


@few_or_many
def test_settings_of_any_key_and_value_are_used_or_refused(tmp_path: Path, examples: int) -> None:
    config = tmp_path / "gvvad.toml"
    odd_keys = ["x", "grpc", '""', '"\\n"', '"grpc.port"', "grpc.port.x", ".".join("a" * 5000)]

    def law(lines: dict[str, str]) -> None:
        config.write_text("".join(f"{key} = {value}\n" for key, value in lines.items()))
        assert_settings_or_refusal(config, {}, {}, config)

    keys = st.sampled_from([*setting_keys(), *odd_keys])
    holds(law, st.dictionaries(keys, st.sampled_from(ODD_TOML), min_size=1, max_size=2), examples)


@few_or_many
def test_flags_and_environment_of_any_text_are_used_or_refused(examples: int) -> None:
    odd_keys = ["", "x", "grpc", "\n", "\udcff", "grpc.port.x", "x" * 5000]

    def law(case: tuple[str, str]) -> None:
        key, value = case
        name = "GVVAD_" + key.upper().replace(".", "__")
        assert_settings_or_refusal(None, {key: value}, {}, "--set ")
        assert_settings_or_refusal(None, {}, {name: value}, "GVVAD_")

    keys = st.sampled_from([*setting_keys(), *odd_keys])
    holds(law, st.tuples(keys, st.sampled_from(ODD_TEXT) | st.text(max_size=9)), examples)


@pytest.mark.parametrize("literal", ["true", "false"])
@pytest.mark.parametrize("key", [key for key in setting_keys() if key != "engine.build"])
def test_no_setting_but_the_one_switch_is_true_or_false(
    tmp_path: Path, key: str, literal: str
) -> None:
    config = tmp_path / "gvvad.toml"
    config.write_text(f"{key} = {literal}")
    with pytest.raises(SettingsError, match=f"setting {key}: "):
        load_settings(config, environ={})


@pytest.mark.parametrize("content", ["[grcp]", "[bundle]", "[grpc.port]", "[grpc.port.x]"])
def test_an_empty_table_that_is_no_group_is_refused(tmp_path: Path, content: str) -> None:
    config = tmp_path / "gvvad.toml"
    config.write_text(content)
    with pytest.raises(SettingsError) as caught:
        load_settings(config, environ={})
    assert_sentence(caught.value, config)


def test_a_settings_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    for place in (tmp_path, UNREADABLE, tmp_path / ("x" * 300)):
        with pytest.raises(SettingsError, match="cannot be read") as caught:
            load_settings(place, environ={})
        assert_sentence(caught.value, place, "--config")


@pytest.mark.parametrize(
    "content",
    [b"", b"grpc.port = 0x" + b"f" * 6000, b"bundle = " + b"[" * 9000, b"\xff", b'"a\\nb" = 1'],
    ids=["directory", "huge number", "deep", "not text", "two lines"],
)
def test_the_server_refuses_a_spoiled_settings_file(
    tmp_path: Path, content: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "gvvad.toml"
    if content:
        config.write_bytes(content)
    code = main(["serve", "--config", str(config if content else tmp_path)])
    assert_refused(code, *capfd.readouterr())
