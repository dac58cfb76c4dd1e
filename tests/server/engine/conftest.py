"""A tiny bundle, and TensorRT on a made-up GPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from server.bundle import Bundle
from server.engine.cuda import Cuda
from server.engine.plans import Batches
from server.engine.tensorrt import TensorRtDetector, TensorRtOptions
from tests.support.fake_gpu import FakeGpu, FakeTensorRt
from tests.support.tiny_bundle import make_tiny_bundle

BATCHES = Batches(preferred=4, largest=8)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_tiny_bundle(tmp_path_factory.mktemp("engine") / "bundle")


@pytest.fixture(scope="session")
def plans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared, so that the one plan is built once."""
    return tmp_path_factory.mktemp("plans")


@dataclass
class Machine:
    """Loads the bundle on a made-up GPU, and counts what it is told."""

    bundle: Bundle
    plans: Path
    gpu: FakeGpu = field(default_factory=FakeGpu)
    resizes: list[tuple[int, int]] = field(default_factory=list)
    now_seconds: float = 0.0

    @property
    def shrinks(self) -> list[tuple[int, int]]:
        """Those that made it smaller."""
        return [(before, after) for before, after in self.resizes if after < before]

    def load(self, batches: Batches = BATCHES, *, may_build: bool = True) -> TensorRtDetector:
        options = TensorRtOptions(
            batches,
            may_build,
            self.plans,
            on_resize=lambda before, after: self.resizes.append((before, after)),
            clock=lambda: self.now_seconds,
        )
        trt = FakeTensorRt(self.gpu, self.bundle.encoder_path, batches.largest)
        return TensorRtDetector(self.bundle, options, trt, Cuda(self.gpu))


@pytest.fixture
def machine(bundle: Bundle, plans: Path) -> Machine:
    return Machine(bundle, plans)


@pytest.fixture
def detector(machine: Machine) -> Iterator[TensorRtDetector]:
    loaded = machine.load()
    loaded.warm_up(BATCHES.largest)
    yield loaded
    loaded.close()
