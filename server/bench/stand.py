"""The test stand: a server, cameras that come and go, and a run of so many of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from server.bench.host import Counters, Host
from server.bench.processes import Usage, busy_seconds
from server.bench.run import (
    Generator,
    Run,
    Seen,
    Shares,
    behind_seconds,
    drops_by_reason,
    latency_of,
    worst_p99_seconds,
)
from server.bench.watcher import Watcher
from server.rpc.client import ClientError
from server.streams import SourceUrl, StreamConfig

SETTLE_SECONDS = 2.0
"""After the last camera's first window: what opening took of the cores has passed."""

ASK_AGAIN_SECONDS = 10.0
"""What cameras take is dearest while many connect: for so long refused ones ask once more."""

FIRST_WINDOW_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Camera:
    """A camera that the server can be given.

    Attributes:
        stream_id: its id there.
        url: where it is.
        fps: that it sends; None where nobody knows.
    """

    stream_id: str
    url: SourceUrl
    fps: float | None


class FarmFigures(Protocol):
    """What cameras of our own have done so far."""

    @property
    def cpu_seconds(self) -> float:
        """Processor time."""

    @property
    def frames_sent(self) -> int:
        """To all readers."""

    @property
    def frames_refused(self) -> int:
        """That a reader did not take in time."""

    @property
    def lateness_p99_seconds(self) -> float:
        """Since the figures were last asked for."""


class Farm(Protocol):
    """Cameras of our own."""

    def stats(self) -> FarmFigures:
        """Their figures up to now."""


@dataclass(frozen=True, slots=True)
class _Moment:
    """All counters at the begin or end of a run."""

    at_seconds: float
    usage: Usage
    counters: Counters
    farm: FarmFigures | None
    own_cpu_seconds: float
    busy_seconds: float


class Stand:
    """Cameras at one server, watched.

    Args:
        host: the server.
        cameras: that it may be given, in this order.
        farm: plays them; None for real cameras alone.
        watcher: of the server.
    """

    def __init__(
        self, host: Host, cameras: Sequence[Camera], farm: Farm | None, watcher: Watcher
    ) -> None:
        self._host, self._cameras, self._farm, self._watcher = host, cameras, farm, watcher
        self._admitted: list[Camera] = []
        self._asked = 0
        self._refusal = ""

    def give(self, cameras: int) -> None:
        """Add or remove cameras until so many were asked for, and wait until they settled.

        Raises:
            ClientError: the server fails otherwise than by refusing one.
        """
        if self._asked == cameras and not self._refusal:
            return
        self._watcher.take()
        wanted = set(self._cameras[:cameras])
        for camera in [one for one in self._admitted if one not in wanted]:
            self._host.client.delete(camera.stream_id)
            self._admitted.remove(camera)
        self._asked = cameras
        self._ask()
        asked_until = time.monotonic() + ASK_AGAIN_SECONDS
        while self._refusal and time.monotonic() < asked_until:
            self._ask()

    def run(self, cameras: int, seconds: float) -> Run:
        """Watch so many cameras for a while.

        Raises:
            ClientError, OSError, FarmError: the server or the cameras are gone.
        """
        self.give(cameras)
        self._watcher.take()
        begin = self._moment()
        time.sleep(seconds)
        end = self._moment()
        seen, missed = self._watcher.take()
        # What is on its way from a stream that was removed belongs to no camera of this run.
        admitted = {camera.stream_id: camera.fps for camera in self._admitted}
        return self._figures([one for one in seen if one.stream_id in admitted], missed, begin, end)

    def pss_bytes(self) -> int:
        """Memory of the server now."""
        return self._host.pss_bytes()

    def _ask(self) -> None:
        """Ask for all that are not there, and wait until those that are settled."""
        self._refusal = ""
        for camera in self._cameras[: self._asked]:
            if camera not in self._admitted:
                self._add(camera)
        self._watcher.wait_for_all({one.stream_id for one in self._admitted}, FIRST_WINDOW_SECONDS)
        time.sleep(SETTLE_SECONDS)

    def _add(self, camera: Camera) -> None:
        try:
            self._host.client.create(StreamConfig(camera.stream_id, camera.url))
            self._admitted.append(camera)
        except ClientError as error:
            if error.code != "RESOURCE_EXHAUSTED":
                raise
            self._refusal = error.sentence

    def _moment(self) -> _Moment:
        return _Moment(
            time.monotonic(),
            self._host.usage(),
            self._host.counters(),
            self._farm.stats() if self._farm is not None else None,
            time.process_time(),
            busy_seconds(),
        )

    def _figures(self, seen: list[Seen], missed: int, begin: _Moment, end: _Moment) -> Run:
        fps = {camera.stream_id: camera.fps for camera in self._admitted}
        scored = [one.latency_seconds for one in seen if one.drop_reason is None]
        shares, generator = _shares(begin, end, len(scored)), _generator(begin, end, missed)
        return Run(
            cameras=self._asked,
            seconds=end.at_seconds - begin.at_seconds,
            windows=len(scored),
            dropped=drops_by_reason(seen),
            latency=latency_of(scored),
            worst_camera_p99_seconds=worst_p99_seconds(seen),
            behind_seconds=behind_seconds(seen, fps),
            frames_decoded=round(end.counters.frames - begin.counters.frames),
            silent=len(fps.keys() - {one.stream_id for one in seen}),
            refused=self._asked - len(self._admitted),
            refusal=self._refusal,
            shares=shares,
            others_cores=_others_cores(begin, end, shares.total + generator.cores),
            pss_bytes=self._host.pss_bytes(),
            generator=generator,
        )


def _shares(begin: _Moment, end: _Moment, windows: int) -> Shares:
    seconds = end.at_seconds - begin.at_seconds
    used = end.usage - begin.usage
    frames = end.counters.frames - begin.counters.frames
    decode = _mean(begin.counters.decode, end.counters.decode) * frames
    preprocess = _mean(begin.counters.preprocess, end.counters.preprocess) * windows
    # Both were taken by the clock; on busy cores that holds time spent waiting for one.
    scale = min(1.0, used.ingest / (decode + preprocess)) if decode + preprocess else 0.0
    decode, preprocess = decode * scale, preprocess * scale
    return Shares(
        decode / seconds,
        preprocess / seconds,
        max(0.0, used.ingest - decode - preprocess) / seconds,
        used.engine / seconds,
        used.rest / seconds,
    )


def _others_cores(begin: _Moment, end: _Moment, ours: float) -> float:
    busy = (end.busy_seconds - begin.busy_seconds) / (end.at_seconds - begin.at_seconds)
    return max(0.0, busy - ours)


def _mean(begin: tuple[float, float], end: tuple[float, float]) -> float:
    count = end[1] - begin[1]
    return (end[0] - begin[0]) / count if count else 0.0


def _generator(begin: _Moment, end: _Moment, missed: int) -> Generator:
    seconds = end.at_seconds - begin.at_seconds
    own_cores = (end.own_cpu_seconds - begin.own_cpu_seconds) / seconds
    if begin.farm is None or end.farm is None:
        return Generator(0.0, own_cores, 0, 0, 0.0, missed)
    return Generator(
        (end.farm.cpu_seconds - begin.farm.cpu_seconds) / seconds,
        own_cores,
        end.farm.frames_sent - begin.farm.frames_sent,
        end.farm.frames_refused - begin.farm.frames_refused,
        end.farm.lateness_p99_seconds,
        missed,
    )
