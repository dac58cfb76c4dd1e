"""gvvad-train generate, as it is called."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.generate.conftest import Write, arguments, decoded, files, refused
from training.cli import main
from training.generate.film import read_film
from training.generate.memory import OFFLOADS
from training.manifest import load_manifest, seed_of


def test_every_description_becomes_a_video_that_tells_how(
    descriptions: Write, cogvideox: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, rows = tmp_path / "out", descriptions(3, seed=7, **{"class": "theft"})
    assert main(arguments(rows, cogvideox, out, "--frames", "17", "--negative-prompt", "rain")) == 0
    assert "3 of 3 videos in" in capsys.readouterr().out
    made = load_manifest(out / "manifest.jsonl")
    assert [row.id for row in made.rows] == ["d0", "d1", "d2"]
    assert [row.label for row in made.rows] == ["normal", "anomalous", "normal"]
    for row in made.rows:
        film = read_film(made.file(str(row.video)))
        assert (row.source, row.class_name, row.frames, row.fps) == ("synthetic", "theft", 17, 8)
        assert (film.note.description, film.note.seed) == (row.description, 7)
        assert (film.note.generation, film.sha256) == (row.generation, row.video_sha256)
    settings = made.rows[0].generation
    assert settings is not None
    assert (settings.negative_prompt, settings.frames, settings.dtype) == ("rain", 17, "fp32")
    assert (settings.pipeline, settings.model) == ("CogVideoXPipeline", "weights")


def test_a_video_does_not_depend_on_the_others(
    descriptions: Write, cogvideox: Path, three: Path, tmp_path: Path
) -> None:
    assert main(arguments(descriptions(1, first=1), cogvideox, tmp_path / "one")) == 0
    assert files(tmp_path / "one") == {"d1.mp4": files(three)["d1.mp4"]}
    assert len(set(files(three).values())) == 3


def test_a_seed_follows_from_the_id_unless_it_is_given(
    cogvideox: Path, three: Path, tmp_path: Path
) -> None:
    rows = load_manifest(three / "manifest.jsonl").rows
    sha = hashlib.sha256(b"d1").digest()
    assert rows[1].seed == seed_of("d1") == int.from_bytes(sha[:4], "big")
    # The manifest tells all that is needed to make the videos again.
    assert main(arguments(three / "manifest.jsonl", cogvideox, tmp_path / "again")) == 0
    assert files(tmp_path / "again") == files(three)


def test_a_second_run_makes_only_what_lacks(
    descriptions: Write, cogvideox: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, manifest = files(out), (out / "manifest.jsonl").read_bytes()
    (out / "videos" / "d1.mp4").unlink()
    (out / "videos" / ".d2.mp4.0123abcd.part").write_bytes(b"of a killed run")
    (out / "videos" / ".stranger.mp4.0123abcd.part").write_bytes(b"of another shard")
    assert main(arguments(descriptions(3), cogvideox, out, "--json")) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["videos"], told["made"], told["kept"], told["failed"]) == (3, 1, 2, {})
    assert files(out) == before | {".stranger.mp4.0123abcd.part": b"of another shard"}
    assert (out / "manifest.jsonl").read_bytes() == manifest


def test_a_batch_starts_from_the_same_noise_as_each_alone(
    descriptions: Write, cogvideox: Path, three: Path, tmp_path: Path
) -> None:
    given = arguments(descriptions(3), cogvideox, tmp_path / "out", "--batch", "2", "--no-slicing")
    assert main(given) == 0
    for name in files(three):
        alone, beside = (decoded(out / "videos" / name) for out in (three, tmp_path / "out"))
        assert np.abs(alone - beside).mean() < 1


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--steps", "3"], "d0.mp4 was made with steps 2 and 3 is asked for now"),
        (["--guidance", "5"], "made with guidance 6.0 and 5.0"),
        (["--no-tiling"], "made with tiling true and false"),
        (["--negative-prompt", "rain"], 'made with negative_prompt "" and "rain"'),
        (["--dtype", "bf16"], 'made with dtype "fp32" and "bf16"'),
    ],
)
def test_videos_of_other_settings_are_not_mixed(
    more: list[str],
    said: str,
    descriptions: Write,
    cogvideox: Path,
    out: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = files(out)
    assert said in refused(arguments(descriptions(1), cogvideox, out, *more), capsys)
    assert files(out) == before


def test_videos_of_other_weights_are_not_mixed(
    descriptions: Write, cogvideox: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied = Path(shutil.copytree(cogvideox, out.parent / "copied"))
    assert main(arguments(descriptions(3), copied, out)) == 0
    with (copied / "vae" / "diffusion_pytorch_model.safetensors").open("r+b") as file:
        file.seek(-4, 2)
        file.write(b"\0\0\0\0")
    said = refused(arguments(descriptions(3), copied, out), capsys)
    assert "d0.mp4 was made with weights_sha256 " in said


def test_another_description_under_an_old_id_is_refused(
    descriptions: Write, cogvideox: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = arguments(descriptions(1, description="a dog"), cogvideox, out)
    assert 'made with description "a man walks a" and "a dog"' in refused(given, capsys)
    given = arguments(descriptions(1, seed=5), cogvideox, out)
    assert "d0.mp4 was made with seed " in refused(given, capsys)


def test_a_broken_video_under_a_final_name_is_refused(
    descriptions: Write, cogvideox: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = out / "videos" / "d1.mp4"
    video.write_bytes(video.read_bytes()[:-9])
    said = refused(arguments(descriptions(3), cogvideox, out), capsys)
    assert "d1.mp4 was not made by generate, or is broken" in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"id": "../d"}, "id '../d' cannot name a file"),
        ({"id": ".d"}, "id '.d' cannot name a file"),
        ({"id": "d" * 201}, "cannot name a file"),
        ({"description": " "}, "'d0' has no description"),
        ({"description": None}, "'d0' has no description"),
        ({"seed": -1}, "seed (-1) of 'd0' must be 0 or more"),
    ],
)
def test_rows_that_cannot_be_made_are_refused(
    changes: dict[str, object],
    said: str,
    descriptions: Write,
    cogvideox: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = arguments(descriptions(1, **changes), cogvideox, tmp_path / "out")
    assert said in refused(given, capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--offload", "model"], "--offload model moves parts between a GPU and memory"),
        (["--workers", "2"], "--workers (2) are Ray's; give --ray"),
        (["--no-slicing"], "--no-slicing tells how a batch is decoded"),
        (["--batch", "65"], "--batch (65) must be 1 to 64"),
        (["--shard", "3/2"], "--shard (3/2) must be i/n"),
        (["--shard", "two"], "--shard (two) must be i/n"),
        (["--frames", "16"], "frames (16) must be one more than a multiple of 4, as 13 or 17"),
        (["--out", "/proc/no"], "/proc/no cannot be written to"),
    ],
)
def test_flags_that_do_not_fit_are_refused(
    more: list[str],
    said: str,
    descriptions: Write,
    cogvideox: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [*arguments(descriptions(1), cogvideox, tmp_path / "out"), *more]
    assert said in refused(given, capsys)
    assert not (tmp_path / "out").exists()


def test_a_description_that_is_cut_off_is_told(
    descriptions: Write, cogvideox: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = descriptions(2, description="a man walks about at night")
    assert main(arguments(rows, cogvideox, tmp_path / "out")) == 0
    said = "2 of 2 descriptions are longer than the 16 tokens that tiny reads, the first d0"
    assert said in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("more", [[], ["--ray"]])
def test_a_gpu_that_is_not_there_is_refused(
    more: list[str],
    descriptions: Write,
    cogvideox: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = arguments(descriptions(1), cogvideox, tmp_path / "out", "--device", "cuda", *more)
    assert "--device cuda: torch finds no GPU here" in refused(given, capsys)


@pytest.mark.gpu
@pytest.mark.parametrize("offload", OFFLOADS)
def test_a_gpu_shows_what_the_cpu_shows(
    offload: str, descriptions: Write, cogvideox: Path, three: Path, tmp_path: Path
) -> None:
    given = arguments(descriptions(3), cogvideox, tmp_path / "out", "--dtype", "fp32")
    assert main([*given, "--device", "cuda", "--offload", offload]) == 0
    for name in files(three):
        on_cpu, on_gpu = (decoded(out / "videos" / name) for out in (three, tmp_path / "out"))
        assert np.abs(on_cpu - on_gpu).mean() < 2
