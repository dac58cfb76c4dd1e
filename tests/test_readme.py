"""README promises nothing that is not there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import export.cli
import server.cli
import training.cli

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
TRAINING = (ROOT / "training" / "README.md").read_text()
MAINS = {
    "gvvad": server.cli.main,
    "gvvad-train": training.cli.main,
    "gvvad-export": export.cli.main,
}
SUBCOMMAND = re.compile(r"[a-z]+")


def console_lines() -> list[list[str]]:
    """Words of every line in a code block that runs one of our programs."""
    blocks = [line[4:] for line in README.splitlines() if line.startswith("    ")]
    for block in re.findall(r"^```\n(.+?)^```", TRAINING, re.DOTALL | re.MULTILINE):
        blocks += block.splitlines()
    found = (re.search(r"(?:^|\| |^[A-Z_]+=\S+ )(gvvad(?:-\w+)? .+)", line) for line in blocks)
    return [match[1].split() for match in found if match]


def command_of(line: list[str]) -> tuple[str, ...]:
    """Program and subcommands."""
    program, *words = line
    depth = 2 if words[0] in ("streams", "alerts", "deliveries", "ablate") else 1
    return (program, *(word for word in words[:depth] if SUBCOMMAND.fullmatch(word)))


def commands() -> list[tuple[str, ...]]:
    """Of those lines, each once."""
    return sorted({command_of(line) for line in console_lines()})


def help_of(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> str:
    program, *words = command
    with pytest.raises(SystemExit) as ended:
        MAINS[program]([*words, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_exists_and_knows_the_flags_that_are_shown(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    text = help_of(command, capsys)
    for line in console_lines():
        if command_of(line) == command:
            unknown = [word for word in line if word.startswith("--") and word not in text]
            assert unknown == []


def test_every_make_target_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"\bmake ([a-z-]+)", README))
    assert {"demo", "test"} <= targets
    missing = [name for name in targets if not re.search(rf"^{name}:", makefile, re.MULTILINE)]
    assert missing == []


def test_every_link_and_every_folder_of_the_file_map_is_there() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    folders = re.findall(r"^\| `([^`]+)` \|", README, re.MULTILINE)
    assert len(folders) >= 6
    missing = [name for name in links + folders if not (ROOT / name).exists()]
    assert missing == []


def test_every_metric_is_one_that_the_server_has() -> None:
    names = set(re.findall(r"\bgvvad_[a-z_]+", README))
    telemetry = (ROOT / "server" / "telemetry.py").read_text()
    unknown = [name for name in names if name.removesuffix("_total") not in telemetry]
    assert names
    assert unknown == []


def test_the_picture_is_small() -> None:
    assert (ROOT / "server" / "demo" / "example.png").stat().st_size < 150_000
