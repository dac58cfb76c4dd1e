"""A thread for what must always be done by the same one."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


class OwnThread:
    """Does what it is given, one after the other; its caller waits.

    A daemon: a device that hangs must not hold up the end of the process.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def call(self, work: Callable[[], T]) -> T:
        """The outcome of `work`, its exceptions included."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._loop, name=self._name, daemon=True)
            self._thread.start()
        outcome: Future[T] = Future()
        self._work.put(partial(_settle, outcome, work))
        try:
            return outcome.result()
        finally:
            del outcome, work  # an error holds this frame, which must not hold the error

    def end(self) -> None:
        """Let the thread go; a later call starts another."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._work.put(None)
            thread.join()

    def _loop(self) -> None:
        while (work := self._work.get()) is not None:
            work()
            del work  # not kept until the next one comes


def _settle(outcome: Future[Any], work: Callable[[], Any]) -> None:
    try:
        outcome.set_result(work())
    except BaseException as error:  # whatever it is, it is the caller's, who waits
        outcome.set_exception(error)
        del outcome, work  # as above
