"""The Dockerfile: linted, its locks held true, and its runtime built and run without Docker."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.container import running
from tests.support.image import Builder, Image, make_base, sent_files

ROOT = Path(__file__).parents[2]
SITE = "opt/gvvad/lib/python3.11/site-packages"


def test_the_linter_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    finished = subprocess.run([hadolint, "Dockerfile"], cwd=ROOT, capture_output=True, text=True)
    assert (finished.returncode, finished.stdout) == (0, "")


@pytest.mark.long
def test_nothing_but_what_is_built_is_sent_to_docker() -> None:
    sent = sent_files(ROOT)
    folders = {path.split("/")[0] for path in sent}
    files = {"pyproject.toml", "README.md", "LICENSE"}
    assert folders == files | {"server", "training", "export", "protos", "deploy"}
    assert {path for path in sent if path.startswith("deploy/")} == {
        f"deploy/requirements/{name}.txt" for name in ("build", "cpu", "gpu", "tensorrt", "train")
    }


def test_the_labels_tell_the_projects_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    defaults = re.findall(r"^ARG VERSION=(.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert set(defaults) == {version}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """The stage runtime-cpu, built by its own commands."""
    scratch = tmp_path_factory.mktemp("image")
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(scratch)], check=True)
    try:
        make_base(scratch / "debian")
        yield Builder(ROOT, scratch, scratch / "debian").build("runtime-cpu")
    finally:
        subprocess.run(["umount", "--recursive", "--lazy", str(scratch)], check=True)


@pytest.mark.long
@pytest.mark.debootstrap
@pytest.mark.timeout(900)
def test_the_runtime_serves_as_nobody_from_a_read_only_root(image: Image, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    serve = image.command("ENTRYPOINT") + image.command("CMD")
    with running(image, data, serve) as server:
        server.wait_until_healthy()
        assert set(server.main.uids()) == {10001}
        assert "Read-only file system" in server.run("touch", "/opt/gvvad/x").stderr
        model = server.run("gvvad", "model", "--json")
        assert model.returncode == 0, model.stderr
        code, log = server.stop()
    assert code == 0, log
    assert "ready: bundle" in log
    assert {path.name for path in data.iterdir()} == {"gvvad.db", "gvvad-evidence"}


@pytest.mark.long
@pytest.mark.debootstrap
def test_the_health_check_fails_where_nothing_serves(image: Image, tmp_path: Path) -> None:
    with running(image, tmp_path, ["sleep", "60"]) as idle:
        checked = idle.run(*image.command("HEALTHCHECK"))
    assert checked.returncode == 1
    assert "ConnectionRefusedError" in checked.stderr


@pytest.mark.long
@pytest.mark.debootstrap
def test_the_runtime_holds_neither_torch_nor_installers_nor_a_file_of_another_user(
    image: Image,
) -> None:
    installed = {path.name for path in (image.root / SITE).iterdir()}
    assert {"server", "onnxruntime", "psycopg"} <= installed
    assert not installed & {"torch", "pip", "setuptools", "pytest"}
    assert list((image.root / SITE / "server" / "__pycache__").glob("*.pyc"))
    owners = {path.lstat().st_uid for path in (image.root / "opt/gvvad").rglob("*")}
    assert owners == {0}
    volume = (image.root / "data").stat()
    assert (volume.st_uid, volume.st_mode & 0o777) == (10001, 0o700)
