"""Every engine that could run a bundle: those that can here, and why the others cannot."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from server.bundle import Bundle, BundleError
from server.engine.choice import Engine, choice_of, load_engine
from server.engine.flags import EngineFlags, telling_of_builds
from server.engine.onnxruntime import EngineError

EVERY_ENGINE = (
    EngineFlags("onnxruntime", "cpu"),
    EngineFlags("onnxruntime", "cuda"),
    EngineFlags("tensorrt"),
    EngineFlags("tensorrt_rtx"),
)


@dataclass(frozen=True, slots=True)
class Lacking:
    """An engine that cannot run a bundle here.

    Attributes:
        engine: its name.
        device: where it would run the encoder.
        reason: a sentence, with what to do.
    """

    engine: str
    device: str
    reason: str

    def __str__(self) -> str:
        return f"{self.engine} on {self.device}: {self.reason}"


@contextlib.contextmanager
def running(bundle: Bundle, flags: EngineFlags, largest: int) -> Iterator[Engine | Lacking]:
    """An engine ready for batches up to `largest`, while it is needed, or why there is none."""
    try:
        with telling_of_builds():
            engine = load_engine(bundle, choice_of(flags, largest))
            engine.warm_up(largest)
    except (EngineError, BundleError) as error:
        device = flags.device or ("cpu" if flags.name == "onnxruntime" else "cuda")
        yield Lacking(flags.name, device, str(error))
        return
    try:
        yield engine
    finally:
        engine.close()


@contextlib.contextmanager
def first_running(bundle: Bundle, engines: Sequence[EngineFlags], largest: int) -> Iterator[Engine]:
    """The first of them that can run the bundle.

    Raises:
        EngineError: none can; it says why of each.
    """
    lacking = []
    for flags in engines:
        with running(bundle, flags, largest) as found:
            if not isinstance(found, Lacking):
                yield found
                return
            lacking.append(found)
    raise nothing_runs(bundle, lacking)


def nothing_runs(bundle: Bundle, lacking: Sequence[Lacking]) -> EngineError:
    """What to say where no engine can run a bundle."""
    reasons = "; ".join(map(str, lacking))
    return EngineError(f"no engine can run {bundle.directory} here: {reasons}")
