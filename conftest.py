"""Which tests can run here; the rest is skipped with its reason.

With CI=true nothing is skipped for want of a package: what is missing is an error.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import pytest

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
    if item.get_closest_marker("rtsp") and not _has_rtsp_server():
        if IN_CI:
            raise pytest.UsageError("gst-rtsp-server is not installed; run `make test-deps`")
        return "rtsp: gst-rtsp-server is not installed; run `make test-deps`"
    for marker, lacks in _PROBES.items():
        if item.get_closest_marker(marker) and (missing := lacks()):
            if IN_CI:
                raise pytest.UsageError(f"no {marker} for a test: {missing}")
            return f"{marker}: {missing}"
    return None


@cache
def _has_rtsp_server() -> bool:
    probe = "import gi; gi.require_version('GstRtspServer', '1.0')"
    try:
        command = ["/usr/bin/python3", "-c", probe]
        finished = subprocess.run(command, capture_output=True, timeout=30)
    except OSError:
        return False
    return finished.returncode == 0


@cache
def _lacks_roots() -> str:
    """Why a root of Debian cannot be made and entered here; empty where it can."""
    if shutil.which("debootstrap") is None:
        return "debootstrap is not installed; run `make test-deps`"
    probe = ["unshare", "--mount", "--pid", "--net", "--fork", "mount", "-t", "tmpfs", "x", "/mnt"]
    finished = subprocess.run(probe, capture_output=True, text=True, timeout=30)
    return f"mounts need root ({finished.stderr.strip()})" if finished.returncode else ""


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


def _lacks_program(name: str) -> str:
    return "" if shutil.which(name) else f"{name} is not installed; run `make test-deps`"


# Why tests with a marker cannot run here; empty where they can.
_PROBES: dict[str, Callable[[], str]] = {
    "debootstrap": _lacks_roots,
    "faketime": partial(_lacks_program, "faketime"),
    "network": _lacks_networks,
    "systemd": partial(_lacks_program, "systemd-analyze"),
}


@pytest.fixture(scope="session")
def clips() -> Path:
    """The folder of real clips; only for tests marked `clips`."""
    return DATA
