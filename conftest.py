"""Which tests can run here; the rest is skipped with its reason.

With CI=true nothing is skipped for want of a package: what is missing is an error.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support import postgresql
from tests.support.networks import CameraNetwork

ROOT = Path(__file__).parent
DATA = Path(os.environ.get("GVVAD_DATA", ROOT.parent / "shared" / "data"))
IN_CI = os.environ.get("CI") == "true"

# Tests of cameras and clocks mostly wait, so with xdist they take turns in one
# process, begun first, and every other file goes to whoever is free.
LIVE_TESTS = ROOT / "tests" / "e2e"
LIVE = "live"
POLITE = 10
"""Niceness of all other tests meanwhile."""

# For the system's Python, which has GStreamer.
collect_ignore = ["tests/support/gst_program.py", "tests/support/gst_server.py"]


def pytest_configure() -> None:
    """Give Ctrl-C back to the programs under test, which a background job would not pass on."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run tests of over 20 seconds too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not _is_live(item))
    for item in items:
        item.add_marker(pytest.mark.xdist_group(LIVE if _is_live(item) else str(item.path)))
        reason = _reason_to_skip(item, long=IN_CI or config.getoption("--long"))
        if reason is not None:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let the live tests have the processor first, where others run beside them."""
    if "PYTEST_XDIST_WORKER" in os.environ and not _is_live(item):
        os.nice(max(0, POLITE - os.nice(0)))


def _is_live(item: pytest.Item) -> bool:
    return LIVE_TESTS in item.path.parents


def _reason_to_skip(item: pytest.Item, *, long: bool) -> str | None:
    if item.get_closest_marker("long") and not long:
        return "long: runs with --long or CI=true"
    if item.get_closest_marker("clips") and not DATA.is_dir():
        return f"clips: no real clips at {DATA}; set GVVAD_DATA"
    if item.get_closest_marker("gpu") and not Path("/dev/nvidiactl").exists():
        return "gpu: no CUDA device"
    for name, lacks in _PACKAGES.items():
        if item.get_closest_marker(name) and (missing := lacks()):
            if IN_CI:
                raise pytest.UsageError(f"{name}: {missing}")
            return f"{name}: {missing}"
    return None


@cache
def _lacks_rtsp_server() -> str:
    probe = "import gi; gi.require_version('GstRtspServer', '1.0')"
    try:
        command = ["/usr/bin/python3", "-c", probe]
        found = subprocess.run(command, capture_output=True, timeout=30).returncode == 0
    except OSError:
        found = False
    return "" if found else "gst-rtsp-server is not installed; run `make test-deps`"


def _lacks_faketime() -> str:
    return "" if shutil.which("faketime") else "it is not installed; run `make test-deps`"


@cache
def _lacks_networks() -> str:
    """Why a camera can have no network of its own here; empty where it can."""
    try:
        CameraNetwork().close()
    except FileNotFoundError:
        return "iproute2 is not installed; run `make test-deps`"
    except AssertionError as error:
        return f"namespaces and filters need root and their kernel modules ({error})"
    return ""


_PACKAGES: dict[str, Callable[[], str]] = {
    "rtsp": _lacks_rtsp_server,
    "faketime": _lacks_faketime,
    "network": _lacks_networks,
    "postgresql": postgresql.lacks,
}
"""By marker: why its tests cannot run here; empty where they can."""


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
