"""A PostgreSQL of the tests' own: Debian's programs, a cluster in a folder that goes with it."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

import psycopg

_USER = "postgres"
_OPTIONS = "-c listen_addresses= -c fsync=off -c full_page_writes=off -k {socket}"


def programs() -> Path | None:
    """Folder of `initdb` and `pg_ctl`, the newest version's; None where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=_version)
    return found[-1].parent if found else None


def lacks() -> str:
    """Why no PostgreSQL can run here; empty where one can."""
    if programs() is None:
        return "postgresql is not installed; run `make test-deps`"
    if os.geteuid() == 0 and _USER not in {one.pw_name for one in pwd.getpwall()}:
        return f"PostgreSQL does not run as root, and there is no user {_USER}"
    return ""


class Cluster:
    """A running PostgreSQL, reached through a socket in its own folder."""

    def __init__(self) -> None:
        self._programs = programs()
        self._names = itertools.count()
        # Not below pytest's folders, which are closed to the user it runs as.
        self._home = Path(tempfile.mkdtemp(prefix="gvvad-postgresql-"))
        self._user = _USER if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(self._home, self._user)
        self._run("initdb", "--no-sync", "--auth=trust", f"--username={_USER}", *self._data)
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = _OPTIONS.format(socket=self._home)
        log = str(self._home / "log")
        self._run("pg_ctl", "start", "--wait", *self._data, f"--log={log}", f"--options={options}")

    def stop(self, mode: str = "fast") -> None:
        """Stop it; `immediate` is as good as a crash."""
        self._run("pg_ctl", "stop", "--wait", f"--mode={mode}", *self._data)

    def remove(self) -> None:
        """Stop it for good."""
        self.stop("immediate")
        shutil.rmtree(self._home)

    def database(self) -> str:
        """URL of a new, empty database."""
        name = f"test{next(self._names)}"
        with psycopg.connect(self._address("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self._address(name)

    @property
    def _data(self) -> tuple[str]:
        return (f"--pgdata={self._home / 'data'}",)

    def _address(self, name: str) -> str:
        return f"postgresql://{_USER}@/{name}?host={self._home}"

    def _run(self, program: str, *arguments: str) -> None:
        assert self._programs is not None
        # A file: a server that goes on would hold a pipe open for ever.
        with (self._home / "out").open("a") as out:
            done = subprocess.run(
                [self._programs / program, *arguments],
                user=self._user,
                cwd=self._home,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                timeout=60,
            )
        assert done.returncode == 0, (self._home / "out").read_text()


def _version(path: Path) -> float:
    return float(path.parts[-3])
