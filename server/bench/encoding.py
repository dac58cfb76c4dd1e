"""Encode windows and step the head over and over, in the server's own engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from server.bundle import load_bundle
from server.engine.choice import choice_of, load_engine
from server.engine.flags import EngineFlags, EngineName


@dataclass(frozen=True, slots=True)
class EncodeWork:
    """Batches of windows to scores; a unit is one window.

    Attributes:
        bundle: whose encoder and head.
        batch: windows at a time.
        threads: of the encoder.
        engine: that runs them, on its own device.
    """

    bundle: Path
    batch: int
    threads: int
    engine: EngineName = "onnxruntime"

    def prepare(self) -> Callable[[], int]:
        """Load the engine and run it once.

        Raises:
            BundleError: the bundle cannot be used.
            EngineError: the engine cannot be had, or failed.
        """
        bundle = load_bundle(self.bundle)
        flags = EngineFlags(self.engine, None, self.threads)
        engine = load_engine(bundle, choice_of(flags, self.batch))
        size, sampled = bundle.manifest.preprocess, bundle.manifest.window.sampled_frames
        shape = (self.batch, sampled, size.height, size.width, 3)
        # An encoder's time does not depend on what it sees.
        images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        state = {k: np.repeat(v, self.batch, axis=0) for k, v in engine.zero_state().items()}

        def step() -> int:
            engine.step(engine.encode(images), state)
            return self.batch

        step()
        return step
