"""An encoder's memory on a GPU and beside it: taken once, for the largest batch.

Pictures are written into page-locked memory, which alone can be copied while work
runs, and copied to the device from there; features come back the same way. All of it
is in the order of one stream.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from server.contract import Feature, Image
from server.engine.cuda import Address, Cuda, Stream, host_array
from server.engine.onnxruntime import EngineError

logger = logging.getLogger(__name__)


class Buffers:
    """Memory for a batch's pictures and features, and the stream that fills it.

    Args:
        cuda: the device.
        image_shape: (S, H, W, 3) of one window.
        feature_dim: D.
        largest: windows of one run.

    Attributes:
        stream: that orders the copies; there once opened, as all below.
        images: (largest, S, H, W, 3) uint8, page-locked, zero at first.
        features: (largest, D) float32, page-locked.
        images_at: where the pictures go on the device.
        features_at: where the features come from.
    """

    stream: Stream
    images: Image
    features: Feature
    images_at: Address
    features_at: Address

    def __init__(
        self, cuda: Cuda, image_shape: tuple[int, ...], feature_dim: int, largest: int
    ) -> None:
        self._cuda = cuda
        self._shapes = ((largest, *image_shape), (largest, feature_dim))
        self._window_bytes = math.prod(image_shape)
        self._feature_bytes = feature_dim * np.dtype(np.float32).itemsize
        self._streams: list[Stream] = []
        self._device: list[Address] = []
        self._host: list[Address] = []

    def open(self) -> None:
        """Take it all.

        Raises:
            EngineError: there is no room; what was taken by then waits for `close`.
        """
        self.stream = self._cuda.open_stream()
        self._streams.append(self.stream)
        self.images_at, images = self._pair(self._shapes[0][0] * self._window_bytes)
        self.features_at, features = self._pair(self._shapes[1][0] * self._feature_bytes)
        self.images = host_array(images, self._shapes[0], np.uint8)
        self.features = host_array(features, self._shapes[1], np.float32)
        self.images[:] = 0

    def _pair(self, size_bytes: int) -> tuple[Address, Address]:
        """On the device and on the host."""
        host = self._cuda.allocate_host(size_bytes)
        self._host.append(host)
        return self.allocate(size_bytes), host

    def allocate(self, size_bytes: int) -> Address:
        """More of the device's memory, given back with the rest."""
        address = self._cuda.allocate(size_bytes)
        self._device.append(address)
        return address

    def copy_in(self, count: int) -> None:
        """Start to copy the first pictures to the device."""
        size_bytes = count * self._window_bytes
        self._cuda.copy_to_device(self.images_at, self._host[0], size_bytes, self.stream)

    def copy_out(self, count: int) -> None:
        """Start to copy the first features back."""
        size_bytes = count * self._feature_bytes
        self._cuda.copy_to_host(self._host[1], self.features_at, size_bytes, self.stream)

    def wait(self) -> None:
        """Wait for all that was started.

        Raises:
            EngineError: part of it failed.
        """
        self._cuda.wait(self.stream)

    def settle(self) -> None:
        """Wait whatever state the device is in: what still runs uses the rest."""
        give_back(self._cuda.wait, self._streams)

    def close(self) -> None:
        """Give everything back, whatever state the device is in."""
        give_back(self._cuda.free, self._device)
        give_back(self._cuda.free_host, self._host)
        give_back(self._cuda.close_stream, self._streams)
        self._device, self._host, self._streams = [], [], []


def give_back(way: Callable[[Any], None], taken: Iterable[Any]) -> None:
    """Give things back one by one; a device that failed fails here again, which is no news."""
    for what in taken:
        try:
            way(what)
        except EngineError as error:
            logger.debug("giving back: %s", error)
