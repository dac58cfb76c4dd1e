"""A stage of the image at work: its user, a read-only root, a network of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.support.image import Image

START_SECONDS = 60

# With nothing but /data and /tmp to write to, as `docker run --read-only --tmpfs /tmp` would.
_ENTRY = """
ip link set lo up
mount -t proc proc "$ROOT/proc"
mount --rbind /dev "$ROOT/dev"
mount --bind "$DATA" "$ROOT/data"
mount -t tmpfs -o mode=1777 tmpfs "$ROOT/tmp"
mount -o remount,bind,ro "$ROOT"
exec chroot --userspec="$USER_AND_GROUP" "$ROOT" /bin/sh -c 'cd "$0" && exec "$@"' "$WORKDIR" "$@"
"""


@dataclass(frozen=True)
class Container:
    """A running command of an image, and further ones beside it."""

    image: Image
    process: subprocess.Popen[str]

    @property
    def main(self) -> psutil.Process:
        """The command itself, seen from here."""
        [main] = psutil.Process(self.process.pid).children()
        return main

    def wait_until_entered(self) -> None:
        """Wait until the command runs as the image's user."""
        user = int(self.image.config["USER"].split(":")[0])
        deadline = time.monotonic() + START_SECONDS
        while not any(
            child.uids().real == user for child in psutil.Process(self.process.pid).children()
        ):
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run another command in it, as the same user."""
        enter = ["nsenter", f"--target={self.main.pid}", "--mount", "--net", "--pid"]
        chroot = ["chroot", f"--userspec={self.image.config['USER']}", str(self.image.root)]
        return subprocess.run(
            [*enter, *chroot, *command],
            env=self.image.environment,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def wait_until_healthy(self) -> None:
        """Ask the image's own health check until it is content."""
        deadline = time.monotonic() + START_SECONDS
        while (last := self.run(*self.image.command("HEALTHCHECK"))).returncode:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{last.stderr}\n{self.stop()}")
            time.sleep(0.2)

    def stop(self) -> tuple[int, str]:
        """Send the image's stop signal; the exit code and what it wrote."""
        if self.process.poll() is None:
            self.main.send_signal(signal.Signals[self.image.config["STOPSIGNAL"]])
        _, errors = self.process.communicate(timeout=30)
        return self.process.returncode, errors


@contextmanager
def running(
    image: Image, data: Path, command: list[str], environment: Mapping[str, str] | None = None
) -> Iterator[Container]:
    """Run a command of an image.

    Args:
        image: a stage.
        data: folder for /data; it is given to the image's user, as a new volume would be.
        command: what to run.
        environment: added to the image's.
    """
    user, group = image.config["USER"].split(":")
    os.chown(data, int(user), int(group))
    given = {
        "ROOT": str(image.root),
        "DATA": str(data),
        "USER_AND_GROUP": image.config["USER"],
        "WORKDIR": image.config["WORKDIR"],
    }
    process = subprocess.Popen(
        [
            *("/usr/bin/unshare", "--mount", "--pid", "--net", "--fork", "--kill-child"),
            *("/bin/sh", "-ec", _ENTRY, "sh", *command),
        ],
        env=dict(image.environment) | given | dict(environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        container = Container(image, process)
        container.wait_until_entered()
        yield container
    finally:
        # The command first, and with it all in its process namespace: it has changed its user,
        # so the kernel no longer ends it with its parent.
        for child in psutil.Process(process.pid).children() if process.poll() is None else []:
            child.kill()
        process.kill()
        process.communicate(timeout=30)
