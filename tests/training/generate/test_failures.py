"""What goes wrong in a run is told in a sentence, and what is finished is kept."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.disk import largest_file
from tests.support.tiny_cogvideox import LETTERS, SPECIAL, tiny_backend
from tests.training.generate.conftest import Write, arguments, files, refused
from tests.training.generate.test_weights import huge
from training.cli import main
from training.generate.folder import WHOLE, Folder
from training.manifest import load_manifest

SHORT = ("--frames", "1", "--steps", "1")
TENSORS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def overflowing(cogvideox: Path, tmp_path: Path) -> Path:
    """Weights that make no numbers of anything."""
    folder = Path(shutil.copytree(cogvideox, tmp_path / "overflowing"))
    tensors = load_file(folder / "vae" / TENSORS)
    spoiled = {name: torch.full_like(value, torch.inf) for name, value in tensors.items()}
    save_file(spoiled, folder / "vae" / TENSORS, {"format": "pt"})
    return folder


def test_a_run_in_which_no_video_can_be_made_says_why(
    descriptions: Write, overflowing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(arguments(descriptions(2), overflowing, tmp_path / "out", *SHORT), capsys)
    assert "no video could be made; the first, d0: its frames are not finite numbers" in said
    left = files(tmp_path / "out")
    assert set(left) == {"d0.failed.json", "d1.failed.json"}
    assert "not finite" in json.loads(left["d0.failed.json"])["reason"]
    assert not (tmp_path / "out" / "manifest.jsonl").exists()


def test_a_run_stops_after_five_failures_in_a_row(
    descriptions: Write, overflowing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = arguments(descriptions(7), overflowing, tmp_path / "out", *SHORT)
    assert "5 videos in a row could not be made; the last, d4: " in refused(given, capsys)
    assert len(files(tmp_path / "out")) == 5
    # The next run begins with those that were not tried.
    assert "5 videos in a row could not be made; the last, d2: " in refused(given, capsys)
    assert len(files(tmp_path / "out")) == 7


def test_a_failed_video_is_tried_again_and_its_failure_forgotten(
    descriptions: Write, cogvideox: Path, out: Path
) -> None:
    before = files(out)
    (out / "videos" / "d1.mp4").unlink()
    for name in ("d0", "d1"):
        (out / "videos" / f"{name}.failed.json").write_text('{"reason": "x", "at": "y"}')
    assert main(arguments(descriptions(3), cogvideox, out)) == 0
    assert files(out) == before


def test_one_bad_video_of_a_batch_spoils_no_other(
    descriptions: Write, cogvideox: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(cogvideox, tmp_path / "weights_without_b"))
    tensors = load_file(folder / "text_encoder" / "model.safetensors")
    tensors["shared.weight"][LETTERS.index("b") + SPECIAL] = torch.inf
    save_file(tensors, folder / "text_encoder" / "model.safetensors", {"format": "pt"})
    out = tmp_path / "out"
    assert main(arguments(descriptions(3), folder, out, "--batch", "3", "--json")) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["videos"], told["made"], list(told["failed"])) == (2, 2, ["d1"])
    assert [row.id for row in load_manifest(out / "manifest.jsonl").rows] == ["d0", "d2"]


def test_what_the_pipeline_says_is_told(
    descriptions: Write, cogvideox: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = arguments(descriptions(3), cogvideox, tmp_path / "out", "--batch", "2")
    tiny_backend(tmp_path, arguments={"timesteps": 3})
    said = refused(given, capsys)
    assert "no video could be made; the first, d0: ValueError: The current scheduler" in said
    assert set(files(tmp_path / "out")) == {f"d{number}.failed.json" for number in range(3)}


def test_a_disk_that_fills_stops_the_run_and_keeps_what_is_finished(
    descriptions: Write, cogvideox: Path, three: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    largest = max(files(three), key=lambda name: len(files(three)[name]))
    for name in files(three):
        (out / "videos" / name).unlink()
    with largest_file(len(files(three)[largest]) - 1):
        said = refused(arguments(descriptions(3), cogvideox, out), capsys)
    assert f"{out} cannot be written to (File too large); what is finished is kept" in said
    # Those before it, in the order of the rows.
    assert files(out) == {n: c for n, c in files(three).items() if n < largest}
    assert not any(path.name.endswith(".part") for path in out.rglob("*"))
    assert main(arguments(descriptions(3), cogvideox, out)) == 0
    assert files(out) == files(three)


@pytest.mark.long
def test_a_disk_without_room_is_told_before_anything_is_loaded(
    descriptions: Write, cogvideox: Path, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    given = arguments(descriptions(3), cogvideox, tmp_path / "out")
    given[given.index("--out") + 1] = str(disk)
    # A disk of this test's own, which goes with its processes.
    inside = 'mount -t tmpfs -o size=1m x "$1" && shift && exec "$@"'
    command = ["unshare", "-rm", "sh", "-c", inside, "sh", disk, sys.executable, "-m", "training"]
    finished = subprocess.run([*command, *given], capture_output=True, text=True)
    assert finished.returncode == 2, finished.stderr
    assert "3 videos of about 0.0 MB need 17 MB in" in finished.stderr
    assert "1 MB are free; free some, or give another --out" in finished.stderr


def test_weights_too_large_for_the_memory_are_told_before_they_are_loaded(
    descriptions: Write, cogvideox: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(cogvideox, tmp_path / "huge"))
    huge(folder / "transformer" / TENSORS, 10**12)
    said = refused(arguments(descriptions(1), folder, tmp_path / "out"), capsys)
    assert "tiny in fp32 needs 4001.1 GB of memory and " in said
    assert files(tmp_path / "out") == {}


def test_a_second_run_of_the_same_videos_is_kept_out(
    descriptions: Write, cogvideox: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Folder(out).held(WHOLE):
        said = refused(arguments(descriptions(3), cogvideox, out), capsys)
    assert "another run makes the same videos in" in said
    assert main(arguments(descriptions(3), cogvideox, out)) == 0
