"""Whether a pipeline fits, from numbers alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.clips import TrainingError
from training.generate.backend import changed, load_backend
from training.generate.memory import (
    OFFLOADS,
    Memory,
    Model,
    Offload,
    choose_offload,
    free_ram_bytes,
)

GB = 10**9
SMALL, LARGE = load_backend("cogvideox-2b"), load_backend("cogvideox-5b")


def model(name: str = "cogvideox-5b", **changes: object) -> Model:
    own = load_backend(name)
    return Model(changed(own, changes), own, own.parameters, own.dtype)


def on_gpu(gigabytes: float, ram: float = 128) -> Memory:
    return Memory(int(ram * GB), int(gigabytes * GB))


@pytest.mark.parametrize(
    ("name", "gigabytes", "offload"),
    [
        ("cogvideox-5b", 80, "none"),
        ("cogvideox-5b", 24, "model"),
        ("cogvideox-5b", 8, "sequential"),
        ("cogvideox-2b", 24, "none"),
        ("cogvideox-2b", 12, "model"),
    ],
)
def test_the_fastest_way_that_fits_a_common_gpu_is_chosen(
    name: str, gigabytes: float, offload: Offload
) -> None:
    assert choose_offload(model(name), on_gpu(gigabytes), None) == offload


def test_cogvideox_takes_about_what_is_published() -> None:
    """19 GB offloaded (diffusers' page), 12.5 GB with tiles too (the model's page, 2B)."""
    whole, tiled = model("cogvideox-2b", tiling=False), model("cogvideox-2b")
    assert whole.gpu_bytes("model") / GB == pytest.approx(19, rel=0.15)
    assert tiled.gpu_bytes("model") / GB == pytest.approx(12.5, rel=0.15)


def test_too_little_is_told_with_what_would_fit() -> None:
    others = [Model(SMALL, SMALL, SMALL.parameters, "fp16")]
    with pytest.raises(TrainingError) as told:
        choose_offload(model(), on_gpu(20), "none", others)
    assert str(told.value) == (
        "cogvideox-5b in bf16 needs 27.6 GB of the GPU's memory with --offload none and 20.0 GB "
        "are free; what would fit: --offload model (16.1 GB); --offload sequential (6.5 GB); "
        "--backend cogvideox-2b (19.8 GB)"
    )


def test_a_cpu_needs_memory_for_all_and_smaller_numbers_are_advised() -> None:
    given = replace(model("cogvideox-2b"), dtype="fp32")
    assert choose_offload(given, Memory(64 * GB), None) == "none"
    with pytest.raises(TrainingError, match=r"in fp32 needs 36\.7 GB of memory and 32\.0 GB") as no:
        choose_offload(given, Memory(32 * GB), None)
    assert str(no.value).endswith("what would fit: --dtype bf16 (18.8 GB)")


def test_where_nothing_fits_it_says_so() -> None:
    with pytest.raises(TrainingError, match="nothing smaller that is known here would fit"):
        choose_offload(model(), on_gpu(2), None)


def test_workers_on_one_machine_need_its_memory_each() -> None:
    given = replace(model(), copies=4)
    with pytest.raises(
        TrainingError, match=r"4 workers with cogvideox-5b in bf16 need 88\.4"
    ) as no:
        choose_offload(given, on_gpu(80, ram=64), None)
    assert "--workers 1 (27.6 GB)" in str(no.value)


@given(st.integers(1, 8), st.integers(1, 6), st.booleans(), st.floats(0.1, 200))
def test_less_never_needs_more(batch: int, tiles: int, slicing: bool, gigabytes: float) -> None:
    own = LARGE
    backend = changed(own, {"height": 96 * tiles, "slicing": slicing})
    given = Model(backend, own, own.parameters, "bf16", batch)
    needed = [given.gpu_bytes(offload) for offload in OFFLOADS]
    assert needed == sorted(needed, reverse=True)
    assert given.gpu_bytes("none") <= replace(given, batch=batch + 1).gpu_bytes("none")
    assert given.gpu_bytes("none") <= replace(given, dtype="fp32").gpu_bytes("none")
    fitting = [offload for offload in OFFLOADS if given.fits(on_gpu(gigabytes), offload)]
    assert fitting == list(OFFLOADS[len(OFFLOADS) - len(fitting) :])


def machine(root: Path, limit: str) -> Path:
    group = root / "sys/fs/cgroup/jobs/one"
    group.mkdir(parents=True)
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    8000000 kB\n")
    (root / "proc/self/cgroup").write_text("0::/jobs/one\n")
    for folder, most in ((group, "max"), (group.parent, limit)):
        (folder / "memory.max").write_text(f"{most}\n")
        (folder / "memory.current").write_text("3000000000\n")
        (folder / "memory.stat").write_text("anon 1\ninactive_file 1000000000\nactive_file 5\n")
    return root


def test_a_limit_of_the_group_above_counts(tmp_path: Path) -> None:
    assert free_ram_bytes(machine(tmp_path, "6000000000")) == 4 * GB


def test_without_a_limit_the_machine_counts(tmp_path: Path) -> None:
    assert free_ram_bytes(machine(tmp_path, "max")) == 8_000_000 * 1024
    assert free_ram_bytes() > 0
