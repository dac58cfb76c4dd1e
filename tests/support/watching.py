"""What tests of a running server watch: all its scores, and the state of its streams."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import pairwise

from server.rpc.client import Client, ClientError
from server.scoring import WindowScore
from server.streams import Reason, SourceUrl, StreamConfig, StreamState
from server.views import StreamView

WAIT_SECONDS = 30


class Scores:
    """Watches all scores of a server in the background."""

    def __init__(self, client: Client) -> None:
        self._watch = client.watch_scores()
        self._changed = threading.Condition()
        self._scores: list[WindowScore] = []
        self.ended_by = ""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            for missed, score in self._watch:
                assert missed == 0
                with self._changed:
                    self._scores.append(score)
                    self._changed.notify_all()
        except ClientError as error:
            self.ended_by = error.code

    def of(self, stream_id: str) -> list[WindowScore]:
        """All scores of a stream so far."""
        with self._changed:
            return [score for score in self._scores if score.stream_id == stream_id]

    def wait(self, stream_id: str, count: int) -> list[WindowScore]:
        """All scores of a stream once there are so many."""
        with self._changed:
            assert self._changed.wait_for(
                lambda: sum(s.stream_id == stream_id for s in self._scores) >= count, WAIT_SECONDS
            ), f"{stream_id} has {len(self.of(stream_id))} scores, {count} were expected"
        return self.of(stream_id)

    def close(self) -> None:
        """Stop watching."""
        self._watch.cancel()
        self._thread.join(10)


def wait_for(
    client: Client,
    stream_id: str,
    wanted: Callable[[StreamView], bool],
    seconds: float = WAIT_SECONDS,
) -> StreamView:
    """The stream once it is as wanted."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        view = client.get(stream_id)
        if wanted(view):
            return view
        time.sleep(0.05)
    raise AssertionError(f"{stream_id} stayed {view.status}")


def is_in(state: StreamState, reason: Reason | None = None) -> Callable[[StreamView], bool]:
    """For `wait_for`: a state, and its reason where one is given."""
    return lambda view: view.status.state is state and reason in (None, view.status.reason)


def interrupted(*reasons: Reason) -> Callable[[StreamView], bool]:
    """For `wait_for`: failed and not back yet, for one of these reasons where any is given.

    The wait between two tries may be too short to be seen, so the next try counts as well.
    """
    trying = (StreamState.BACKING_OFF, StreamState.CONNECTING)
    wanted = reasons or tuple(Reason)
    return lambda view: view.status.state in trying and view.status.reason in wanted


def add(client: Client, stream_id: str, url: str, **options: object) -> None:
    """Create a stream."""
    client.create(StreamConfig(stream_id, SourceUrl(url), **options))


def assert_unbroken(scores: list[WindowScore]) -> None:
    """Sequence rises by one; numbers restart only at gaps; all was scored."""
    assert [s.sequence for s in scores] == list(range(len(scores)))
    for earlier, later in pairwise(scores):
        assert later.span.number in (0, earlier.span.number + 1)
    assert [s.drop_reason for s in scores if s.drop_reason] == []
