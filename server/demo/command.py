"""`gvvad demo`: see the server work within a minute, on one's own machine.

Every check of the input comes first, then everything starts; and whatever
happens then, everything that was started is stopped.
"""

from __future__ import annotations

import json
import queue
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from server.bundle import Bundle, BundleError, load_bundle
from server.contract import WINDOW_FRAMES
from server.demo.record import Record, Summary
from server.demo.scene import MAX_SECONDS, MIN_SECONDS, SceneTruth, render_scene
from server.demo.screen import LiveScreen, PlainScreen, Programme, Screen
from server.demo.session import DemoError, Ended, Session, running
from server.ingest.video import file_windows
from server.interrupts import deafen, stoppable
from server.rpc.client import ClientError
from server.settings import SettingsError, load_settings
from server.spawned import StartError
from server.streams import SourceError

PICTURE = "demo.png"
MIN_CLIP_SECONDS = 4.0
LONGEST_SECONDS = 24 * 3600.0
"""The demo keeps every score that it has seen."""

_TICK_SECONDS = 0.25
_QUIET_SECONDS = 1.5
"""After the camera's end: no news for so long means that all windows are through."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What the camera plays.

    Attributes:
        clip: the file.
        programme: its title and how long it plays.
        truth: when the event of the rendered scene is; None for any other clip.
    """

    clip: Path
    programme: Programme
    truth: SceneTruth | None


class BadInputError(ValueError):
    """The command line asks for what cannot be done; the message is one sentence."""


def run(clip: Path | None, seconds: float, as_json: bool, out: Path) -> int:
    """Run the demo.

    Args:
        clip: any video; None plays the rendered scene.
        seconds: how long the camera plays.
        as_json: print one object as the last line of standard output.
        out: directory for the picture; made where it is missing.

    Returns:
        The exit code: 0, 1 where it failed on the way, 2 for bad input.
    """
    try:
        _check(clip, seconds, out)
        with stoppable(), tempfile.TemporaryDirectory(prefix="gvvad-demo-") as scratch:
            return _play(_stage(clip, seconds, Path(scratch)), as_json, out, Path(scratch))
    except BadInputError as error:
        print(f"gvvad: {error}", file=sys.stderr)
        return 2
    except (DemoError, StartError, ClientError) as error:
        print(f"gvvad: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped before the camera was on", file=sys.stderr)
        return 130


def _check(clip: Path | None, seconds: float, out: Path) -> None:
    """Raise BadInputError for whatever is wrong, before anything starts."""
    least_seconds = MIN_SECONDS if clip is None else MIN_CLIP_SECONDS
    if not least_seconds <= seconds <= LONGEST_SECONDS:
        raise BadInputError(
            f"--seconds ({seconds:g}) must be {least_seconds:g} to {LONGEST_SECONDS:g}"
        )
    if find_spec("matplotlib") is None:
        raise BadInputError('the picture needs matplotlib: pip install "gvvad[demo]"')
    try:
        bundle = load_bundle(load_settings(None).bundle)
        if clip is not None:
            _check_clip(clip, bundle)
    except (BundleError, SettingsError, SourceError) as error:
        raise BadInputError(str(error)) from None
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInputError(
            f"--out {out} cannot be made ({error.strerror}); give another directory"
        ) from None


def _check_clip(clip: Path, bundle: Bundle) -> None:
    window = bundle.manifest.window
    if next(file_windows(clip, window, bundle.manifest.preprocess), None) is None:
        needed = f"{WINDOW_FRAMES} frames"
        if window.fps is not None:
            needed = f"{WINDOW_FRAMES / window.fps:.1f} s, {needed} at {window.fps:g} a second"
        raise BadInputError(f"{clip} is shorter than one window ({needed}); give a longer clip")


def _stage(clip: Path | None, seconds: float, scratch: Path) -> Stage:
    if clip is not None:
        return Stage(clip, Programme(clip.name, seconds), None)
    scene = scratch / "scene.mp4"
    console = Console(stderr=True)
    if not console.is_terminal:
        print("rendering the scene, some seconds ...", file=sys.stderr)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("rendering the scene", total=1.0)
        truth = render_scene(
            scene,
            min(seconds, MAX_SECONDS),
            progress=lambda part: progress.update(task, completed=part),
        )
    title = (
        "rendered scene: people walk, then a fight from "
        f"{truth.event_start_seconds:.1f} to {truth.event_end_seconds:.1f} s"
    )
    return Stage(scene, Programme(title, seconds), truth)


def _play(stage: Stage, as_json: bool, out: Path, scratch: Path) -> int:
    record = Record()
    problem = None
    print("starting the server and the camera ...", file=sys.stderr)
    with running(stage.clip, stage.programme.seconds, scratch) as session:
        model = session.model
        screen = _screen(stage, session, as_json)
        try:
            problem = _watch(session, record, screen)
        except KeyboardInterrupt:
            deafen()
        finally:
            screen.close()
    picture = _draw(stage, record, model.threshold, out) if record.scored else None
    summary = record.summary(model, picture)
    print("\n".join(_lines(summary, record)), file=sys.stderr if as_json else sys.stdout)
    if as_json:
        print(json.dumps(asdict(summary)))
    if problem is not None:
        raise DemoError(problem)
    return 0


def _screen(stage: Stage, session: Session, as_json: bool) -> Screen:
    if as_json or not sys.stdout.isatty():
        return PlainScreen(sys.stderr)
    return LiveScreen(Console(), stage.programme, session.model)


def _watch(session: Session, record: Record, screen: Screen) -> str | None:
    """Follow the events until the camera has ended and all is quiet.

    Returns:
        What went wrong, in a sentence; None for a clean end.
    """
    ended: Ended | None = None
    last_news = time.monotonic()
    while ended is None or time.monotonic() - last_news < _QUIET_SECONDS:
        try:
            event = session.events.get(timeout=_TICK_SECONDS)
        except queue.Empty:
            _tick(session, record, screen, camera_off=ended is not None)
            continue
        last_news = time.monotonic()
        if isinstance(event, Ended):
            ended = event
            if event.problem is not None:
                return event.problem
        else:
            record.add(event)
            screen.happened(event, record)
    return None if record.windows else "the camera played, but no window was scored"


def _tick(session: Session, record: Record, screen: Screen, *, camera_off: bool) -> None:
    status = session.stream().status
    record.frames = max(record.frames, status.frames_decoded)
    screen.tick(record, "ended" if camera_off else status.state.value)


def _draw(stage: Stage, record: Record, threshold: float, out: Path) -> str:
    # Drawing alone needs the `demo` extra and takes a second to import.
    from server.demo.picture import Plot, draw

    path = out / PICTURE
    draw(path, record, Plot(stage.clip, stage.programme.title, threshold, stage.truth))
    return str(path)


def _lines(summary: Summary, record: Record) -> Iterator[str]:
    """The summary for people."""
    yield (
        f"{summary.windows} windows scored, {summary.dropped} dropped, "
        f"{summary.frames} frames in {summary.seconds:.1f} s"
    )
    if summary.latency_seconds is not None:
        latency = summary.latency_seconds
        yield (
            f"latency  p50 {latency.p50 * 1000:.0f} ms, p95 {latency.p95 * 1000:.0f} ms, "
            f"p99 {latency.p99 * 1000:.0f} ms"
        )
    if summary.score is not None:
        score = summary.score
        yield f"score    {score.min:.2f} to {score.max:.2f}, mean {score.mean:.2f}"
    for alert in record.alerts:
        start = record.since_start_seconds(alert.start_seconds)
        end = record.since_start_seconds(alert.end_seconds)
        yield f"ALERT    {start:.1f} s to {end:.1f} s, peak score {alert.peak_score:.2f}"
    if not record.alerts:
        yield "no alert"
    yield f"bundle   {summary.bundle[:12]} ({summary.encoder}, {summary.engine})"
    if summary.picture is not None:
        yield f"picture  {summary.picture}"
