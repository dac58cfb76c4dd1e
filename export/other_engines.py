"""The engines beside ONNX Runtime's CPU: their features, or what keeps them from running here."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from export.parity import Encode, Parity, parity
from server.bundle import Bundle, BundleError
from server.contract import Image
from server.engine.choice import Engine, EngineChoice, EngineName, load_engine
from server.engine.onnxruntime import Device, EngineError
from server.engine.plans import Batches
from server.engine.tensorrt import TensorRtDetector

_ASKED: tuple[tuple[EngineName, Device], ...] = (
    ("onnxruntime", "cuda"),
    ("tensorrt", "cuda"),
    ("tensorrt_rtx", "cuda"),
)
_BATCHES = Batches(1, 4)

Load = Callable[[Bundle, EngineChoice], Engine]


@dataclass(frozen=True, slots=True)
class EngineParity:
    """One engine beside the reference.

    Attributes:
        engine: its name and device.
        parity: by kind of windows; empty where it cannot run here.
        left_out: why it cannot; None where it ran.
    """

    engine: str
    parity: tuple[Parity, ...]
    left_out: str | None


def loaded(bundle: Bundle, choice: EngineChoice) -> Engine:
    """The engine, which keeps at its largest batch and is told of none that is halved."""
    return load_engine(bundle, choice, threading.Event(), lambda before, after: None)


def compare_engines(
    bundle: Bundle, reference: Encode, windows: dict[str, Image], load: Load = loaded
) -> tuple[EngineParity, ...]:
    """Ask each engine to run the encoder, and compare features where it does.

    Plans are built anew, which takes minutes for a large tower, and not kept.

    Args:
        bundle: verified.
        reference: what features should agree with.
        windows: (n, S, H, W, 3) of each kind.
        load: makes an engine of a bundle.
    """
    found = []
    with tempfile.TemporaryDirectory() as plans:
        for name, device in _ASKED:
            choice = EngineChoice(name, device, None, _BATCHES, True, Path(plans))
            called = f"{name}, {device}"
            try:
                compared = _compared(load(bundle, choice), reference, windows)
            except (EngineError, BundleError) as error:
                found.append(EngineParity(called, (), str(error)))
            else:
                found.append(EngineParity(called, compared, None))
    return tuple(found)


def _compared(engine: Engine, reference: Encode, windows: dict[str, Image]) -> tuple[Parity, ...]:
    try:
        engine.warm_up(_BATCHES.largest)
        return tuple(parity(engine.encode, reference, windows, lambda done: None))
    finally:
        if isinstance(engine, TensorRtDetector):
            engine.close()  # the next needs the room
