"""A member of a crew: the process that does the work which is measured.

Started with one end of a socket pair as its only argument, it prepares its work, says so, waits
for the word, and answers with what it did. It ends when whoever measures is gone.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import av

from server.bench.crew import BenchError, Failure, Ready, Share, Work
from server.bundle import BundleError
from server.engine.onnxruntime import EngineError
from server.streams import SourceError


def serve(connection: Connection) -> None:
    """Prepare, wait for the word, work, answer."""
    work: Work = connection.recv()
    try:
        step = work.prepare()
        connection.send(Ready())
        seconds: float = connection.recv()
        # What is best here is measured, and nothing of this leaves cycles behind.
        gc.disable()
        connection.send(_worked(step, seconds))
    except (BenchError, BundleError, EngineError, SourceError) as error:
        connection.send(Failure(str(error)))
    except MemoryError:
        connection.send(Failure("there is too little memory to measure this; free some"))


def _worked(step: Callable[[], int], seconds: float) -> Share:
    units = 0
    began_seconds, began_cpu_seconds = time.monotonic(), time.process_time()
    end_seconds = began_seconds + seconds
    while time.monotonic() < end_seconds:
        units += step()
    return Share(units, time.process_time() - began_cpu_seconds, time.monotonic() - began_seconds)


def main() -> None:
    """Entry of the process: `python -m server.bench.member FD`."""
    av.logging.set_level(None)
    try:
        serve(Connection(int(sys.argv[1])))
    except (EOFError, OSError):
        os._exit(0)  # whoever measures is gone


if __name__ == "__main__":
    main()
