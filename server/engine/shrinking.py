"""What an engine does when its device is full: go on with half the batch, never die."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from server.engine.cuda import OutOfDeviceMemoryError

logger = logging.getLogger(__name__)

T = TypeVar("T")


def nobody() -> None:
    """Who is told of halved batches where nobody counts them."""


class Shrinking:
    """The largest batch that a device is known to have no lack of room for.

    Args:
        largest: windows of one run, to begin with.
        on_shrink: told each time that it was halved.

    Attributes:
        largest: windows of one run by now.
    """

    def __init__(self, largest: int, on_shrink: Callable[[], None]) -> None:
        self.largest = largest
        self._on_shrink = on_shrink

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
                if self.largest == 1:
                    raise
                self.largest //= 2
                self._on_shrink()
                logger.warning("%s; going on with batches of %d", error, self.largest)
