"""Work for a crew whose course is known."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Busy:
    """Uses the processor for so long each step."""

    step_seconds: float = 0.005

    def prepare(self) -> Callable[[], int]:
        def step() -> int:
            end_seconds = time.process_time() + self.step_seconds
            while time.process_time() < end_seconds:
                pass
            return 1

        return step


@dataclass(frozen=True, slots=True)
class Idle:
    """Waits for so long each step, which counts three units."""

    step_seconds: float = 0.02

    def prepare(self) -> Callable[[], int]:
        def step() -> int:
            time.sleep(self.step_seconds)
            return 3

        return step


@dataclass(frozen=True, slots=True)
class Dying:
    """Ends its process as a crash would."""

    code: int

    def prepare(self) -> Callable[[], int]:
        os._exit(self.code)


@dataclass(frozen=True, slots=True)
class Hungry:
    """Finds no memory."""

    def prepare(self) -> Callable[[], int]:
        raise MemoryError
