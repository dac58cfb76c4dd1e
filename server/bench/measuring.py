"""The parts of a benchmark that measure, one method each; what they find goes to `Findings`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from server.bench import ramp
from server.bench.beside import NaiveBeside
from server.bench.ceilings import (
    DecodeCost,
    EncodeCost,
    best_encode,
    ceiling_cameras,
    ceiling_windows_per_second,
    measure_decode,
    measure_encode,
    windows_per_second,
)
from server.bench.farm import CameraFarm, CameraSpec
from server.bench.findings import (
    Ceiling,
    Findings,
    LoadTrial,
    Memory,
    NaiveRound,
    Round,
    Soak,
    mixed,
)
from server.bench.host import host
from server.bench.kinds import DEFAULT_FPS, CameraKind
from server.bench.naive import NaiveRun
from server.bench.plan import Plan
from server.bench.playlist import clip_folder, clip_of, repeated
from server.bench.replay import Replay, measure_replay
from server.bench.report import in_words
from server.bench.run import Run, complaints
from server.bench.stand import Camera, Farm, Stand
from server.bench.watcher import Watcher
from server.bundle import load_bundle
from server.contract import WINDOW_FRAMES
from server.streams import SourceUrl

FIRST_SHARE = 0.75
"""Of the ceiling: where the search begins."""

UNKNOWN_FIRST, UNKNOWN_MOST = 4, 256
"""Cameras to begin with, and at most, where there is no ceiling."""

MOST_SHARE = 2.5
"""Of the ceiling: more cameras are not played, since nobody can hold more than it."""

LEAST_WINDOWS = 2.5
"""Of the slowest camera: no run is shorter, whatever was asked for."""

MEMORY_POINTS = 4
SOAK_PARTS, LEAST_PART_SECONDS = 120, 10.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Footage:
    """What the cameras play.

    Attributes:
        clips: by kind; None for a real camera.
        replay: a long file of the first kind that is none; None where all are.
        replay_fps: its rate, in Hz.
    """

    clips: tuple[Path | None, ...]
    replay: Path | None
    replay_fps: float


def prepare_footage(kinds: Sequence[CameraKind], scratch: Path) -> Footage:
    """Render or find the clips of all kinds.

    Raises:
        OSError: the clips cannot be kept.
    """
    folder = clip_folder() or scratch
    clips = tuple(clip_of(kind, folder) for kind in kinds)
    playable = [(one, kind) for one, kind in zip(clips, kinds, strict=True) if one is not None]
    if not playable:
        return Footage(clips, None, 0.0)
    clip, kind = playable[0]
    return Footage(clips, repeated(clip, scratch / "replay.mp4"), kind.fps or 0.0)


class Measuring:
    """Measures one mix of cameras; a context manager that ends all that it started.

    Args:
        plan: what to do.
        footage: of its cameras.
        scratch: folder for the servers' files.
        findings: filled as it goes, so that what was found outlives an interruption.
        say: told what is measured and what came of it, a line at a time.
    """

    def __init__(
        self, plan: Plan, footage: Footage, scratch: Path, findings: Findings, say: Say
    ) -> None:
        self._plan, self._footage, self._scratch = plan, footage, scratch
        self.findings, self._say = findings, say
        self._window = load_bundle(plan.bundle).manifest.window
        rates = [self._window.fps or kind.fps or DEFAULT_FPS for kind in plan.kinds]
        self._least_seconds = LEAST_WINDOWS * WINDOW_FRAMES / min(rates)
        self._all, self._server = ExitStack(), ExitStack()
        self._stand: Stand | None = None
        self._farm: Farm | None = None
        self._cameras: list[Camera] = []
        self._address = ""
        self._beside: NaiveBeside | None = None

    def __enter__(self) -> Measuring:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()
        self._all.close()

    def first_ceiling(self) -> Ceiling:
        """Measure what the search begins from, and how this encoder is cheapest."""
        self._say("ceilings: what decoding and encoding alone take")
        ceiling = self._ceiling(self._cheapest_encode())
        self.findings.first_ceiling = ceiling
        return ceiling

    def play(self, most: int) -> None:
        """Start so many cameras and the server."""
        kinds, clips = self._plan.kinds, self._footage.clips
        order = [number % len(kinds) for number in range(most)]
        specs = [
            CameraSpec(_name(number), clip, kinds[which].fps or 0.0)
            for number, which in enumerate(order)
            if (clip := clips[which]) is not None
        ]
        farm = self._all.enter_context(CameraFarm(specs)) if specs else None
        self._farm = farm
        for number, which in enumerate(order):
            url = kinds[which].url or SourceUrl(farm.url(_name(number)) if farm else "")
            self._cameras.append(Camera(_name(number), url, kinds[which].fps))
        self._start_server()

    def settle_cameras(self) -> None:
        """Find the number that everything else is measured at."""
        plan, ceiling = self._plan, self.findings.ceiling
        if plan.cameras is not None:
            self.findings.cameras = plan.cameras
        elif plan.share is not None and ceiling is not None:
            self.findings.cameras, self.findings.by_share = share_of(ceiling, plan.share), True
        else:
            self._search(ceiling)

    def _search(self, ceiling: float | None) -> None:
        most = len(self._cameras)
        guess = UNKNOWN_FIRST if ceiling is None else math.floor(FIRST_SHARE * ceiling)
        limits = replace(self._plan.pace.search, most_cameras=most)
        found = ramp.search(self._attempt, min(max(guess, 1), most), limits)
        self.findings.ramp, self.findings.cameras = found, found.cameras
        certain = "" if found.exact else " (not searched to the end)"
        self._say(f"the largest number that holds: {found.cameras}{certain}")

    def round(self) -> None:
        """Measure everything once, one after the other."""
        first = self.findings.first_ceiling
        assert first is not None
        self._at_rest()
        self._say("a round: decode and encoder ceilings")
        ceiling = self._ceiling(self._encode_cost(first.encode))
        cameras = self.findings.cameras
        if self._plan.share is not None and ceiling.cameras is not None:
            cameras = min(share_of(ceiling.cameras, self._plan.share), len(self._cameras))
        trial = self._load(max(1, cameras), self._plan.pace.longer_seconds)
        self._at_rest()
        self.findings.rounds.append(Round(ceiling, trial, self._replay(), self._naive_round()))

    def meet_naive(self) -> None:
        """See whether the naive program can run here, and how many cameras it keeps up with."""
        plan, clip = self._plan, self._footage.replay
        if plan.naive_python is None or clip is None or None in self._footage.clips:
            asked = plan.naive_python is None
            self.findings.naive_lacking = "as asked for" if asked else "for real cameras"
            return
        beside = NaiveBeside(
            NaiveRun(plan.bundle, plan.naive_python),
            clip,
            [camera.url.reveal() for camera in self._cameras],
            self.findings.cores,
            windows_per_second(self._window, self._footage.replay_fps),
        )
        self.findings.naive_lacking = beside.program.lacking() or ""
        if self.findings.naive_lacking:
            self._say(f"the naive program is left out: {self.findings.naive_lacking}")
            return
        self._beside = beside
        if not plan.pace.most_naive_trials:
            return
        self._at_rest()
        self._say("the naive program: how many cameras it keeps up with")
        self.findings.naive_cameras = beside.keeps_up_with(plan.pace)
        self._say(f"the naive program keeps up with {in_words(self.findings.naive_cameras)}")

    def twice(self) -> None:
        """See what becomes of those admitted when twice as many come."""
        cameras = min(2 * max(1, self.findings.cameras), len(self._cameras))
        self._say(f"twice: {in_words(cameras)}")
        self.findings.twice = self._run(cameras, self._plan.pace.longer_seconds)

    def memory(self) -> None:
        """Measure what each further camera takes, at a fresh server with ever more of them."""
        self._start_server()
        most, points = max(2, self.findings.cameras), []
        shares = [number / (MEMORY_POINTS - 1) for number in range(MEMORY_POINTS)]
        for cameras in sorted({round(1 + share * (most - 1)) for share in shares}):
            run = self._run(cameras, self._plan.pace.seconds)
            self._say(f"memory: {run.pss_bytes / 1e6:.0f} MB with {in_words(cameras)}")
            points.append((cameras, run.pss_bytes))
        self.findings.memory = Memory(tuple(points))

    def soak(self) -> None:
        """Run what holds for long, in parts."""
        cameras, seconds = max(1, self.findings.cameras), self._plan.extras.soak_minutes * 60
        part_seconds = max(LEAST_PART_SECONDS, seconds / SOAK_PARTS)
        self._running().give(cameras)
        began_seconds = time.monotonic()
        parts: list[tuple[float, Run]] = []
        while (passed_seconds := time.monotonic() - began_seconds) < seconds:
            run = self._running().run(cameras, min(part_seconds, seconds - passed_seconds))
            parts.append((time.monotonic() - began_seconds, run))
            self.findings.soak = Soak(tuple(parts))
            self._say(f"soak: {parts[-1][0]:.0f} s, {run.pss_bytes / 1e6:.0f} MB")

    def _attempt(self, cameras: int, longer: bool) -> LoadTrial:
        pace = self._plan.pace
        trial = self._load(cameras, pace.longer_seconds if longer else pace.seconds)
        self.findings.trials.append(trial)
        if not trial.holds:
            # A camera that never came up can leave a worker that is stuck on it.
            (self._start_server if trial.run.silent else self._at_rest)()
        return trial

    def _load(self, cameras: int, seconds: float) -> LoadTrial:
        run = self._run(cameras, seconds)
        trial = LoadTrial(run, complaints(run, self.findings.bound_seconds))
        self._say(_told(trial, self.findings.cores))
        return trial

    def _run(self, cameras: int, seconds: float) -> Run:
        return self._running().run(cameras, max(seconds, self._least_seconds))

    def _running(self) -> Stand:
        assert self._stand is not None, "play() comes first"
        return self._stand

    def _at_rest(self) -> None:
        self._running().give(0)

    def _start_server(self) -> None:
        self._server.close()
        self._say("starting a server")
        running = self._server.enter_context(host(self._scratch, self._settings()))
        watcher = self._server.enter_context(Watcher(running.client))
        self._stand = Stand(running, self._cameras, self._farm, watcher)
        self._address = running.server.address
        self.findings.model = running.client.model()

    def _settings(self) -> dict[str, object]:
        own: dict[str, object] = {"bundle": self._plan.bundle, "engine.name": self._plan.engine}
        if self._footage.replay is not None:
            own["access.file_roots"] = self._footage.replay.parent
        return own | dict(self._plan.settings)

    def _ceiling(self, encode: EncodeCost) -> Ceiling:
        cores, clips = self.findings.cores, self._footage.clips
        if any(clip is None for clip in clips):
            return Ceiling((), encode, None, None)
        seconds, bundle = self._plan.pace.ceiling_seconds, self._plan.bundle
        costs: list[DecodeCost] = []
        cameras: list[float] = []
        for kind, clip in zip(self._plan.kinds, clips, strict=True):
            assert clip is not None
            assert kind.fps is not None
            costs.append(measure_decode(clip, bundle, seconds, cores))
            rate = windows_per_second(self._window, kind.fps)
            cameras.append(ceiling_cameras(cores, kind.fps, rate, costs[-1], encode))
        fps = self._footage.replay_fps
        rate = windows_per_second(self._window, fps)
        replay = ceiling_windows_per_second(cores, fps, rate, costs[0], encode)
        return Ceiling(tuple(costs), encode, mixed(cameras), replay)

    def _cheapest_encode(self) -> EncodeCost:
        plan, seconds = self._plan, self._plan.pace.ceiling_seconds
        if not plan.pace.encode_batches:
            return best_encode(plan.bundle, seconds, plan.engine)
        tried = [
            measure_encode(plan.bundle, seconds, batch, 1, plan.engine)
            for batch in plan.pace.encode_batches
        ]
        return min(tried, key=lambda cost: cost.core_seconds_per_window)

    def _encode_cost(self, best: EncodeCost) -> EncodeCost:
        plan = self._plan
        seconds = plan.pace.ceiling_seconds
        return measure_encode(plan.bundle, seconds, best.batch, best.threads, plan.engine)

    def _replay(self) -> Replay | None:
        if self._footage.replay is None:
            return None
        self._say("a round: recorded clips, as fast as the server takes them")
        return measure_replay(self._address, self._footage.replay, self._plan.pace.replay_seconds)

    def _naive_round(self) -> NaiveRound | None:
        if self._beside is None:
            return None
        self._say("a round: the naive program")
        seconds, cameras = self._plan.pace.seconds, self.findings.naive_cameras
        saturated = self._beside.saturated(self._plan.pace.replay_seconds)
        if not cameras:
            return NaiveRound(saturated, None, None)
        live = self._beside.live(cameras, seconds)
        return NaiveRound(saturated, live, self._run(cameras, seconds))


def share_of(ceiling: float, share: float) -> int:
    """Whole cameras, at least one.

    >>> share_of(33.1, 0.75), share_of(1.2, 0.75)
    (24, 1)
    """
    return max(1, math.floor(share * ceiling))


def most_cameras(plan: Plan, ceiling: float | None) -> int:
    """Cameras that are played, whether the server is given them or not."""
    if plan.cameras is not None:
        return 2 * plan.cameras
    return UNKNOWN_MOST if ceiling is None else math.ceil(MOST_SHARE * ceiling) + 2


def _name(number: int) -> str:
    return f"camera-{number + 1}"


def _told(trial: LoadTrial, cores: int) -> str:
    run = trial.run
    latency = f"p99 {run.latency.p99:.2f} s" if run.latency is not None else "no window"
    verdict = "holds" if trial.holds else f"does not hold: {'; '.join(trial.complaints)}"
    busy = f"{run.shares.total:.2f} of {cores} cores"
    return f"{in_words(run.cameras)}, {run.seconds:.0f} s: {latency}, {busy}, {verdict}"
