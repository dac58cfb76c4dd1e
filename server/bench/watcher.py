"""Everything that a server publishes of its windows, collected in a thread."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

from server.bench.run import Seen
from server.rpc.client import Client, ClientError


class Watcher:
    """Watches all scores of a server, as an operator's program would; a context manager."""

    def __init__(self, client: Client) -> None:
        self._watch = client.watch_scores()
        self._changed = threading.Condition()
        self._seen: list[Seen] = []
        self._missed = 0
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._watch.cancel()
        self._thread.join(5.0)

    def take(self) -> tuple[list[Seen], int]:
        """Windows since the last call, and how many this program was too slow for."""
        with self._changed:
            taken = self._seen, self._missed
            self._seen, self._missed = [], 0
            return taken

    def wait_for_all(self, stream_ids: set[str], timeout_seconds: float) -> set[str]:
        """Wait until each of the streams has given a window since the last `take`.

        Returns:
            Those that did not in time.
        """
        deadline = time.monotonic() + timeout_seconds
        with self._changed:
            while missing := stream_ids - {one.stream_id for one in self._seen}:
                left_seconds = deadline - time.monotonic()
                if left_seconds <= 0 or not self._changed.wait(left_seconds):
                    return missing - {one.stream_id for one in self._seen}
            return set()

    def _follow(self) -> None:
        try:
            for missed, score in self._watch:
                arrival_seconds = time.monotonic() - score.latency_seconds
                reason = score.drop_reason.value if score.drop_reason is not None else None
                seen = Seen(
                    score.stream_id,
                    arrival_seconds,
                    score.latency_seconds,
                    score.span.end_frame,
                    reason,
                )
                with self._changed:
                    self._seen.append(seen)
                    self._missed += missed
                    self._changed.notify_all()
        except ClientError:
            return  # the server is gone; whoever asks it next is told
