"""Secrets that settings take from files: what is read, what is refused, nothing shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from server.settings import SettingsError, load_settings

URL = "postgresql://joe:s3cret@db/x"
NAME = "GVVAD_STORE__URL_FILE"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "store-url"


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n"])
def test_a_secret_may_stand_in_a_file_named_anywhere(file: Path, end: str, tmp_path: Path) -> None:
    file.write_bytes((URL + end).encode())
    config = tmp_path / "gvvad.toml"
    config.write_text(f'[store]\nurl_file = "{file}"')
    assert load_settings(None, environ={NAME: str(file)}).store.url == URL
    assert load_settings(None, {"store.url_file": str(file)}, {}).store.url == URL
    assert load_settings(config, environ={}).store.url == URL


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (URL.encode() + b"\ns3cret\n", "has 2 lines"),
        (b"\xff s3cret", "is not UTF-8 text"),
        (b"s3cret " * 10_000, "is over 64 KiB"),
    ],
)
def test_a_file_without_one_line_of_text_is_refused(
    file: Path, content: bytes, sentence: str
) -> None:
    file.write_bytes(content)
    refused = refusal({NAME: str(file)})
    assert refused.startswith(f"setting store.url_file from {NAME}: {file} {sentence}")


def test_a_file_that_cannot_be_read_is_named_with_a_remedy(file: Path) -> None:
    assert refusal({NAME: str(file)}) == (
        f"setting store.url_file from {NAME}: {file} cannot be read (No such file or directory); "
        "give the path of a file that this user may read"
    )
    assert "cannot be read (Is a directory)" in refusal({NAME: str(file.parent)})


def test_a_pipe_that_nobody_writes_to_does_not_hold_up_the_start(file: Path) -> None:
    os.mkfifo(file)
    assert "is empty" in refusal({NAME: str(file)})


def test_a_secret_given_for_its_files_name_is_not_shown() -> None:
    assert "is a URL (not shown), not the path of a file" in refusal({NAME: URL})


def test_a_secret_and_its_file_exclude_each_other(file: Path) -> None:
    file.write_text(URL)
    refused = refusal({NAME: str(file), "GVVAD_STORE__URL": URL})
    assert refused == (
        f"setting store.url from GVVAD_STORE__URL and store.url_file from {NAME} exclude each "
        "other; remove one"
    )


def test_an_empty_path_and_one_that_is_no_text_are_refused(tmp_path: Path) -> None:
    assert "'' must be the path of a file" in refusal({NAME: ""})
    config = tmp_path / "gvvad.toml"
    config.write_text("[store]\nurl_file = 3")
    with pytest.raises(SettingsError, match="3 must be the path of a file"):
        load_settings(config, environ={})


def refusal(environ: dict[str, str]) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(None, environ=environ)
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)
