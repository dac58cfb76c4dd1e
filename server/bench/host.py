"""The server that is measured: a real `gvvad serve` with a store of its own, in `scratch`."""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from server.bench.processes import Usage, pss_bytes, usage_of
from server.rpc.client import Client
from server.spawned import Spawned, spawned

START_SECONDS = 300.0
"""The largest encoders take minutes to load and to warm up."""

_STAGE = "gvvad_stage_duration_seconds"
_SCRAPE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Counters:
    """What a server's metrics had counted at one moment.

    Attributes:
        frames: decoded.
        decode: sum and count of the mean times of a frame, in seconds.
        preprocess: the same of a window.
    """

    frames: float
    decode: tuple[float, float]
    preprocess: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Host:
    """A server that is ready to be measured."""

    server: Spawned

    @property
    def client(self) -> Client:
        """A client of it."""
        return self.server.client

    def usage(self) -> Usage:
        """Processor time so far."""
        return usage_of(self.server.pid)

    def pss_bytes(self) -> int:
        """Memory of all its processes."""
        return pss_bytes(self.server.pid)

    def counters(self) -> Counters:
        """What its metrics count.

        Raises:
            OSError: its side port does not answer.
        """
        url = f"{self.server.http}/metrics"
        with urllib.request.urlopen(url, timeout=_SCRAPE_SECONDS) as answer:
            return read_counters(answer.read().decode())


@contextmanager
def host(scratch: Path, settings: Mapping[str, object]) -> Iterator[Host]:
    """Start a server, and end it whatever happens.

    Args:
        scratch: folder for its store, evidence and log; a new server takes an empty store.
        settings: by dotted key, in place of the benchmark's own.

    Raises:
        StartError: it does not start.
    """
    number = len(list(scratch.glob("server-*.log")))
    own = {
        "store.url": f"sqlite:///{scratch / f'store-{number}.db'}",
        "evidence.directory": scratch / f"evidence-{number}",
        "max_streams": 10_000,
        "grpc.watch_backlog": 10_000,
    }
    log = scratch / f"server-{number}.log"
    with spawned(log, _environment(), own | dict(settings), START_SECONDS) as server:
        yield Host(server)


def read_counters(text: str) -> Counters:
    """Counters from a scrape in Prometheus' text format."""
    values: dict[tuple[str, str], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, sample.labels.get("stage", ""))
            values[key] = values.get(key, 0.0) + sample.value

    def stage(name: str) -> tuple[float, float]:
        return values.get((f"{_STAGE}_sum", name), 0.0), values.get((f"{_STAGE}_count", name), 0.0)

    frames = values.get(("gvvad_frames_decoded_total", ""), 0.0)
    return Counters(frames, stage("decode"), stage("preprocess"))


def _environment() -> dict[str, str]:
    # Settings of the operator's own server: its receivers must hear nothing of this one.
    return {name: value for name, value in os.environ.items() if not name.startswith("GVVAD_")}
