"""Whether a pipeline fits into the memory there is, before it is loaded."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from training.clips import TrainingError
from training.generate.backend import DTYPE_BYTES, Backend, Dtype

Device = Literal["cuda", "cpu"]
Offload = Literal["none", "model", "sequential"]

OFFLOADS: tuple[Offload, ...] = ("none", "model", "sequential")
"""From the fastest to the one that takes the least of the GPU's memory."""

_GB = 1e9
_PROGRAM_BYTES = int(1e9)
"""What Python with torch and the packages takes itself."""

_CONTEXT_BYTES = int(2e9)
"""What CUDA with its libraries takes, and what its allocator holds and cannot use again."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Free memory.

    Attributes:
        ram_bytes: of the machine, or of the group of processes that it is limited to.
        gpu_bytes: of the GPU; None where the CPU is asked to compute.
    """

    ram_bytes: int
    gpu_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """A pipeline about to be loaded.

    Attributes:
        backend: its settings.
        own: the settings that `backend.working` is of, before frames and size were changed.
        parameters: of each part.
        dtype: of the computation.
        batch: videos at a time.
        copies: processes on one machine that load it, each with a GPU of its own.
    """

    backend: Backend
    own: Backend
    parameters: Mapping[str, int]
    dtype: Dtype
    batch: int = 1
    copies: int = 1

    def ram_bytes(self, device: Device) -> int:
        """Needed of the machine: all parameters pass through it, and on a CPU the work is there."""
        needed = self._all_parameters_bytes + _PROGRAM_BYTES
        if device == "cpu":
            needed += max(self._denoise_bytes, self._decode_bytes)
        return self.copies * needed

    def gpu_bytes(self, offload: Offload) -> int:
        """Needed of a GPU: what is there at the same time, in the phase that needs most."""
        work = {"vae": self._decode_bytes}
        sizes = {name: self._bytes(count) for name, count in self.parameters.items()}
        if offload == "none":
            needed = sum(sizes.values()) + max(self._denoise_bytes, self._decode_bytes)
        elif offload == "model":
            # A part's own work comes beside it; a text is short, so its encoder's is small.
            needed = max(
                size + (0 if name.startswith("text") else work.get(name, self._denoise_bytes))
                for name, size in (sizes or {"": 0}).items()
            )
        else:
            needed = max(self._denoise_bytes, self._decode_bytes)
        return needed + _CONTEXT_BYTES

    def fits(self, memory: Memory, offload: Offload) -> bool:
        """Whether it can be loaded so; on a CPU there is nothing to offload."""
        if memory.gpu_bytes is None:
            return offload == "none" and self.ram_bytes("cpu") <= memory.ram_bytes
        fits_ram = self.ram_bytes("cuda") <= memory.ram_bytes
        return fits_ram and self.gpu_bytes(offload) <= memory.gpu_bytes

    @property
    def _all_parameters_bytes(self) -> int:
        return self._bytes(sum(self.parameters.values()))

    @property
    def _denoise_bytes(self) -> int:
        backend, own = self.backend, self.own
        frames = backend.frames / own.frames
        return self._working_bytes(own.working.denoise_gb * frames * self.batch)

    @property
    def _decode_bytes(self) -> int:
        backend, working = self.backend, self.own.working
        decode_gb = working.tiled_decode_gb if backend.tiling else working.decode_gb
        return self._working_bytes(decode_gb * (1 if backend.slicing else self.batch))

    def _working_bytes(self, gigabytes: float) -> int:
        backend, own = self.backend, self.own
        pixels = backend.height * backend.width / (own.height * own.width)
        width = DTYPE_BYTES[self.dtype] / DTYPE_BYTES[own.dtype]
        return math.ceil(gigabytes * _GB * pixels * width)

    def _bytes(self, parameters: int) -> int:
        return parameters * DTYPE_BYTES[self.dtype]


def choose_offload(
    model: Model, memory: Memory, asked: Offload | None, others: Iterable[Model] = ()
) -> Offload:
    """The way to load a model into the memory there is.

    Args:
        model: what is to be loaded.
        memory: what is free.
        asked: the only way; None for the fastest that fits.
        others: what else could be loaded instead, to advise.

    Raises:
        TrainingError: it does not fit so; the sentence says what would.
    """
    for offload in (asked,) if asked else OFFLOADS:
        if model.fits(memory, offload):
            return offload
    advice = list(_advice(model, memory, others))
    would = (
        f"what would fit: {'; '.join(advice)}"
        if advice
        else ("nothing smaller that is known here would fit; use a machine with more memory")
    )
    raise TrainingError(f"{_lack(model, memory, asked)}; {would}")


def _lack(model: Model, memory: Memory, asked: Offload | None) -> str:
    name = f"{model.backend.name} in {model.dtype}"
    if model.copies > 1:
        name = f"{model.copies} workers with {name}"
    device: Device = "cpu" if memory.gpu_bytes is None else "cuda"
    ram = model.ram_bytes(device)
    if memory.gpu_bytes is None or ram > memory.ram_bytes:
        need = "needs" if model.copies == 1 else "need"
        return f"{name} {need} {_gb(ram)} of memory and {_gb(memory.ram_bytes)} are free"
    offload = asked or OFFLOADS[-1]
    return (
        f"{name} needs {_gb(model.gpu_bytes(offload))} of the GPU's memory with --offload "
        f"{offload} and {_gb(memory.gpu_bytes)} are free"
    )


def _advice(model: Model, memory: Memory, others: Iterable[Model]) -> Iterator[str]:
    """Flags that fit, the nearest to what was asked first."""
    for offload in OFFLOADS:
        if memory.gpu_bytes is not None and model.fits(memory, offload):
            yield f"--offload {offload} ({_gb(model.gpu_bytes(offload))})"
    for flag, changed in _smaller(model):
        fitting = next((mode for mode in OFFLOADS if changed.fits(memory, mode)), None)
        if fitting is not None:
            yield f"{flag}{_needing(changed, memory, fitting)}"
    for other in others:
        fitting = next((mode for mode in OFFLOADS if other.fits(memory, mode)), None)
        if fitting is not None and other.backend.name != model.backend.name:
            yield f"--backend {other.backend.name}{_needing(other, memory, fitting)}"


def _smaller(model: Model) -> Iterator[tuple[str, Model]]:
    if model.copies > 1:
        yield "--workers 1", replace(model, copies=1)
    if model.batch > 1:
        yield "--batch 1", replace(model, batch=1)
    if not model.backend.tiling:
        tiled = model.backend.model_copy(update={"tiling": True})
        yield "no --no-tiling", replace(model, backend=tiled)
    if model.dtype == "fp32":
        yield "--dtype bf16", replace(model, dtype="bf16")


def _needing(model: Model, memory: Memory, offload: Offload) -> str:
    if memory.gpu_bytes is None:
        return f" ({_gb(model.ram_bytes('cpu'))})"
    flag = "" if offload == "none" else f" --offload {offload}"
    return f"{flag} ({_gb(model.gpu_bytes(offload))})"


def _gb(size: int) -> str:
    return f"{size / _GB:.1f} GB"


def free_ram_bytes(root: Path = Path("/")) -> int:
    """Memory that processes can still have: the machine's, or less where their group is limited.

    Args:
        root: where `proc` and `sys` are.
    """
    text = (root / "proc/meminfo").read_text()
    kilobytes = next(line.split()[1] for line in text.splitlines() if "MemAvailable" in line)
    return min([int(kilobytes) * 1024, *_left_to_groups(root)])


def _left_to_groups(root: Path) -> Iterator[int]:
    """What each limited group above this process has left, by version 2 of control groups."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    own = next((line[3:] for line in lines if line.startswith("0::")), "/")
    top = root / "sys/fs/cgroup"
    group = top / own.lstrip("/")
    for folder in (group, *group.parents):
        if not folder.is_relative_to(top):
            return
        try:
            limit = (folder / "memory.max").read_text().strip()
            used = int((folder / "memory.current").read_text())
            stat = (folder / "memory.stat").read_text().splitlines()
        except OSError:
            continue
        # Pages of files that were not read lately are given back at need.
        spare = next((int(line.split()[1]) for line in stat if "inactive_file" in line), 0)
        if limit != "max":
            yield int(limit) - used + spare


def free_gpu_bytes() -> int:
    """Free memory of the GPU that is to compute."""
    import torch

    free: int = torch.cuda.mem_get_info()[0]
    return free
