"""Commands that start processes of their own: a stop that unwinds them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM stops the command as Ctrl-C does; the handlers are put back afterwards."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def deafen() -> None:
    """Ignore both from now on: what is left takes a moment and must not be cut short."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
