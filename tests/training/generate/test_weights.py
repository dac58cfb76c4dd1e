"""Weights are judged by their files' names and heads, before anything is loaded."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.tiny_cogvideox import tiny_backend
from training.clips import TrainingError
from training.generate.backend import Backend, load_backend
from training.generate.weights import Weights, find_folder, local_weights

TENSORS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def backend(tmp_path: Path) -> Backend:
    return load_backend(str(tiny_backend(tmp_path)))


@pytest.fixture
def copied(cogvideox: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(cogvideox, tmp_path / "copied"))


def huge(file: Path, parameters: int, name: str = "w") -> None:
    """A file that says it holds so many, and takes no room on the disk."""
    size = 2 * parameters
    header = {name: {"dtype": "F16", "shape": [parameters], "data_offsets": [0, size]}}
    head = json.dumps(header).encode()
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(head)) + head)
        stream.truncate(8 + len(head) + size)


def test_parameters_are_those_that_torch_counts(cogvideox: Path, backend: Backend) -> None:
    from diffusers import CogVideoXPipeline

    pipe = CogVideoXPipeline.from_pretrained(cogvideox)
    found = local_weights("x", cogvideox, backend).parameters
    assert found == {
        part: sum(p.numel() for p in getattr(pipe, part).parameters())
        for part in ("text_encoder", "transformer", "vae")
    }


def test_parts_in_several_files_count_together(copied: Path, backend: Backend) -> None:
    (copied / "transformer" / TENSORS).unlink()
    for number in (1, 2):
        name = f"diffusion_pytorch_model-0000{number}-of-00002.safetensors"
        huge(copied / "transformer" / name, 5 * 10**9)
    assert local_weights("x", copied, backend).parameters["transformer"] == 10**10
    (copied / "transformer" / "diffusion_pytorch_model-00001-of-00002.safetensors").unlink()
    with pytest.raises(TrainingError, match="transformer holds 1 of 2 files; download the rest"):
        local_weights("x", copied, backend)


def test_files_that_are_not_loaded_do_not_count(copied: Path, backend: Backend) -> None:
    before = local_weights("x", copied, backend)
    (copied / "README.md").write_text("hello")
    for name in ("diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.bin"):
        huge(copied / "vae" / name, 10**6)
    after = local_weights("x", copied, backend)
    assert after.parameters == before.parameters
    assert after.sha256() == before.sha256()


def cut(folder: Path) -> None:
    file = folder / "vae" / TENSORS
    with file.open("r+b") as stream:
        stream.truncate(file.stat().st_size - 1)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: (f / "model_index.json").unlink(), "have no model_index.json that can be read"),
        (lambda f: (f / "model_index.json").write_text("[]"), "must be a JSON object"),
        (lambda f: shutil.rmtree(f / "vae"), "lack their folder vae"),
        (lambda f: (f / "vae" / TENSORS).unlink(), "vae holds no weights"),
        (cut, "is no safetensors file, or is cut off; download it again"),
        (lambda f: (f / "vae" / TENSORS).write_bytes(b""), "or is cut off"),
        (lambda f: (f / "vae" / TENSORS).write_text("version https://git-lfs"), "or is cut off"),
        (lambda f: (f / "vae" / TENSORS).write_bytes(b"\2" + bytes(7) + b"[]"), "or is cut off"),
    ],
)
def test_weights_that_are_not_whole_are_refused(
    spoil: Callable[[Path], object], said: str, copied: Path, backend: Backend
) -> None:
    spoil(copied)
    with pytest.raises(TrainingError, match=said):
        local_weights("x", copied, backend)


def test_weights_of_another_class_are_refused(other: Path, backend: Backend) -> None:
    with pytest.raises(TrainingError, match="are for LTXPipeline, backend tiny is a CogVideoXP"):
        local_weights("x", other, backend)


def test_weights_of_another_model_of_the_class_are_refused(copied: Path) -> None:
    sizes = load_backend("cogvideox-5b").parameters
    for part, name in (("text_encoder", "model.safetensors"), ("vae", TENSORS)):
        huge(copied / part / name, sizes[part])
    huge(copied / "transformer" / TENSORS, sizes["transformer"])
    assert local_weights("x", copied, load_backend("cogvideox-5b")).parameters == sizes
    said = "have 5.57 billion parameters in transformer, cogvideox-2b has 1.69"
    with pytest.raises(TrainingError, match=said):
        local_weights("x", copied, load_backend("cogvideox-2b"))


def test_a_place_that_is_neither_folder_nor_hub_id_is_refused(tmp_path: Path) -> None:
    assert find_folder(str(tmp_path)) == tmp_path
    assert find_folder("THUDM/CogVideoX-2b") is None
    for name in ("nowhere", "/no/where", "./a/b/c"):
        with pytest.raises(TrainingError, match="are not there; give a folder"):
            find_folder(name)


def test_the_hash_follows_every_file_that_is_loaded(copied: Path, backend: Backend) -> None:
    def sha256() -> str:
        return Weights("x", copied, {}).sha256()

    seen = {sha256()}
    for file in ("vae/config.json", f"vae/{TENSORS}", "tokenizer/tokenizer.json"):
        content = bytearray((copied / file).read_bytes())
        content[-2] ^= 1
        (copied / file).write_bytes(content)
        seen.add(sha256())
    huge(copied / "vae" / TENSORS, 10**8)
    seen.add(sha256())
    huge(copied / "vae" / TENSORS, 10**8, name="v")
    seen.add(sha256())
    with (copied / "vae" / TENSORS).open("r+b") as stream:
        stream.seek(-100, 2)
        stream.write(b"x")
    seen.add(sha256())
    assert len(seen) == 7
