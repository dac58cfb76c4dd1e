"""A decode worker: the process in which streams are opened and decoded.

Started by the pool with one end of a socket pair as its only argument. It ends
when told to, and also when its parent is gone, whatever its threads hang in.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
import threading
import time
from collections import deque
from pathlib import Path

import av

from server.garbage import set_aside
from server.ingest.channel import Channel
from server.ingest.filing import Filing
from server.ingest.messages import (
    Acknowledge,
    Command,
    DirectEvidence,
    Envelope,
    FeedStream,
    Heartbeat,
    Report,
    Shutdown,
    StartStream,
    StopStream,
    TuneStream,
    WorkerSetup,
)
from server.ingest.orders import EvidenceReport
from server.ingest.pictures import Photographer
from server.ingest.recorder import EvidenceRoom
from server.ingest.runner import StreamRunner
from server.ingest.settings import HEARTBEAT_SECONDS
from server.ingest.turns import Turns
from server.logs import set_up

_GOODBYE_SECONDS = 0.7
_LONGEST_TURN_SECONDS = 10.0
"""No picture takes so long to decode: the decoder hangs, and other streams wait for it."""

_FILING_SECONDS = 0.8
"""For clips that a shutdown ends; the pool gives a worker two seconds in all."""

_OOM_SCORE_RAISE = 500
_OOM_SCORE_MAX = 1000


class Worker:
    """Runs streams by the parent's commands.

    Args:
        channel: to the parent.
        setup: what is common to all streams.
    """

    def __init__(self, channel: Channel, setup: WorkerSetup) -> None:
        self._channel = channel
        self._setup = setup
        self._lock = threading.Lock()
        self._runners: dict[int, StreamRunner] = {}
        self._stopping: list[StreamRunner] = []
        self._wake = threading.Event()
        self._sending = threading.Lock()
        self._evidence: deque[EvidenceReport] = deque()
        self._turns = Turns(setup.settings.decoding_at_once)
        self._room = EvidenceRoom(
            setup.settings.evidence, Photographer(setup.preprocess), Filing(), self._tell_evidence
        )

    def serve(self) -> None:
        """Follow commands until the parent says so or is gone."""
        self._room.filing.start()
        threading.Thread(target=self._send_reports, name="sender", daemon=True).start()
        while True:
            try:
                command: Command = self._channel.receive()
            except (EOFError, OSError):
                break
            if isinstance(command, Shutdown):
                break
            self._follow(command)
        self._say_goodbye()

    def _follow(self, command: Command) -> None:
        match command:
            case StartStream():
                self._start(command)
            case StopStream():
                self._stop(command.generation)
            case Acknowledge() | FeedStream() | TuneStream() | DirectEvidence():
                runner = self._runners.get(command.generation)
                if runner is not None:
                    _hand_over(command, runner)

    def _start(self, command: StartStream) -> None:
        if command.generation in self._runners:
            return
        runner = StreamRunner(command, self._setup, self._room, self._turns, self._wake.set)
        with self._lock:
            self._runners[command.generation] = runner
        runner.start()

    def _stop(self, generation: int) -> None:
        with self._lock:
            runner = self._runners.pop(generation, None)
            if runner is None:
                return
            self._stopping = [one for one in self._stopping if not one.finished] + [runner]
        runner.stop()

    def _say_goodbye(self) -> None:
        """Let the sources close their sessions: some cameras have few to give."""
        with self._lock:
            runners = [*self._runners.values(), *self._stopping]
        for runner in runners:
            runner.stop()
        end_seconds = time.monotonic() + _GOODBYE_SECONDS
        for runner in runners:
            runner.join(max(0.0, end_seconds - time.monotonic()))
        self._room.filing.wait(_FILING_SECONDS)
        with contextlib.suppress(OSError):
            self._send_evidence()

    def _send_reports(self) -> None:
        beat_at_seconds = 0.0
        try:
            while True:
                now_seconds = time.monotonic()
                if now_seconds >= beat_at_seconds:
                    beat_at_seconds = now_seconds + HEARTBEAT_SECONDS
                    self._beat()
                if not self._send_round():
                    self._wake.wait(max(0.0, beat_at_seconds - time.monotonic()))
                    self._wake.clear()
        except OSError:
            return  # the parent is gone; the command loop ends the process

    def _beat(self) -> None:
        """Say that all is well, unless a thread is stuck: the parent then ends this process."""
        with self._lock:
            runners = [*self._runners.values(), *self._stopping]
        failed = self._room.filing.failed or self._turns.held_seconds > _LONGEST_TURN_SECONDS
        if not failed and not any(runner.stuck for runner in runners):
            self._send(Heartbeat())
        for generation, runner in self._current():
            stats = runner.take_stats()
            if stats is not None:
                self._send(Envelope(generation, stats))

    def _send_round(self) -> bool:
        """Send at most one event of each stream; whether there was any."""
        sent = self._send_evidence()
        for generation, runner in self._current():
            event = runner.outbox.pop()
            if event is not None:
                self._send(Envelope(generation, event))
                sent = True
        return sent

    def _current(self) -> list[tuple[int, StreamRunner]]:
        with self._lock:
            return list(self._runners.items())

    def _tell_evidence(self, report: EvidenceReport) -> None:
        self._evidence.append(report)
        self._wake.set()

    def _send_evidence(self) -> bool:
        sent = False
        while self._evidence:
            with contextlib.suppress(IndexError):  # the other thread was faster
                self._send(self._evidence.popleft())
                sent = True
        return sent

    def _send(self, report: Report) -> None:
        with self._sending:  # at the end the main thread sends too
            self._channel.send(report)


def _hand_over(
    command: Acknowledge | FeedStream | TuneStream | DirectEvidence, runner: StreamRunner
) -> None:
    match command:
        case Acknowledge():
            runner.outbox.acknowledge()
        case FeedStream():
            runner.feed(command.frame)
        case TuneStream():
            runner.tune(command.config)
        case DirectEvidence():
            runner.recorder.follow(command.order)


def main() -> None:
    """Entry of the process: `python -m server.ingest.worker FD`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to end
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # supervisors signal whole process groups
    faulthandler.enable()
    _go_first_when_memory_runs_out()
    av.logging.set_level(None)  # FFmpeg prints URLs with their credentials
    channel = Channel(int(sys.argv[1]))
    try:
        setup: WorkerSetup = channel.receive()
    except (EOFError, OSError):
        os._exit(0)
    set_up("warning", setup.settings.log_format)
    worker = Worker(channel, setup)
    set_aside()
    worker.serve()
    os._exit(0)  # a thread that hangs in FFmpeg must not keep the process


def _go_first_when_memory_runs_out() -> None:
    """Let the kernel end a worker, which is replaced, rather than the server."""
    path = Path("/proc/self/oom_score_adj")
    with contextlib.suppress(OSError):  # not every system has it
        path.write_text(str(min(_OOM_SCORE_MAX, int(path.read_text()) + _OOM_SCORE_RAISE)))


if __name__ == "__main__":
    main()
