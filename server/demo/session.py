"""One run of the demo: the server and the camera, each in a process of its own.

Everything that happens arrives, in order, in one queue: scores and alerts as
any gRPC client gets them, and what the camera says. Leaving the session stops
both processes, whatever state they are in.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from server.alert_records import ChangeKind
from server.alerts import Alert
from server.demo import tether
from server.demo.camera import Turn
from server.rpc.alert_messages import WatchedAlert
from server.rpc.client import Client, ClientError, Watch
from server.scoring import WindowScore
from server.spawned import HOST, free_port, spawned
from server.streams import Mode, SourceUrl, StreamConfig
from server.views import ModelInfo, StreamView

STREAM_ID = "demo"


class DemoError(RuntimeError):
    """The demo cannot go on; the message is a sentence for the user."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The camera has stopped; a sentence where it failed."""

    problem: str | None


Event = WindowScore | Alert | Turn | Ended


@dataclass(frozen=True, slots=True)
class Session:
    """A running demo.

    Attributes:
        model: what the server says it runs.
        events: everything that happens, in order.
    """

    model: ModelInfo
    events: queue.SimpleQueue[Event]
    _client: Client

    def stream(self) -> StreamView:
        """The stream as the server sees it now. Raises: ClientError."""
        return self._client.get(STREAM_ID)


@contextmanager
def running(clip: Path, seconds: float, scratch: Path) -> Iterator[Session]:
    """Server up, stream registered, camera pushing `clip` for `seconds`.

    Args:
        clip: what the camera plays.
        seconds: how long it plays.
        scratch: directory for the store and the logs.

    Raises:
        StartError: the server does not start.
    """
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    url = f"rtsp://{HOST}:{free_port()}/live"
    with ExitStack() as stack:
        store = {"store.url": f"sqlite:///{scratch / 'demo.db'}"}
        server = stack.enter_context(spawned(scratch / "server.log", os.environ, store))
        client = server.client
        model = client.model()
        scores = stack.enter_context(client.watch_scores())
        alerts = stack.enter_context(client.watch_alerts())
        _in_background(_follow, scores, events)
        _in_background(_follow, alerts, events)
        client.create(StreamConfig(STREAM_ID, SourceUrl(url), mode=Mode.LISTEN))
        stack.enter_context(_camera(clip, url, seconds, scratch / "camera.log", events))
        yield Session(model, events, client)


@contextmanager
def _camera(
    clip: Path, url: str, seconds: float, log: Path, events: queue.SimpleQueue[Event]
) -> Iterator[None]:
    arguments = ["--clip", str(clip), "--url", url, "--seconds", str(seconds)]
    camera = tether.spawn("server.demo.camera", arguments, dict(os.environ), log)
    listener = _in_background(_listen, camera, log, events)
    try:
        yield
    finally:
        camera.kill()  # a camera has nothing to put away
        listener.join()
        tether.stop(camera)


def _listen(camera: subprocess.Popen[str], log: Path, events: queue.SimpleQueue[Event]) -> None:
    """What the camera says, then how it ended."""
    assert camera.stdout is not None
    for line in camera.stdout:
        events.put(Turn(**json.loads(line)))
    failed = camera.wait() != 0
    events.put(Ended(f"the camera stopped: {tether.last_words(log)}" if failed else None))


def _follow(
    watch: Watch[WindowScore] | Watch[WatchedAlert], events: queue.SimpleQueue[Event]
) -> None:
    try:
        for _, item in watch:
            if isinstance(item, WindowScore):
                events.put(item)
            elif item.kind in (ChangeKind.OPENED, ChangeKind.CLOSED):
                events.put(item.alert)
    except ClientError as error:
        events.put(Ended(f"the server ended the watch: {error.sentence}"))


def _in_background(work: Callable[..., None], *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=work, args=arguments, daemon=True)
    thread.start()
    return thread
