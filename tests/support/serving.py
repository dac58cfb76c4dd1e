"""A real server in a process of its own, as an operator would start it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from server.bundle import DEFAULT_BUNDLE
from server.rpc.client import Client

_READY = re.compile(r"ready: .* gRPC on port (\d+), HTTP on port (\d+)")
START_SECONDS = 60


class ServerProcess:
    """`gvvad serve` on free ports, with its log kept and its processes counted."""

    def __init__(
        self,
        *,
        store: Path | None = None,
        bundle: Path = DEFAULT_BUNDLE,
        environment: Mapping[str, str] | None = None,
        before_exec: Callable[[], None] | None = None,
        **settings: object,
    ) -> None:
        """Settings by key, dots written as `__`: `ingest__read_timeout_seconds=2`.

        `environment` is added to that of the server and all that it starts; `before_exec`
        runs in its process before the server does.
        """
        given = {
            "grpc.port": 0,
            "http.port": 0,
            "bundle": bundle,
            "store.url": f"sqlite:///{store}" if store else "sqlite://",
        } | {key.replace("__", "."): value for key, value in settings.items()}
        flags = [part for key, value in given.items() for part in ("--set", f"{key}={value}")]
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("GVVAD_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "server", "serve", *flags],
            stderr=subprocess.PIPE,
            text=True,
            env=inherited | dict(environment or {}),
            preexec_fn=before_exec,
        )
        self.log: list[str] = []
        self._ports: tuple[int, int] | None = None
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        if not self._ready.wait(START_SECONDS) or self._ports is None:
            self.kill()
            raise AssertionError("the server did not get ready:\n" + "".join(self.log))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()

    @property
    def address(self) -> str:
        assert self._ports is not None
        return f"127.0.0.1:{self._ports[0]}"

    @property
    def http(self) -> str:
        assert self._ports is not None
        return f"http://127.0.0.1:{self._ports[1]}"

    def client(self) -> Client:
        return Client(self.address)

    def processes(self) -> list[psutil.Process]:
        """The server and everything that it started."""
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]

    def pss_bytes(self) -> int:
        """Memory of all its processes, shared pages divided among them."""
        return sum(process.memory_full_info().pss for process in self.processes())

    def cpu_seconds(self) -> float:
        """Processor time of all its processes that live now."""
        times = [process.cpu_times() for process in self.processes()]
        return sum(one.user + one.system for one in times)

    def terminate(self) -> tuple[int, float]:
        """SIGTERM; returns the exit code and how many seconds it took."""
        started = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(30)
        return code, time.monotonic() - started

    def kill(self) -> None:
        """End it whatever it does, and what it started."""
        if self.process.poll() is None:
            everything = self.processes()
            for process in everything:
                process.kill()
            psutil.wait_procs(everything, timeout=10)
        self.process.wait(10)
        self._reader.join(10)
        if self.process.stderr:
            self.process.stderr.close()

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            found = _READY.search(line)
            if found:
                self._ports = (int(found[1]), int(found[2]))
                self._ready.set()
        self._ready.set()
