"""Made-up figures of a benchmark, for tests of what is made of them."""

from __future__ import annotations

from dataclasses import replace

from server.bench.ceilings import DecodeCost, EncodeCost
from server.bench.findings import Ceiling, Findings, LoadTrial, Memory, Round, Soak
from server.bench.kinds import camera_kind
from server.bench.ramp import Ramp
from server.bench.replay import Replay
from server.bench.run import Generator, Latency, Run, Shares, complaints
from server.views import ModelInfo

BOUND_SECONDS = 1.0

MODEL = ModelInfo(
    bundle_id="ab" * 32,
    bundle_name="embedded",
    encoder="motion",
    engine="onnxruntime",
    precision="fp32",
    device="cpu",
    threshold=0.5,
    window_seconds=1.6,
    fps=10.0,
    sampled_frames=16,
    height=112,
    width=112,
    feature_dim=64,
)

ENCODE = EncodeCost(0.01, batch=4, threads=1, windows=800, seconds=4.0)
DECODE = DecodeCost(0.002, frames=4000, seconds=4.0)


def a_run(cameras: int, p99_seconds: float = 0.3, **changes: object) -> Run:
    """A run that the server held, but for what is changed."""
    run = Run(
        cameras=cameras,
        seconds=20.0,
        windows=round(12.5 * cameras),
        dropped=(),
        latency=Latency(p99_seconds / 4, p99_seconds / 2, p99_seconds, p99_seconds * 1.1),
        worst_camera_p99_seconds=p99_seconds * 1.1,
        behind_seconds=0.01,
        frames_decoded=500 * cameras,
        silent=0,
        refused=0,
        refusal="",
        shares=Shares(0.04 * cameras, 0.005 * cameras, 0.004 * cameras, 0.01 * cameras, 0.05),
        others_cores=0.05,
        pss_bytes=200_000_000 + 15_000_000 * cameras,
        generator=Generator(0.1, 0.02, 500 * cameras, 0, 0.002, 0),
    )
    return replace(run, **changes)  # type: ignore[arg-type]


def a_trial(run: Run) -> LoadTrial:
    """The run, judged."""
    return LoadTrial(run, complaints(run, BOUND_SECONDS))


def a_round(cameras: int, ceiling: float = 30.0, p99_seconds: float = 0.3) -> Round:
    """A round without the naive program."""
    return Round(
        Ceiling((DECODE,), ENCODE, ceiling, 40.0),
        a_trial(a_run(cameras, p99_seconds)),
        Replay(windows=320, seconds=10.0, files=8),
        None,
    )


def some_findings(cameras: int = 24) -> Findings:
    """A whole benchmark that found so many, and one more not to hold."""
    failed = a_trial(a_run(cameras + 1, 1.4, dropped=(("overload", 3),)))
    trials = [a_trial(a_run(cameras)), failed]
    found = Findings((camera_kind("768x432@25"),), BOUND_SECONDS, cores=2, model=MODEL)
    found.trials, found.cameras = trials, cameras
    found.ramp = Ramp(cameras, True, tuple(trials))
    found.rounds = [a_round(cameras, 30.0, 0.2), a_round(cameras, 32.0, 0.3)]
    found.rounds.append(a_round(cameras, 31.0, 0.9))
    found.naive_lacking = "as asked for"
    found.twice = a_run(2 * cameras, 0.4, refused=cameras, refusal="no room")
    found.memory = Memory(((1, 215_000_000), (9, 335_000_000), (24, 560_000_000)))
    found.soak = Soak(tuple((60.0 * n, a_run(cameras)) for n in range(1, 6)))
    return found
