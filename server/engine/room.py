"""For how large a batch a device has room; when it is full an engine goes on with less."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from server.engine.batch_limit import BatchLimit
from server.engine.cuda import OutOfDeviceMemoryError

logger = logging.getLogger(__name__)

T = TypeVar("T")

OnResize = Callable[[int, int], None]
"""Told what the largest batch was and what it is now."""


def nobody(before: int, after: int) -> None:
    """Who is told of other batches where nobody counts them."""


class Room:
    """The largest batch that a device is known to have no lack of room for.

    Args:
        most: windows of one run, to begin with and at most.
        on_resize: see `OnResize`; the device was full, or is tried with more again.
        clock: monotonic, in seconds.
    """

    def __init__(
        self, most: int, on_resize: OnResize, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit = BatchLimit(most, clock)
        self._on_resize = on_resize

    @property
    def largest(self) -> int:
        """Windows of one run by now."""
        return self._limit.largest

    def fit(self, work: Callable[[], T], give_back: Callable[[], None]) -> T:
        """Try with ever smaller batches, down to one window.

        Args:
            work: runs batches of at most `largest`.
            give_back: frees what `work` has taken; called each time that there was no room.

        Raises:
            OutOfDeviceMemoryError: there is none for a single window.
        """
        while True:
            try:
                return work()
            except OutOfDeviceMemoryError as error:
                give_back()
                before = self.largest
                if before == 1:
                    raise
                self._limit.halve()
                self._on_resize(before, self.largest)
                logger.warning("%s; going on with batches of %d", error, self.largest)

    def rise(
        self, wanted: int, prepare: Callable[[], object], give_back: Callable[[], None]
    ) -> None:
        """Try a larger batch where more windows wait than fit and it was full long ago.

        Args:
            wanted: windows of the call.
            prepare: takes memory for batches of `largest`.
            give_back: frees what `prepare` has taken.

        Raises:
            OutOfDeviceMemoryError: there is no room for a single window any more.
        """
        before = self.largest
        if wanted <= before or not self._limit.may_rise():
            return
        # The smaller memory goes first: there may be no room for both.
        give_back()
        self._limit.double()
        self._on_resize(before, self.largest)
        self.fit(prepare, give_back)
        if self.largest > before:
            logger.info("there is room again for batches of %d", self.largest)
