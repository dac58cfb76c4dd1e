"""The streams of a server by their ids, and whether there is room for another."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from server.record import StreamRecord
from server.streams import PUSHED, Mode, StreamConfig
from server.views import CapacityError, NotPushableError, StreamExistsError, UnknownStreamError


class Registry:
    """Records of streams.

    Args:
        max_streams: at a time.

    Attributes:
        lock: guards the records, what is in them, and what is published of them in order.
    """

    def __init__(self, max_streams: int) -> None:
        self.lock = threading.Lock()
        self._max_streams = max_streams
        self._streams: dict[str, StreamRecord] = {}

    def find(self, stream_id: str) -> StreamRecord | None:
        """The stream of that id, if there is one; takes no lock."""
        return self._streams.get(stream_id)

    def known(self, stream_id: str) -> StreamRecord:
        """The stream of that id; takes no lock.

        Raises:
            UnknownStreamError: there is none.
        """
        stream = self._streams.get(stream_id)
        if stream is None:
            raise UnknownStreamError(f"there is no stream {stream_id!r}; list them first")
        return stream

    def pushable(self, stream_id: str) -> StreamRecord:
        """The stream of that id, where a client may push to it now; takes no lock.

        Raises:
            UnknownStreamError: there is none.
            NotPushableError: it is no push:// stream, or another call pushes to it.
        """
        stream = self._streams.get(stream_id)
        if stream is None:
            remedy = f"create it with the URL {PUSHED}, or make a temporary one"
            raise UnknownStreamError(f"there is no stream {stream_id!r}; {remedy}")
        if not stream.config.is_pushed:
            raise NotPushableError(
                f"stream {stream_id!r} is read from {stream.config.url}; push to a stream that was "
                f"created with the URL {PUSHED}"
            )
        if stream.session is not None:
            raise NotPushableError(
                f"another call pushes to stream {stream_id!r}; end that one first"
            )
        return stream

    def all(self) -> Sequence[StreamRecord]:
        """All streams, by id."""
        with self.lock:
            return [self._streams[stream_id] for stream_id in sorted(self._streams)]

    def enter(self, stream: StreamRecord) -> None:
        """Add a stream; the caller holds the lock."""
        self._streams[stream.config.stream_id] = stream

    def remove(self, stream_id: str) -> None:
        """Forget a stream; the caller holds the lock."""
        del self._streams[stream_id]

    def check_free(self, config: StreamConfig) -> None:
        """Refuse a stream that there is no place for.

        Raises:
            StreamExistsError: the id, or the port to listen on, is taken.
            CapacityError: there are as many streams as may be.
        """
        if config.stream_id in self._streams:
            raise StreamExistsError(
                f"stream {config.stream_id!r} exists already; choose another id or update it"
            )
        if len(self._streams) >= self._max_streams:
            raise CapacityError(
                f"this server takes {self._max_streams} streams and has as many; "
                "delete one first or raise max_streams"
            )
        self.check_port(config)

    def check_port(self, config: StreamConfig) -> None:
        """Refuse a stream that listens where another one does.

        Raises:
            StreamExistsError: the port is taken.
        """
        if config.mode is not Mode.LISTEN:
            return
        for other in self.all():
            if other.config.stream_id == config.stream_id or other.config.mode is not Mode.LISTEN:
                continue
            if other.config.url.port == config.url.port:
                raise StreamExistsError(
                    f"port {config.url.port} is listened on by stream "
                    f"{other.config.stream_id!r} already; choose another port"
                )
