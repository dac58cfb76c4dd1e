"""A socket between two of our processes, for messages with pictures in them.

`multiprocessing.Connection` copies an array three times on its way out and once more
on its way in. Pickle's protocol 5 (PEP 574) leaves large buffers out of the message, and
they go from the array's own memory into the socket, and into fresh memory on the other
side: one copy each, which shared memory would need as well (tests/bench/windows_pipe.py).
"""

from __future__ import annotations

import os
import pickle
import struct
from typing import Any

import numpy as np

_HEAD = struct.Struct("=IH")
_SIZE = struct.Struct("=I")
_MAX_BUFFERS = 64
"""More large arrays than any message has; a peer that names more is not ours."""


class Channel:
    """One end of a socket pair; owns its descriptor. One sender and one receiver at a time.

    Args:
        descriptor: of a connected stream socket that blocks.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def send(self, message: object) -> None:
        """Send a message; waits until the socket has taken it all.

        Raises:
            OSError: the peer is gone.
        """
        buffers: list[pickle.PickleBuffer] = []
        body = pickle.dumps(message, 5, buffer_callback=buffers.append)
        raw = [buffer.raw() for buffer in buffers]
        sizes = b"".join(_SIZE.pack(part.nbytes) for part in raw)
        self._write(memoryview(_HEAD.pack(len(body), len(raw)) + sizes + body))
        for part in raw:
            self._write(part)

    def receive(self) -> Any:
        """The next message; waits for it.

        Raises:
            EOFError: the peer is gone.
            OSError: as well.
        """
        length, count = _HEAD.unpack(self._read(_HEAD.size))
        if count > _MAX_BUFFERS:
            raise OSError(f"a message with {count} buffers; expected at most {_MAX_BUFFERS}")
        sizes = [size for (size,) in _SIZE.iter_unpack(self._read(count * _SIZE.size))]
        body = self._read(length)
        return pickle.loads(body, buffers=[self._read(size) for size in sizes])

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._descriptor)

    def _write(self, view: memoryview) -> None:
        while view.nbytes:
            view = view[os.write(self._descriptor, view) :]

    def _read(self, size: int) -> memoryview:
        # Not a bytearray, which would be filled with zeros first.
        view = whole = np.empty(size, np.uint8).data
        while view.nbytes:
            got = os.readv(self._descriptor, [view])
            if not got:
                raise EOFError
            view = view[got:]
        return whole
