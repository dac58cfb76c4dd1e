"""The systemd unit: verified, judged, and the one restriction that could break the server tried."""

from __future__ import annotations

import configparser
import ctypes
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from server.settings import load_settings
from server.streams import Mode, SourceUrl, StreamConfig
from tests.support.cameras import PushCamera, free_port, render_clip
from tests.support.serving import ServerProcess
from tests.support.watching import Scores

FOLDER = Path(__file__).parents[2] / "deploy" / "systemd"
UNIT = FOLDER / "gvvad.service"
EXPOSURE = 1.5
"""Out of 10, as `systemd-analyze security` counts; under 2 it says OK."""

PR_SET_MDWE = 65


def installed(root: Path, *, drop_in: bool) -> Path:
    """The unit as it would be installed below a root, with something to execute."""
    units = root / "etc/systemd/system"
    program = root / "opt/gvvad/bin/gvvad"
    for folder in (units / "gvvad.service.d", program.parent):
        folder.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    text = UNIT.read_text().replace("/opt/gvvad/bin/gvvad", str(program))
    (units / UNIT.name).write_text(text)
    if drop_in:
        shutil.copy(FOLDER / "postgresql.conf", units / "gvvad.service.d")
    return units / UNIT.name


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.systemd
@pytest.mark.parametrize("drop_in", [False, True])
def test_systemd_understands_every_line(tmp_path: Path, drop_in: bool) -> None:
    unit = installed(tmp_path, drop_in=drop_in)
    verified = analyze("verify", "--man=no", unit)
    assert (verified.returncode, verified.stderr) == (0, "")
    bent = unit.parent / "gvvad.service.d" / "postgresql.conf" if drop_in else unit
    bent.write_text(bent.read_text().replace("Environment=", "Enviroment="))
    assert "Unknown key 'Enviroment'" in analyze("verify", "--man=no", unit).stderr


@pytest.mark.systemd
def test_the_server_is_shut_in() -> None:
    threshold = f"--threshold={EXPOSURE * 10:.0f}"
    judged = analyze("security", "--offline=true", "--no-pager", threshold, UNIT)
    assert judged.returncode == 0, judged.stdout
    found = re.search(r"Overall exposure level for gvvad.service: ([\d.]+)", judged.stdout)
    assert found is not None
    assert float(found[1]) <= EXPOSURE


def test_its_environment_holds_settings_that_the_server_knows(tmp_path: Path) -> None:
    secret = tmp_path / "store-url"
    secret.write_text("postgresql+psycopg://gvvad@db/gvvad\n")
    environ = {}
    for file in (UNIT, FOLDER / "postgresql.conf"):
        for line in re.findall(r"^Environment=(.*)$", file.read_text(), re.MULTILINE):
            environ |= dict(pair.split("=", 1) for pair in line.split())
    # %d is where systemd puts what LoadCredential names.
    environ = {key: value.replace("%d", str(tmp_path)) for key, value in environ.items()}
    settings = load_settings(None, environ=environ)
    assert settings.log.format == "json"
    assert settings.store.url == secret.read_text().strip()
    drop_in = configparser.ConfigParser()
    drop_in.read(FOLDER / "postgresql.conf")
    assert drop_in["Service"]["LoadCredential"].split(":")[0] == secret.name


def no_writable_code() -> None:
    """What MemoryDenyWriteExecute forbids, by the kernel's own switch, for ever."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_MDWE, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "PR_SET_MDWE")


def kernel_can_deny() -> bool:
    command = [sys.executable, "-c", ""]
    try:
        subprocess.run(command, preexec_fn=no_writable_code, check=True)
    except (OSError, subprocess.SubprocessError):
        return False
    return True


@pytest.mark.long
def test_the_server_scores_without_memory_that_is_written_and_run(tmp_path: Path) -> None:
    assert "MemoryDenyWriteExecute=yes" in UNIT.read_text()
    if not kernel_can_deny():
        pytest.skip("the kernel is older than 6.3")
    clip = render_clip(tmp_path / "clip.mp4")
    url = f"rtsp://127.0.0.1:{free_port()}/live"
    with ServerProcess(before_exec=no_writable_code) as server:
        status = Path(f"/proc/{server.process.pid}/maps").read_text()
        assert not re.search(r" rwxp ", status)
        client = server.client()
        scores = Scores(client)
        client.create(StreamConfig("door", SourceUrl(url), Mode.LISTEN))
        with PushCamera(clip, url):
            assert all(score.score is not None for score in scores.wait("door", 2))
        scores.close()
        client.close()
