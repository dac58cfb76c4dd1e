"""Has a stream's windows thinned while the server has no room for all of them."""

from __future__ import annotations

import logging
import threading

from server.ingest.pool import IngestPool
from server.logs import about
from server.record import StreamRecord
from server.registry import Registry
from server.sampling import sampling_text
from server.telemetry import Telemetry

logger = logging.getLogger(__name__)


class Thinning:
    """Switches streams between their two samplings; none is reconnected.

    Args:
        registry: the streams.
        pool: whose workers apply the sampling.
        telemetry: where it is shown.
    """

    def __init__(self, registry: Registry, pool: IngestPool, telemetry: Telemetry) -> None:
        self._registry = registry
        self._pool = pool
        self._telemetry = telemetry
        self._switching = threading.Lock()  # the last one to switch is the last to tell

    def set(self, stream_id: str, thinned: bool) -> None:
        """Have a stream thinned, or no longer; again changes nothing.

        Raises:
            UnknownStreamError: there is none of that id.
            ValueError: the stream may not be thinned.
        """
        with self._switching:
            stream = self._registry.known(stream_id)
            if thinned and not stream.can_be_thinned:
                raise ValueError(
                    f"stream {stream_id!r} cannot be thinned: it is lossless, or says not how "
                    "(sampling_when_full)"
                )
            if stream.thinned == thinned:
                return
            stream.thinned = thinned
            # Not under the registry's lock: the pool may wait for who waits for that.
            self._pool.tune(stream.in_effect)
            self.tell(stream)
            _log(stream)

    def follow(self, stream: StreamRecord) -> None:
        """Tell a stream's worker what it goes by now."""
        with self._switching:
            self._pool.tune(stream.in_effect)

    def tell(self, stream: StreamRecord) -> None:
        """Show whether a stream is thinned."""
        with self._registry.lock:
            if stream.lane.open:
                self._telemetry.stream_thinned(stream.config.stream_id, stream.view.thinned)


def _log(stream: StreamRecord) -> None:
    config = stream.config
    when_full = config.sampling_when_full
    if stream.thinned and when_full is not None:
        rule = sampling_text(when_full)
        logger.warning("thinned to %s: the server is full", rule, extra=about(config.stream_id))
    else:
        rule = sampling_text(config.sampling)
        logger.info("thinned no longer, sampled by %s", rule, extra=about(config.stream_id))
