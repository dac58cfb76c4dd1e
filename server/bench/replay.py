"""Saturated replay: recorded clips through a server as fast as it takes them.

Files are lossless: the server reads on as it has done with the windows before, so what it scores
in a second is what it can. A file that has ended makes room for the next, and windows count as
the server counts them.
"""

from __future__ import annotations

import contextlib
import itertools
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from server.bench.crew import BenchError, usable_cores
from server.rpc.client import Client, ClientError
from server.streams import SourceUrl, StreamConfig, StreamState
from server.tuning import EvidenceMode
from server.views import StreamView

FILES_PER_CORE = 4
"""At a time: while one waits for its scores, others are decoded."""

_POLL_SECONDS = 0.1
_BEGIN_SECONDS = 60.0
"""The first window of every file must have been scored by then."""


@dataclass(frozen=True, slots=True)
class Replay:
    """What a server made of recorded clips.

    Attributes:
        windows: scored in the stretch that was measured.
        seconds: of that stretch, by the clock.
        files: at a time.
    """

    windows: int
    seconds: float
    files: int

    @property
    def windows_per_second(self) -> float:
        return self.windows / self.seconds


def measure_replay(
    address: str, clip: Path, seconds: float, warm_up_seconds: float = 1.0, files: int | None = None
) -> Replay:
    """Let a server score a clip in many streams at once.

    Args:
        address: `host:port` of a server that may read the clip: access.file_roots.
        clip: a video file; the longer, the less it matters that streams begin and end.
        seconds: that are measured.
        warm_up_seconds: that all files play before that.
        files: at a time; None takes four a core.

    Raises:
        BenchError: there is no such server, it refuses the clip, or scores nothing.
    """
    count = FILES_PER_CORE * usable_cores() if files is None else files
    if count < 1:
        raise BenchError(f"files ({count}) must be at least 1")
    try:
        with Client(address) as client, contextlib.closing(_Player(client, clip)) as player:
            player.begin(count)
            player.play_for(warm_up_seconds)
            before, began_seconds = player.windows, time.monotonic()
            player.play_for(seconds)
            return Replay(player.windows - before, time.monotonic() - began_seconds, count)
    except ClientError as error:
        raise BenchError(error.sentence) from None


class _Player:
    """Streams of one clip, each followed by another when it has ended.

    Attributes:
        windows: of all of them, at the last look.
    """

    def __init__(self, client: Client, clip: Path) -> None:
        self.windows = 0
        self._client = client
        self._url = SourceUrl(clip.absolute().as_uri())
        self._prefix = f"bench-{secrets.token_hex(4)}-"
        self._numbers = itertools.count()
        self._windows_of_ended = 0
        self._at_work: set[str] = set()

    def begin(self, files: int) -> None:
        """Play so many at a time; returns once each has had a window."""
        for _ in range(files):
            self._add()
        end_seconds = time.monotonic() + _BEGIN_SECONDS
        while len(self._at_work) < files:
            if time.monotonic() > end_seconds:
                raise BenchError(
                    f"the server scored only {len(self._at_work)} of {files} files "
                    f"within {_BEGIN_SECONDS:g} s; measure fewer files"
                )
            self._look()
            time.sleep(_POLL_SECONDS)

    def play_for(self, seconds: float) -> None:
        """Go on for so long, then look a last time."""
        end_seconds = time.monotonic() + seconds
        while (left_seconds := end_seconds - time.monotonic()) > 0:
            self._look()
            time.sleep(min(_POLL_SECONDS, left_seconds))
        self._look()

    def close(self) -> None:
        """Leave nothing behind, where the server still answers."""
        with contextlib.suppress(ClientError):
            for view in self._mine():
                self._client.delete(view.config.stream_id)

    def _look(self) -> None:
        playing = 0
        for view in self._mine():
            if view.next_sequence:
                self._at_work.add(view.config.stream_id)
            if view.status.state is StreamState.PARKED:
                raise BenchError(view.status.message)
            if view.status.state is StreamState.ENDED:
                self._follow(view)
            else:
                playing += view.next_sequence
        self.windows = self._windows_of_ended + playing

    def _follow(self, view: StreamView) -> None:
        if not view.next_sequence:
            raise BenchError("the clip is too short to fill a window; give a longer one")
        self._windows_of_ended += view.next_sequence
        self._client.delete(view.config.stream_id)
        self._add()

    def _add(self) -> None:
        stream_id = f"{self._prefix}{next(self._numbers)}"
        # Evidence would copy every packet, which is no part of a score.
        config = StreamConfig(stream_id, self._url, evidence_mode=EvidenceMode.NONE)
        self._client.create(config)

    def _mine(self) -> list[StreamView]:
        return [
            view for view in self._client.list() if view.config.stream_id.startswith(self._prefix)
        ]
