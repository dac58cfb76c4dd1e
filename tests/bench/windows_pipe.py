"""What it costs to bring a window from a decode process to the engine's.

    python -m tests.bench.windows_pipe [--rounds 7] [--windows 400]

One window of the embedded default (16 pictures of 112x112, 602 KB) goes through
`multiprocessing.Connection`, through our `Channel`, and through a ring in shared memory
whose slots are handed back; in turns, CPU time of both ends.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np

from server.contract import Image
from server.ingest.channel import Channel

SHAPE = (16, 112, 112, 3)
SLOTS = 8

Send = Callable[[int, Image], None]
Take = Callable[[], Any]


def make(kind: str, descriptor: int, ring: str) -> tuple[Send, Take]:
    """How one end sends a window and takes one."""
    if kind == "connection":
        connection = Connection(descriptor)
        return lambda number, images: connection.send((number, images)), connection.recv
    channel = Channel(descriptor)
    if kind == "channel":
        return lambda number, images: channel.send((number, images)), channel.receive
    memory = SharedMemory(ring)

    def slot(number: int) -> Image:
        place = number % SLOTS * int(np.prod(SHAPE))
        return np.ndarray(SHAPE, np.uint8, memory.buf, place)

    def send(number: int, images: Image) -> None:
        slot(number)[:] = images
        channel.send(number)
        channel.receive()  # the slot may be written again

    def take() -> tuple[int, Image]:
        number = channel.receive()
        images = slot(number).copy()
        channel.send(None)
        return number, images

    return send, take


def feed(kind: str, windows: int, descriptor: int, ring: str) -> None:
    """The decode process: gathers the pictures of each window and sends it."""
    pictures = list(np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8))
    send, take = make(kind, descriptor, ring)
    began = time.process_time()
    for number in range(windows):
        send(number, np.stack(pictures))
    print((time.process_time() - began) / windows)
    sys.stdout.flush()
    take()


def measure(kind: str, windows: int) -> tuple[float, float]:
    """CPU seconds a window of the sending and of the taking process."""
    ours, theirs = socket.socketpair()
    ring = SharedMemory(create=True, size=SLOTS * int(np.prod(SHAPE)))
    command = [sys.executable, "-m", __spec__.name, "--feed", kind, "--windows", str(windows)]
    with theirs:
        passed = [str(theirs.fileno()), ring.name]
        feeder = subprocess.Popen(
            [*command, *passed], pass_fds=[theirs.fileno()], stdout=subprocess.PIPE, text=True
        )
    _, take = make(kind, ours.detach(), ring.name)
    began = time.process_time()
    for number in range(windows):
        got, images = take()
        assert got == number
        assert images.shape == SHAPE
    taking = (time.process_time() - began) / windows
    assert feeder.stdout is not None
    sending = float(feeder.stdout.readline())
    feeder.kill()
    feeder.wait()
    ring.close()
    with contextlib.suppress(
        FileNotFoundError
    ):  # before Python 3.13 the feeder's end takes it along
        ring.unlink()
    return sending, taking


def main() -> int:
    """Measure in turns and print medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--windows", type=int, default=400)
    parser.add_argument("--feed", help=argparse.SUPPRESS)
    parser.add_argument("passed", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.feed:
        feed(options.feed, options.windows, int(options.passed[0]), options.passed[1])
        return 0
    kinds = ("connection", "channel", "ring")
    found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
    for _ in range(options.rounds):
        for kind in kinds:
            found[kind].append(measure(kind, options.windows))
    for kind, both in found.items():
        sending, taking = (statistics.median(side) * 1e6 for side in zip(*both, strict=True))
        print(
            f"{kind}: {sending + taking:.0f} us a window ({sending:.0f} to send with gathering "
            f"it, {taking:.0f} to take), {os.cpu_count()} cores"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
