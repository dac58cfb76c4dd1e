"""Which tests can run here; the rest is skipped with its reason.

With CI=true nothing is skipped for want of a package: what is missing is an error.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Generator, Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from tests.support import postgresql
from tests.support.networks import CameraNetwork
from tests.support.programs_of_debian import find_program

# What fails there shows its values too.
pytest.register_assert_rewrite("tests.support.watching", "tests.support.faults")

ROOT = Path(__file__).parent
DATA = Path(os.environ.get("GVVAD_DATA", ROOT.parent / "shared" / "data"))
IN_CI = os.environ.get("CI") == "true"

# Tests of cameras and clocks mostly wait, so with xdist they take turns in one
# process, begun first, and every other file goes to whoever is free.
LIVE = "tests/e2e/"
POLITE = 10
"""Niceness of all other tests meanwhile."""

"""Debian packages with a marker and a program of their own name."""

# For the system's Python, which has GStreamer.
collect_ignore = ["tests/support/gst_program.py", "tests/support/gst_server.py"]
# Alembic runs its own files, and only within a migration.
collect_ignore_glob = ["server/store/migrations/*"]


# How long an example takes says what else the machine does; a test that hangs has its timeout.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


def pytest_configure() -> None:
    """Give Ctrl-C back to the programs under test, which a background job would not pass on."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run tests of over 20 seconds too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not _is_live(item))
    for item in items:
        reason = _reason_to_skip(item, long=IN_CI or config.getoption("--long"))
        if reason is not None:
            item.add_marker(pytest.mark.skip(reason=reason))


class LiveApart(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """Files to whoever is free, but all live ones to one process."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return LIVE if file.startswith(LIVE) else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LiveApart:
    return LiveApart(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let the live tests have the processor first, where others run beside them."""
    if "PYTEST_XDIST_WORKER" in os.environ and not _is_live(item):
        os.nice(max(0, POLITE - os.nice(0)))


@pytest.hookimpl(tryfirst=True, wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Where tests run beside each other, let those marked quiet have the machine alone."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return (yield)
    # Outside of the test's timeout, which does not run while it waits.
    folder = item.config.cache.mkdir("turns")  # type: ignore[union-attr]  # it is never switched off
    alone = item.get_closest_marker("quiet") is not None
    with (folder / "gate").open("w") as gate, (folder / "room").open("w") as room:
        fcntl.flock(gate, fcntl.LOCK_EX)  # while one waits to be alone nobody else goes in
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(gate, fcntl.LOCK_UN)
        return (yield)


def _is_live(item: pytest.Item) -> bool:
    return item.nodeid.startswith(LIVE)


def _reason_to_skip(item: pytest.Item, *, long: bool) -> str | None:
    if item.get_closest_marker("long") and not long:
        return "long: runs with --long or CI=true"
    for marker, missing in _NEEDS.items():
        if item.get_closest_marker(marker) and (reason := missing()):
            if IN_CI and marker not in _NOT_IN_CI:
                raise pytest.UsageError(f"{marker}: {reason}")
            return f"{marker}: {reason}"
    return None


def _without(program: str) -> str:
    return "" if find_program(program) else f"{program} is not installed; run `make test-deps`"


@cache
def _without_rtsp_server() -> str:
    probe = "import gi; gi.require_version('GstRtspServer', '1.0')"
    try:
        command = ["/usr/bin/python3", "-c", probe]
        finished = subprocess.run(command, capture_output=True, timeout=30)
        missing = finished.returncode != 0
    except OSError:
        missing = True
    return "gst-rtsp-server is not installed; run `make test-deps`" if missing else ""


@cache
def _without_roots() -> str:
    if shutil.which("debootstrap") is None:
        return "debootstrap is not installed; run `make test-deps`"
    probe = ["unshare", "--mount", "--pid", "--net", "--fork", "mount", "-t", "tmpfs", "x", "/mnt"]
    finished = subprocess.run(probe, capture_output=True, text=True, timeout=30)
    return f"mounts need root ({finished.stderr.strip()})" if finished.returncode else ""


@cache
def _without_networks() -> str:
    try:
        CameraNetwork().close()
    except FileNotFoundError:
        return "iproute2 is not installed; run `make test-deps`"
    except AssertionError as error:
        return f"namespaces and filters need root and their kernel modules ({error})"
    return ""


# Why tests that need it cannot run here, by marker; empty where they can.
_NEEDS: dict[str, Callable[[], str]] = {
    "clips": lambda: "" if DATA.is_dir() else f"no real clips at {DATA}; set GVVAD_DATA",
    "gpu": lambda: "" if Path("/dev/nvidiactl").exists() else "no CUDA device",
    "rtsp": _without_rtsp_server,
    "faketime": lambda: _without("faketime"),
    "network": _without_networks,
    "prometheus": lambda: _without("prometheus") or _without("amtool"),
    "debootstrap": _without_roots,
    "systemd": lambda: _without("systemd-analyze"),
    "postgresql": postgresql.lacks,
    "mosquitto": lambda: _without("mosquitto"),
}
_NOT_IN_CI = {"clips", "gpu"}


@pytest.fixture(scope="session")
def cluster() -> Iterator[postgresql.Cluster]:
    """A PostgreSQL; only for tests marked `postgresql`."""
    running = postgresql.Cluster()
    yield running
    running.remove()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a new database of each kind that the server knows."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.db'}"
    made: postgresql.Cluster = request.getfixturevalue("cluster")
    return made.database()


@pytest.fixture(scope="session")
def clips() -> Path:
    """The folder of real clips; only for tests marked `clips`."""
    return DATA
